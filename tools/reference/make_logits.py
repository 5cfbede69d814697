"""Writes tests/golden/logits/<model>.{json,bin}: logits of every position, and the experts chosen.

<model>.bin is f32, little endian, [positions of all sequences, vocab]; sequences lie one after the
other. In the JSON, per sequence: ids, first_row (its first row in the file), top2_gap (best logit
minus second, per position) and experts, [layer][position] -> ids ascending, null for a dense layer.
"""
import json
import pathlib

import numpy
import torch

import checkpoint
import tiny_prompts

OUT = pathlib.Path("tests/golden/logits")
LENGTHS = (1, 2, 15, 16, 17, 33, 70, 101)
# A choice closer than this may fall either way in another order of summation.
ROUTER_GAP_MIN = 2e-5


class Router:
    """Records what the routers chose during one forward pass."""

    def __init__(self, model):
        self.layers = model.config.num_hidden_layers
        self.chosen = {}
        self.gap_min = float("inf")
        self.logit_std = []
        for layer, gate in checkpoint.moe_layers(model).items():
            gate.register_forward_hook(lambda _, __, out, layer=layer: self.record(layer, out))

    def record(self, layer, out):
        logits, _, experts = out
        self.chosen[layer] = experts.sort(dim=-1).values.tolist()
        ranked = logits.sort(dim=-1, descending=True).values
        k = experts.shape[-1]
        self.gap_min = min(self.gap_min, (ranked[:, k - 1] - ranked[:, k]).min().item())
        self.logit_std.append(logits.std().item())

    def table(self):
        return [self.chosen.get(layer) for layer in range(self.layers)]


def report(name, logits, sequences, experts):
    used = {}
    for sequence in sequences:
        for layer, rows in enumerate(sequence["experts"]):
            for row in rows or []:
                used.setdefault(layer, set()).update(row)
    spread = {layer: f"{len(ids)}/{experts}" for layer, ids in used.items()}
    print(f"{name}: logits std {logits.std():.2f} max {abs(logits).max():.2f}, experts used {spread}")


@torch.no_grad()
def write(directory, name, inputs):
    """inputs: for each sequence, token ids to try until one has no near tie in a router."""
    model, config = checkpoint.load(directory)
    router = Router(model)
    sequences, rows, first_row = [], [], 0
    for alternatives in inputs:
        for ids in alternatives:
            router.gap_min = float("inf")
            logits = model(torch.tensor([ids]), use_cache=False).logits[0]
            if router.gap_min >= ROUTER_GAP_MIN:
                break
            print(f"{name}: {len(ids)} tokens passed over, router gap {router.gap_min:.1e}")
        else:
            raise SystemExit(f"{name}: every alternative has a near tie")
        best = logits.topk(2, dim=-1).values
        sequences.append({
            "ids": ids,
            "first_row": first_row,
            "top2_gap": [round(gap, 7) for gap in (best[:, 0] - best[:, 1]).tolist()],
            "router_gap_min": round(router.gap_min, 7),
            "experts": router.table(),
        })
        rows.append(logits.numpy().astype("<f4"))
        first_row += len(ids)
    table = numpy.concatenate(rows)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.bin").write_bytes(table.tobytes())
    header = {
        "model": str(directory),
        "data": f"{name}.bin",
        "dtype": "f32",
        "rows": first_row,
        "vocab": config["vocab_size"],
        "sequences": sequences,
    }
    (OUT / f"{name}.json").write_text(one_per_line(header) + "\n")
    report(name, table, sequences, config.get("num_local_experts", config.get("num_experts")))


def one_per_line(header):
    """JSON with one sequence a line: short, and a change shows where it is."""
    rows = ",\n".join(json.dumps(s, separators=(",", ":")) for s in header["sequences"])
    head = json.dumps({k: v for k, v in header.items() if k != "sequences"}, indent=1)
    return head[:-2] + ',\n "sequences": [\n' + rows + "\n]}"


def random_ids(vocab, seed):
    random = numpy.random.Generator(numpy.random.PCG64(seed))
    for length in LENGTHS:
        yield (random.integers(0, vocab, length).tolist() for _ in range(10))


def main():
    write("tests/fixtures/random-qwen3moe", "random-qwen3moe", random_ids(131, 1))
    write("tests/fixtures/random-yarn", "random-yarn", random_ids(149, 2))
    if tiny_prompts.ready():
        write(tiny_prompts.DIRECTORY, "bottega-tiny", tiny_prompts.logit_sequences())
    else:
        print("bottega-tiny has no weights: left out")


main()
