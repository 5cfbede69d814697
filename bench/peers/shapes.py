"""The models that are compared, as the tensors of a GGUF file, and what a step of them must read."""
import dataclasses
import math

from work import Failure, Work

# (weights, bytes) of one block: f32; 32 int8 and an f16 scale; 32 nibbles and an f16 scale.
BLOCKS = {"f32": (1, 4), "q8_0": (32, 34), "q4_0": (32, 18)}
QUANTS = ("q8_0", "q4_0")


@dataclasses.dataclass(frozen=True)
class Shape:
    architecture: str  # llama.cpp's name of the graph
    layers: int  # of the whole model
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int  # of one expert, where there are experts
    vocabulary: int
    context: int
    rope_base: float
    norm_eps: float
    experts: int = 0
    experts_per_token: int = 0


def padded(width: int) -> int:
    """To whole blocks of 32: without it the peer has no quantised form of the matrix."""
    return -(-width // 32) * 32


SHAPES = {
    "enggpt2": Shape(architecture="qwen3moe", layers=24, hidden=2880, heads=32, kv_heads=4,
                     head_dim=128, feed_forward=padded(1080), vocabulary=131084, context=40960,
                     rope_base=1e6, norm_eps=1e-6, experts=64, experts_per_token=8),
    "dense-8b": Shape(architecture="llama", layers=32, hidden=4096, heads=32, kv_heads=8,
                      head_dim=128, feed_forward=14336, vocabulary=128256, context=8192,
                      rope_base=5e5, norm_eps=1e-5),
}


@dataclasses.dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]  # [experts, out, in] or [out, in] or [width]
    type: str  # of BLOCKS

    @property
    def bytes(self) -> int:
        weights, size = BLOCKS[self.type]
        if self.shape[-1] % weights:
            raise ValueError(f"{self.name}: {self.shape[-1]} is no multiple of {weights}")
        return math.prod(self.shape) // weights * size

    @property
    def of_experts(self) -> bool:
        return "_exps" in self.name


def checked(name: str, layers: int) -> Shape:
    """The shape of that name, if it has so many layers."""
    if name not in SHAPES:
        raise Failure(f"no shape {name!r}; there are {', '.join(SHAPES)}")
    shape = SHAPES[name]
    if not 1 <= layers <= shape.layers:
        raise Failure(f"{layers} layers: {name} has 1 to {shape.layers}")
    return shape


def tensors(shape: Shape, layers: int, quant: str) -> list[Tensor]:
    """Every tensor of the file; norms and router are f32, as llama.cpp's own files have them."""
    hidden, wide = shape.hidden, shape.feed_forward
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    made = [Tensor("token_embd.weight", (shape.vocabulary, hidden), quant),
            Tensor("output_norm.weight", (hidden,), "f32"),
            Tensor("output.weight", (shape.vocabulary, hidden), quant)]
    for layer in range(layers):
        parts = [("attn_norm", (hidden,), "f32"), ("ffn_norm", (hidden,), "f32"),
                 ("attn_q", (q, hidden), quant), ("attn_k", (kv, hidden), quant),
                 ("attn_v", (kv, hidden), quant), ("attn_output", (hidden, q), quant)]
        if shape.experts:
            parts += [("attn_q_norm", (shape.head_dim,), "f32"),
                      ("attn_k_norm", (shape.head_dim,), "f32"),
                      ("ffn_gate_inp", (shape.experts, hidden), "f32"),
                      ("ffn_gate_exps", (shape.experts, wide, hidden), quant),
                      ("ffn_up_exps", (shape.experts, wide, hidden), quant),
                      ("ffn_down_exps", (shape.experts, hidden, wide), quant)]
        else:
            parts += [("ffn_gate", (wide, hidden), quant), ("ffn_up", (wide, hidden), quant),
                      ("ffn_down", (hidden, wide), quant)]
        made += [Tensor(f"blk.{layer}.{name}.weight", dims, kind) for name, dims, kind in parts]
    return made


def step_bytes(shape: Shape, layers: int, quant: str, tokens: int) -> int:
    """Weights that a step of so many tokens must read: all but the embedding, and of the experts as
    many as tokens that choose evenly are expected to hit. Without the KV cache and activations."""
    hit = 1.0
    if shape.experts:
        hit = 1 - (1 - shape.experts_per_token / shape.experts) ** tokens
    return round(sum(t.bytes * (hit if t.of_experts else 1)
                     for t in tensors(shape, layers, quant) if t.name != "token_embd.weight"))


def prompt_products(shape: Shape, layers: int, quant: str) -> int:
    """Weights that a prompt's token is multiplied with. llama.cpp computes the last layer's
    feed-forward part, like the head, for the prompt's last token only: neither counts."""
    hit = shape.experts_per_token / shape.experts if shape.experts else 1
    last = f"blk.{layers - 1}.ffn"
    return round(sum(math.prod(t.shape) * (hit if t.of_experts else 1)
                     for t in tensors(shape, layers, quant)
                     if t.name.startswith("blk") and not t.name.startswith(last)))


def depth_scale(shape: Shape, layers: int, quant: str, work: Work) -> float:
    """Factor from tokens a second of some layers to those of all: a prompt by what must be
    multiplied, decode by what must be read."""
    if work.kind == "prefill":
        return (prompt_products(shape, layers, quant)
                / prompt_products(shape, shape.layers, quant))
    return (step_bytes(shape, layers, quant, work.tokens)
            / step_bytes(shape, shape.layers, quant, work.tokens))
