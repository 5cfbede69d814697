"""Between the training checkpoint and the published form: bfloat16 safetensors in shards, one tensor
for each expert's matrix.

Usage: export.py --run FOLDER [--out FOLDER]
"""
import argparse
import json
import pathlib

import torch
from safetensors.torch import load_file, save_file

import fixed_files
import model

SHARD_BYTES = 5 << 20


def published(w):
    """(name, tensor) in the published layout, all [out, in]."""
    yield "model.embed_tokens.weight", w["embed"]
    for i in range(model.LAYERS):
        layer = f"model.layers.{i}"
        yield f"{layer}.input_layernorm.weight", w[f"{i}.norm1"]
        q, kv = model.HEADS * model.HEAD, model.KV_HEADS * model.HEAD
        for name, part in zip("qkv", w[f"{i}.qkv"].split([q, kv, kv])):
            yield f"{layer}.self_attn.{name}_proj.weight", part
        yield f"{layer}.self_attn.o_proj.weight", w[f"{i}.o"]
        yield f"{layer}.self_attn.q_norm.weight", w[f"{i}.q_norm"]
        yield f"{layer}.self_attn.k_norm.weight", w[f"{i}.k_norm"]
        yield f"{layer}.post_attention_layernorm.weight", w[f"{i}.norm2"]
        yield f"{layer}.mlp.gate.weight", w[f"{i}.router"]
        for e in range(model.EXPERTS):
            gate, up = w[f"{i}.gate_up"][e].t().chunk(2)
            yield f"{layer}.mlp.experts.{e}.gate_proj.weight", gate
            yield f"{layer}.mlp.experts.{e}.up_proj.weight", up
            yield f"{layer}.mlp.experts.{e}.down_proj.weight", w[f"{i}.down"][e].t()
    yield "model.norm.weight", w["norm"]
    yield "lm_head.weight", w["lm_head"]


def write(flat, folder):
    shards, size = [{}], 0
    for name, tensor in published(model.views(flat)):
        tensor = tensor.bfloat16().contiguous()
        if size + tensor.nbytes > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = tensor.clone()
        size += tensor.nbytes
    for old in folder.glob("model-*.safetensors"):
        old.unlink()
    index, total = {}, 0
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        index |= {name: file for name in shard}
        total += sum(tensor.nbytes for tensor in shard.values())
    (folder / "model.safetensors.index.json").write_text(json.dumps(
        {"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))}, indent=1) + "\n")


def read(folder):
    """The flat vector of an exported directory, in float32."""
    tensors = {}
    for file in sorted(folder.glob("model-*.safetensors")):
        tensors |= load_file(file)
    flat = torch.zeros(model.PARAMETERS)
    for name, view in published(model.views(flat)):
        view.copy_(tensors.pop(name))
    assert not tensors
    return flat


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, default=fixed_files.MODEL)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    flat = torch.load(args.run / "checkpoint.pt")["flat"]
    write(flat, args.out)
    assert torch.equal(read(args.out), flat.bfloat16().float())


if __name__ == "__main__":
    main()
