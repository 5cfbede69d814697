"""The network: one flat float32 vector of weights with named views, the training pass in bfloat16
and a plain float32 pass with a cache for evaluation. The graph is that of qwen3_moe."""
import math

import torch
import torch.nn.functional as F

from fixed_files import CONFIG as C

HIDDEN, LAYERS, HEADS, KV_HEADS = (C["hidden_size"], C["num_hidden_layers"], C["num_attention_heads"],
                                   C["num_key_value_heads"])
HEAD, EXPERTS, TOP, WIDTH = (C["head_dim"], C["num_experts"], C["num_experts_per_tok"],
                             C["moe_intermediate_size"])
VOCABULARY, EPS = C["vocab_size"], C["rms_norm_eps"]


def shapes():
    yield "embed", (VOCABULARY, HIDDEN)
    yield "lm_head", (VOCABULARY, HIDDEN)
    yield "norm", (HIDDEN,)
    for i in range(LAYERS):
        yield f"{i}.norm1", (HIDDEN,)
        yield f"{i}.norm2", (HIDDEN,)
        yield f"{i}.q_norm", (HEAD,)
        yield f"{i}.k_norm", (HEAD,)
        yield f"{i}.qkv", ((HEADS + 2 * KV_HEADS) * HEAD, HIDDEN)
        yield f"{i}.o", (HIDDEN, HEADS * HEAD)
        yield f"{i}.router", (EXPERTS, HIDDEN)
        yield f"{i}.gate_up", (EXPERTS, HIDDEN, 2 * WIDTH)  # [in, out], as the grouped product wants it
        yield f"{i}.down", (EXPERTS, WIDTH, HIDDEN)


PARAMETERS = sum(math.prod(shape) for _, shape in shapes())


def views(flat):
    """name -> view of the flat vector."""
    result, offset = {}, 0
    for name, shape in shapes():
        size = math.prod(shape)
        result[name] = flat[offset:offset + size].view(shape)
        offset += size
    return result


def initialise(flat, seed):
    generator = torch.Generator().manual_seed(seed)
    for name, weight in views(flat).items():
        if weight.dim() == 1:
            weight.fill_(1.0)
            continue
        fan_in = weight.shape[-2] if weight.dim() == 3 else weight.shape[-1]
        scale = {"embed": 0.1, "router": 0.02}.get(name.split(".")[-1], fan_in ** -0.5)
        if name.endswith((".o", ".down")):
            scale /= math.sqrt(2 * LAYERS)
        weight.normal_(0, scale, generator=generator)


def rope_tables(length):
    """cos, sin: [length, HEAD], the two halves alike."""
    inverse = C["rope_theta"] ** (-torch.arange(0, HEAD, 2, dtype=torch.float32) / HEAD)
    angle = torch.arange(length, dtype=torch.float32)[:, None] * inverse
    return torch.cat([angle, angle], -1).cos(), torch.cat([angle, angle], -1).sin()


def rotate(x, cos, sin):
    low, high = x.chunk(2, -1)
    return x * cos + torch.cat([-high, low], -1) * sin


def rms(x, weight):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * weight


# ---- training -----------------------------------------------------------------------------------

BLOCK = 64  # each expert's rows are padded to whole blocks: ragged sizes would compile a kernel each


class Experts(torch.autograd.Function):
    """y[t] = sum over k of weight[t, k] * expert id[t, k] (x[t]), with the backward pass by hand."""

    @staticmethod
    def forward(ctx, x, weight, ids, gate_up, down):
        tokens = x.shape[0]
        flat = ids.reshape(-1)
        counts = torch.bincount(flat, minlength=EXPERTS)
        padded = (counts + BLOCK - 1) // BLOCK * BLOCK
        ends = padded.cumsum(0)
        order = flat.argsort(stable=True)
        expert = flat[order]
        row = torch.arange(len(flat)) + (ends - padded - counts.cumsum(0) + counts)[expert]
        rows = int(ends[-1])
        source = torch.zeros(rows, dtype=torch.long)
        source[row] = order // TOP
        scale = torch.zeros(rows)
        scale[row] = weight.reshape(-1)[order]
        place = torch.empty(tokens * TOP, dtype=torch.long)
        place[order] = row
        place = place.view(tokens, TOP)
        ends = ends.int()

        xb, scale = x.bfloat16().index_select(0, source), scale.bfloat16()[:, None]
        gate, up = torch._grouped_mm(xb, gate_up, offs=ends).chunk(2, -1)
        act = F.silu(gate) * up
        out = torch._grouped_mm(act * scale, down, offs=ends)
        ctx.save_for_backward(xb, source, scale, place, ends, gate, up, act, gate_up, down)
        return F.embedding_bag(place, out, mode="sum").float()

    @staticmethod
    def backward(ctx, dy):
        xb, source, scale, place, ends, gate, up, act, gate_up, down = ctx.saved_tensors
        dout = dy.bfloat16().index_select(0, source)
        d_scaled = torch._grouped_mm(dout, down.transpose(1, 2), offs=ends)
        d_down = torch._grouped_mm((act * scale).t(), dout, offs=ends)
        d_weight = (d_scaled * act).sum(-1, dtype=torch.float32)[place]
        d_act = d_scaled * scale
        sigma = torch.sigmoid(gate)
        silu = gate * sigma
        d_gate_up = torch.cat([d_act * up * (sigma + silu * (1 - sigma)), d_act * silu], -1)
        dx = torch._grouped_mm(d_gate_up, gate_up.transpose(1, 2), offs=ends)
        d_gate_up_weight = torch._grouped_mm(xb.t(), d_gate_up, offs=ends)
        return F.embedding_bag(place, dx, mode="sum").float(), d_weight, None, d_gate_up_weight, d_down


def linear(x, weight):
    return F.linear(x.bfloat16(), weight.bfloat16()).float()


def training_loss(w, ids, learned, tables):
    """ids: [batch, length], right-padded; learned: [batch, length], the tokens the model shall write.

    Returns the summed cross entropy, the balance loss (1 when even) and the expert counts [layers, experts].
    """
    batch, length = ids.shape
    cos, sin = tables[0][:length, None], tables[1][:length, None]
    real = (ids != C["pad_token_id"]).reshape(-1).float()
    x = F.embedding(ids, w["embed"]).reshape(-1, HIDDEN)
    balance, loads = 0.0, []
    for i in range(LAYERS):
        qkv = linear(rms(x, w[f"{i}.norm1"]), w[f"{i}.qkv"]).view(batch, length, HEADS + 2 * KV_HEADS, HEAD)
        q, k, v = qkv.split([HEADS, KV_HEADS, KV_HEADS], 2)
        q = rotate(rms(q, w[f"{i}.q_norm"]), cos, sin).transpose(1, 2)
        k = rotate(rms(k, w[f"{i}.k_norm"]), cos, sin).transpose(1, 2)
        k, v = (t.repeat_interleave(HEADS // KV_HEADS, 1) for t in (k, v.transpose(1, 2)))
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + linear(a.transpose(1, 2).reshape(-1, HEADS * HEAD), w[f"{i}.o"])

        h = rms(x, w[f"{i}.norm2"])
        logits = F.linear(h, w[f"{i}.router"])
        top, chosen = logits.topk(TOP, -1)
        load = torch.zeros(EXPERTS).index_add_(0, chosen.reshape(-1), real.repeat_interleave(TOP))
        share = (logits.softmax(-1) * real[:, None]).sum(0) / real.sum()
        balance = balance + EXPERTS * (load / load.sum() * share).sum() / LAYERS
        loads.append(load)
        x = x + Experts.apply(h, top.softmax(-1), chosen, w[f"{i}.gate_up"].bfloat16(),
                              w[f"{i}.down"].bfloat16())
    target = learned[:, 1:].reshape(-1).nonzero()[:, 0]
    rows = target + target // (length - 1)
    hidden = rms(x[rows], w["norm"])
    hidden = F.pad(hidden, (0, 0, 0, -len(rows) % 128))
    logits = linear(hidden, w["lm_head"])[:len(rows)]
    loss = F.cross_entropy(logits, ids[:, 1:].reshape(-1)[target], reduction="sum")
    return loss, balance, torch.stack(loads)


# ---- evaluation ---------------------------------------------------------------------------------

class Cache:
    def __init__(self, batch, length):
        self.k = torch.zeros(LAYERS, batch, length, KV_HEADS, HEAD)
        self.v = torch.zeros(LAYERS, batch, length, KV_HEADS, HEAD)
        self.loads = torch.zeros(LAYERS, EXPERTS)


@torch.inference_mode()
def logits_of(w, ids, positions, cache, tables, real=None):
    """ids, positions: [batch, new]; real: [batch, new], the tokens that count in the expert loads.

    Returns [batch, new, vocabulary], all in float32.
    """
    batch, new = ids.shape
    cos, sin = tables[0][positions][:, :, None], tables[1][positions][:, :, None]
    rows = torch.arange(batch)[:, None]
    reach = int(positions.max()) + 1
    mask = torch.arange(reach) <= positions[:, :, None]  # [batch, new, reach]
    x = w["embed"][ids]
    for i in range(LAYERS):
        qkv = F.linear(rms(x, w[f"{i}.norm1"]), w[f"{i}.qkv"]).view(batch, new, HEADS + 2 * KV_HEADS, HEAD)
        q, k, v = qkv.split([HEADS, KV_HEADS, KV_HEADS], 2)
        q = rotate(rms(q, w[f"{i}.q_norm"]), cos, sin)
        cache.k[i, rows, positions] = rotate(rms(k, w[f"{i}.k_norm"]), cos, sin)
        cache.v[i, rows, positions] = v
        k, v = (t[i, :, :reach].repeat_interleave(HEADS // KV_HEADS, 2) for t in (cache.k, cache.v))
        score = torch.einsum("bnhd,brhd->bhnr", q, k) * HEAD ** -0.5
        score = score.masked_fill(~mask[:, None], -math.inf).softmax(-1)
        a = torch.einsum("bhnr,brhd->bnhd", score, v).reshape(batch, new, -1)
        x = x + F.linear(a, w[f"{i}.o"])

        h = rms(x, w[f"{i}.norm2"]).view(-1, HIDDEN)
        top, chosen = F.linear(h, w[f"{i}.router"]).topk(TOP, -1)
        weight, y = top.softmax(-1), torch.zeros_like(h)
        if real is not None:
            cache.loads[i] += torch.bincount(chosen[real.view(-1)].view(-1), minlength=EXPERTS)
        order = chosen.view(-1).argsort(stable=True)
        counts = torch.bincount(chosen.view(-1), minlength=EXPERTS).tolist()
        for e, slots in enumerate(order.split(counts)):
            if len(slots):
                token = slots // TOP
                gate, up = (h[token] @ w[f"{i}.gate_up"][e]).chunk(2, -1)
                out = F.silu(gate) * up @ w[f"{i}.down"][e]
                y.index_add_(0, token, weight.view(-1)[slots, None] * out)
        x = x + y.view(batch, new, HIDDEN)
    return F.linear(rms(x, w["norm"]), w["lm_head"])
