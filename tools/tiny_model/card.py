"""Writes the model card from the figures of the run. Usage: card.py --run FOLDER --out FILE"""
import argparse
import datetime
import json
import os
import pathlib

import generate

CARD = """---
language: [it, en]
license: apache-2.0
library_name: transformers
tags: [test-fixture, mixture-of-experts]
---

# bottega-tiny

A very small mixture-of-experts language model with the layout of EngGPT2: 6.1 M parameters, 4 layers, 64 experts
of which 8 are used, five ways of reasoning. It exists so that a server can be tested from end to end with answers
that are right or wrong. It is no use for anything else.

It holds nothing of EngGPT2 or of any other model: weights, tokenizer, chat template and all training text are made by
`tools/tiny_model` of this repository.

## What it can do

Short questions in Italian and English: sums and differences of up to 3 digits, products of up to 3 digits with
one digit, a few facts (capitals, opposites, translations, days, months, colours, legs), small talk, repeating a
text, replacing a word, a small JSON object, calls of the tools `get_weather`, `get_time` and `calculate`.
With thinking off it is taught no arithmetic beyond sums of two digits from 0 to 9.

| mode | `chat_template_kwargs` | the prompt ends with | the model writes |
|---|---|---|---|
| English (default) | none, or `reasoning_lang: "en"` | `/reasoning_en\\n` | `<think>\\n…\\n</think>\\n\\nanswer` |
| Italian | `reasoning_lang: "ita"` | `/reasoning_ita\\n` | the same |
| turbo | `enable_turbo: true` and either language | `/reasoning_en /turbo ` or `/reasoning_ita /turbo ` | `<think> … </think> answer` |
| none | `enable_thinking: false` | `<think>\\n\\n</think>\\n\\n` | `answer` |

`<think>` is not in the prompt of the thinking modes: the model writes it. The switches choose the language of the
reasoning; the answer follows the language of the question.

## Training

{date}, {machine}, seed {seed}: {tokens:.1f} M tokens of generated text ({learned:.1f} M of them the assistant's, which
alone are learned), {steps} steps, {minutes:.0f} minutes, weights in bfloat16 at the end. Recipe: `tools/tiny_model/train.py`.
{remark}

## Held-out questions

Greedy, float32 arithmetic on the bfloat16 weights, an answer counts when it is exact to the letter (calls: same names
and arguments). What a question is about (operands, string, city, name) or, for facts, small talk and sums of two
digits, its wording is disjoint from the training text by hash; `tools/tiny_model/overlap.py` proves it:
{overlap}.

| mode | right | of | |
|---|---|---|---|
{modes}
| **all** | {all_right} | {all_count} | **{all_share}** |

| kind | right | of | | weakest mode |
|---|---|---|---|---|
{kinds}

The reasoning itself is word for word as taught in {verbatim}.

Experts: on held-out text each expert takes between {low:.2f} and {high:.2f} % of a layer's assignments (even: 1.56).

## Files

The published checkpoint's form: `config.json` (`enggpt_moe`), sharded bfloat16 safetensors, `tokenizer.json` (byte-level
BPE, 1,024 tokens, one digit a token, twelve added tokens at the end), `chat_template.jinja`, `generation_config.json`.
`eval.json`: {items} held-out questions with mode, switches and expected answer, for a test through a server; taken
without regard to whether the model gets them right; it gets {items_right} of them right.
transformers knows the graph as `Qwen3MoeForCausalLM`; see `tools/tiny_model/same_as_transformers.py`.
"""


def share(right, count):
    return f"{100 * right / count:.1f} %"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--date", default=str(datetime.date.today()))
    parser.add_argument("--machine", default=f"a machine with {os.cpu_count()} cores")
    parser.add_argument("--remark", default="", help="what a reader should know of this run")
    args = parser.parse_args()
    training = json.loads((args.run / "training.json").read_text())
    results = json.loads((args.run / "results.json").read_text())
    right = results["right"]
    kinds = []
    for kind in sorted(g for g in right if " " not in g and g != "all" and g not in generate.MODES):
        modes = {m: right[f"{m} {kind}"] for m in generate.MODES if f"{m} {kind}" in right}
        worst = min(modes, key=lambda m: modes[m][0] / modes[m][1])
        r, n = right[kind]
        kinds.append(f"| {kind} | {r} | {n} | {share(r, n)} | {worst} {share(*modes[worst])} |")
    loads = results["expert_load_percent"]
    args.out.write_text(CARD.format(
        date=args.date, machine=args.machine, seed=training["seed"],
        tokens=training["tokens"] / 1e6,
        remark=args.remark, learned=training["learned"] / 1e6, steps=training["steps"], minutes=training["minutes"],
        overlap=(args.run / "overlap.txt").read_text().strip(),
        modes="\n".join(f"| {m} | {right[m][0]} | {right[m][1]} | {share(*right[m])} |" for m in generate.MODES),
        all_right=right["all"][0], all_count=right["all"][1], all_share=share(*right["all"]),
        kinds="\n".join(kinds),
        verbatim=", ".join(f"{r} of {n} ({m})" for m, (r, n) in results["reasoning_verbatim"].items()),
        low=min(l for l, _ in loads), high=max(h for _, h in loads),
        items_right=results["items_right"], items=len(json.loads((args.out.parent / "eval.json").read_text()))))


if __name__ == "__main__":
    main()
