"""Loads the exported model in transformers' Qwen3MoeForCausalLM, whose graph is the same, and compares
float32 logits. Usage: same_as_transformers.py [--model FOLDER]
"""
import argparse
import json
import pathlib

import torch
from tokenizers import Tokenizer
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

import conversation
import evaluate
import export
import fixed_files
import model


def load(folder):
    # The type enggpt_moe is unknown there: with it, from_pretrained would leave the experts random.
    config = json.loads((folder / "config.json").read_text())
    del config["model_type"], config["architectures"]
    network, info = Qwen3MoeForCausalLM.from_pretrained(
        folder, config=Qwen3MoeConfig(**config), dtype=torch.float32, output_loading_info=True,
        attn_implementation="eager", experts_implementation="eager")
    assert not any(info.values()), info
    return network.eval()


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=pathlib.Path, default=fixed_files.MODEL)
    args = parser.parse_args()
    torch.set_num_threads(1)
    network, w = load(args.model), model.views(export.read(args.model))
    tables, worst = model.rope_tables(1024), 0.0
    tokenizer = Tokenizer.from_file(str(fixed_files.MODEL / "tokenizer.json"))
    render = conversation.Renderer(fixed_files.MODEL)
    for item in evaluate.questions(1):
        text = render.prompt(item["messages"], item["tools"], item["kwargs"])
        ids = torch.tensor([tokenizer.encode(text).ids])
        cache = model.Cache(1, ids.shape[1])
        ours = model.logits_of(w, ids, torch.arange(ids.shape[1])[None], cache, tables)
        worst = max(worst, float((ours - network(ids).logits).abs().max()))
    print(f"largest difference from transformers' logits: {worst:.1e}")
    assert worst < 1e-3


if __name__ == "__main__":
    main()
