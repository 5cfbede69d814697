"""Proves that no held-out question was trained on: writes the training conversations again from their
seed and looks for each question's key (its operands, string, city or wording) and its whole prompt.

Usage: overlap.py --run FOLDER [--seed 1] [--each 30]
"""
import argparse
import itertools
import json
import pathlib

import numpy as np

import evaluate
import generate


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", type=int, default=30)
    args = parser.parse_args()
    count = len(np.load(args.run / "bounds.npy")) - 1
    keys, prompts = set(), set()
    for sample, _ in itertools.islice(generate.conversations(args.seed), count):
        keys.add(sample.key)
        prompts.add(json.dumps(sample.prompt()))
    items = evaluate.questions(args.each)
    shared_keys = {item["key"] for item in items} & keys
    shared_prompts = {json.dumps(item["messages"]) for item in items} & prompts
    print(f"{count} training conversations with {len(keys)} keys, {len(items)} held-out questions: "
          f"{len(shared_keys)} keys and {len(shared_prompts)} prompts in common")
    if shared_keys or shared_prompts:
        raise SystemExit(f"in both: {sorted(shared_keys)[:5]} {sorted(shared_prompts)[:5]}")


if __name__ == "__main__":
    main()
