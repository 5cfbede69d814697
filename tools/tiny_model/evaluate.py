"""Asks the exported model the held-out questions, greedily, and counts exact answers.

Usage: evaluate.py [--model FOLDER] [--each 30] [--items FILE] [--out FILE]
--items writes a small, even choice of the questions for tests that ask a server.
"""
import argparse
import json
import pathlib
import random
import time
from collections import defaultdict

import torch
from tokenizers import Tokenizer

import conversation
import export
import fixed_files
import generate
import model

SEED, NEW_TOKENS, BATCH = 20261121, 160, 300


def questions(each):
    """Every kind in every mode it is asked in, `each` times; no prompt twice. Tool conversations give
    two questions: the call, then the answer from its result."""
    rng, seen, items = random.Random(SEED), set(), []
    for kind, (_, _, modes) in generate.MAKERS.items():
        for mode in modes:
            left = each
            while left:
                sample = generate.draw(rng, kind, mode, True)
                label = json.dumps([sample.prompt(), sample.tools, mode])
                if label in seen:
                    continue
                seen.add(label)
                left -= 1
                prompt, replies = sample.prompt(), sample.replies(mode)
                base = {"mode": mode, "kwargs": generate.kwargs_of(mode), "tools": sample.tools,
                        "key": sample.key}
                if sample.calls:
                    items.append({**base, "kind": "tool_call", "messages": prompt,
                                  "reasoning": sample.reasoning(mode, 0),
                                  "calls": [{"name": n, "arguments": a} for n, a in sample.calls]})
                    items.append({**base, "kind": "tool_answer", "messages": prompt + replies[:-1],
                                  "reasoning": sample.reasoning(mode, 1), "answer": sample.answer})
                else:
                    items.append({**base, "kind": sample.kind, "messages": prompt,
                                  "reasoning": sample.reasoning(mode), "answer": sample.answer})
    return items


def continue_all(w, prompts, end, pad):
    """Greedy continuations, without the end token; None where the end did not come."""
    batch = len(prompts)
    length = torch.tensor([len(p) for p in prompts])
    longest = int(length.max())
    ids = torch.full((batch, longest), pad)
    for row, prompt in enumerate(prompts):
        ids[row, :len(prompt)] = torch.tensor(prompt)
    tables = model.rope_tables(longest + NEW_TOKENS)
    cache = model.Cache(batch, longest + NEW_TOKENS)
    # Padding on the right is harmless: a row's own tokens overwrite it before they can see it.
    logits = model.logits_of(w, ids, torch.arange(longest).expand(batch, -1), cache, tables)
    token = logits[torch.arange(batch), length - 1].argmax(-1)
    written, done = [[] for _ in prompts], [False] * batch
    for step in range(NEW_TOKENS):
        for row, t in enumerate(token.tolist()):
            done[row] = done[row] or t == end
            if not done[row]:
                written[row].append(t)
        if all(done):
            break
        token = model.logits_of(w, token[:, None], (length + step)[:, None], cache, tables)[:, 0].argmax(-1)
    return [text if ok else None for text, ok in zip(written, done)]


def parts(text, mode):
    """(reasoning, content), or None when the form is broken."""
    if mode == "none":
        return None if "think>" in text else (None, text)
    if not text.startswith("<think>") or text.count("</think>") != 1:
        return None
    reasoning, content = text.removeprefix("<think>").split("</think>")
    return reasoning.strip(), content.strip()


def calls_of(content):
    calls = []
    for piece in content.split("<tool_call>")[1:]:
        try:
            calls.append(json.loads(piece.split("</tool_call>")[0]))
        except json.JSONDecodeError:
            return None
    return calls


def judge(item, text):
    """(answer right, reasoning word for word)"""
    split = parts(text, item["mode"]) if text is not None else None
    if split is None:
        return False, False
    reasoning, content = split
    right = calls_of(content) == item["calls"] if "calls" in item else content == item["answer"]
    return right, reasoning == item["reasoning"]


@torch.inference_mode()
def expert_loads(w, encoder, render, count=400):
    """Share of the assignments that each expert takes on held-out text, in percent: [layers, experts]."""
    rng, loads = random.Random(SEED + 1), 0
    tables = model.rope_tables(1024)
    for _ in range(count):
        kind = rng.choices(list(generate.MAKERS), [m[1] for m in generate.MAKERS.values()])[0]
        mode = rng.choice(generate.MAKERS[kind][2])
        sample = generate.draw(rng, kind, mode, True)
        ids, _ = encoder.encode(render.sample(sample, mode), 1)
        ids = torch.from_numpy(ids)[None]
        cache = model.Cache(1, ids.shape[1])
        model.logits_of(w, ids, torch.arange(ids.shape[1])[None], cache, tables, torch.ones_like(ids).bool())
        loads = loads + cache.loads
    return 100 * loads / loads.sum(1, keepdim=True)


def small_choice(items, count):
    """The same number from each mode, beginning with another kind each time so that all kinds come."""
    rng, chosen = random.Random(SEED), []
    for turn, mode in enumerate(generate.MODES):
        kinds = defaultdict(list)
        for item in items:
            if item["mode"] == mode:
                kinds[item["kind"]].append(item)
        names = sorted(kinds)
        for i in range(count):
            chosen.append(rng.choice(kinds[names[(3 * turn + i) % len(names)]]))
    return chosen


def api_form(item):
    """The question as a client of the HTTP API would send it: arguments as a JSON string, calls with ids."""
    fields = ("mode", "kind", "kwargs", "tools", "messages", "answer", "calls")
    item = json.loads(json.dumps({f: item[f] for f in fields if item.get(f)}))
    calls = [call for message in item["messages"] for call in message.get("tool_calls", [])]
    results = [message for message in item["messages"] if message["role"] == "tool"]
    for n, call in enumerate(calls):
        call["id"] = f"call_{n}"
        call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
    for n, message in enumerate(results):
        message["tool_call_id"] = f"call_{n}"
    return item


def report(result):
    for group, (right, count) in result["right"].items():
        if " " not in group:
            print(f"{group:12} {right:5}/{count:<5} {100 * right / count:5.1f} %")
    weak = {g: f"{r}/{n}" for g, (r, n) in result["right"].items() if " " in g and r < 0.9 * n}
    print("below 90 %:", weak)
    print("reasoning word for word:", result["reasoning_verbatim"])
    print("expert load, lowest and highest of each layer:", result["expert_load_percent"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=pathlib.Path, default=fixed_files.MODEL)
    parser.add_argument("--each", type=int, default=30)
    parser.add_argument("--items", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--show", type=int, default=0, help="print so many wrong answers")
    args = parser.parse_args()
    torch.set_num_threads(1)
    began = time.time()
    tokenizer = Tokenizer.from_file(str(fixed_files.MODEL / "tokenizer.json"))
    render = conversation.Renderer(fixed_files.MODEL)
    w = model.views(export.read(args.model))
    items = questions(args.each)
    for item in items:
        text = render.prompt(item["messages"], item["tools"], item["kwargs"])
        item["prompt"] = tokenizer.encode(text).ids
    items.sort(key=lambda item: len(item["prompt"]))

    scores = defaultdict(list)
    for start in range(0, len(items), BATCH):
        batch = items[start:start + BATCH]
        answers = continue_all(w, [item["prompt"] for item in batch], fixed_files.EOS, fixed_files.PAD)
        for item, ids in zip(batch, answers):
            text = None if ids is None else tokenizer.decode(ids, skip_special_tokens=False)
            right, verbatim = judge(item, text)
            item["right"] = right
            for group in ("all", item["mode"], item["kind"], f"{item['mode']} {item['kind']}"):
                scores[group].append((right, verbatim))
            if not right and args.show:
                args.show -= 1
                print(item["mode"], item["kind"], "|", item["messages"][-1]["content"], "|", repr(text),
                      "| wanted", item.get("answer", item.get("calls")), flush=True)
    loads = expert_loads(w, conversation.Encoder(tokenizer), render)
    result = {
        "right": {g: [sum(r for r, _ in s), len(s)] for g, s in sorted(scores.items())},
        "reasoning_verbatim": {m: [sum(v for _, v in scores[m]), len(scores[m])] for m in generate.MODES[:4]},
        "expert_load_percent": [[round(float(x), 2) for x in (layer.min(), layer.max())] for layer in loads],
    }
    report(result)
    print(f"{time.time() - began:.0f} s")
    if args.items:
        chosen = small_choice(items, 8)
        result["items_right"] = sum(item["right"] for item in chosen)
        text = json.dumps([api_form(item) for item in chosen], indent=1, ensure_ascii=False)
        args.items.write_text(text + "\n")
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
