"""Writes tests/golden/client/bottega-tiny.json: greedy answers in float32, one request at a time.

Per case: what the client sends (messages, tools, chat_template_kwargs), prompt_ids, generated_ids
(the end token included where finish_reason is "stop"), and top2_gap: at each step the best logit
minus the second.
"""
import json
import pathlib

import torch

import checkpoint
import tiny_prompts

OUT = pathlib.Path("tests/golden/client")
NEW_TOKENS_MAX = 120


@torch.no_grad()
def generate(model, prompt, stop_ids):
    ids, gaps, cache, step = [], [], None, torch.tensor([prompt])
    while len(ids) < NEW_TOKENS_MAX:
        out = model(step, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = out.past_key_values
        best = out.logits[0, -1].topk(2)
        ids.append(best.indices[0].item())
        gaps.append(round((best.values[0] - best.values[1]).item(), 6))
        if ids[-1] in stop_ids:
            return ids, gaps, "stop"
        step = torch.tensor([[ids[-1]]])
    return ids, gaps, "length"


def stop_ids_of(config):
    """End tokens of config.json and of generation_config.json together."""
    ids = set()
    path = tiny_prompts.DIRECTORY / "generation_config.json"
    for source in (config, json.loads(path.read_text()) if path.exists() else {}):
        eos = source.get("eos_token_id")
        ids |= set(eos if isinstance(eos, list) else [eos])
    return ids - {None}


def main():
    if not tiny_prompts.ready():
        print("bottega-tiny has no weights: left out")
        return
    model, config = checkpoint.load(tiny_prompts.DIRECTORY)
    tokenizer = tiny_prompts.tokenizer()
    stop_ids = stop_ids_of(config)
    cases = []
    for mode, kind, messages, tools in tiny_prompts.client_prompts():
        kwargs = tiny_prompts.generate.kwargs_of(mode)
        prompt = tokenizer.apply_chat_template(
            messages, tools=tools or None, add_generation_prompt=True, return_dict=False, **kwargs)
        ids, gaps, reason = generate(model, prompt, stop_ids)
        cases.append({
            "mode": mode,
            "kind": kind,
            "messages": messages,
            "tools": tools or None,
            "chat_template_kwargs": kwargs,
            "prompt_ids": prompt,
            "generated_ids": ids,
            "generated_text": tokenizer.decode(ids, skip_special_tokens=False),
            "finish_reason": reason,
            "top2_gap": gaps,
        })
    OUT.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(c, ensure_ascii=False, separators=(",", ":")) for c in cases)
    head = f'"model": "{tiny_prompts.DIRECTORY}", "max_tokens": {NEW_TOKENS_MAX}'
    (OUT / "bottega-tiny.json").write_text(f'{{{head}, "cases": [\n{lines}\n]}}\n')
    gaps = sorted(gap for case in cases for gap in case["top2_gap"])
    stopped = sum(case["finish_reason"] == "stop" for case in cases)
    print(f"{len(cases)} cases, {len(gaps)} tokens, {stopped} ended by themselves, "
          f"smallest gaps {gaps[:3]}")


main()
