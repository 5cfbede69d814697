"""Conversations for bottega-tiny, from the held-out side of its own generator (tools/tiny_model)."""
import json
import pathlib
import random
import sys

from transformers import PreTrainedTokenizerFast

sys.path.append("tools/tiny_model")
import generate  # noqa: E402

DIRECTORY = pathlib.Path("tests/fixtures/bottega-tiny")
# Per mode; a kind may come twice. "after_tool" asks for the answer once the tool has spoken.
KINDS = {
    "none": ("fact", "fact", "chat", "chat", "copy", "copy", "replace", "replace", "digit_sum",
             "digit_sum", "json", "tool", "after_tool"),
    "other": ("sum", "sum", "difference", "difference", "product", "product", "fact", "chat",
              "copy", "replace", "json", "tool", "after_tool"),
}
# Mode and kind of the whole conversations whose logits are kept: about 1,200 positions.
LOGIT_KINDS = (("think_en", "sum"), ("think_ita", "sum"), ("think_en", "product"),
               ("think_ita", "product"), ("think_en", "difference"), ("think_ita", "difference"),
               ("turbo_en", "difference"), ("turbo_ita", "copy"), ("think_ita", "fact"),
               ("none", "chat"), ("think_ita", "tool"), ("think_en", "product"),
               ("think_ita", "sum"), ("think_en", "sum"), ("think_ita", "product"))


def ready():
    return (DIRECTORY / "model.safetensors.index.json").exists()


def tokenizer():
    return PreTrainedTokenizerFast.from_pretrained(DIRECTORY)


def as_sent(calls):
    """Tool calls as a client of the API sends them back: with ids, the arguments as text."""
    return [
        {
            "id": f"call_{number:05}",
            "type": "function",
            "function": {
                "name": call["function"]["name"],
                "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
            },
        }
        for number, call in enumerate(calls)
    ]


def transcript(sample, mode):
    """All messages of a sample, in the form that a client of the API would send."""
    messages, results = sample.prompt(), 0
    for reply in sample.replies(mode):
        reply = {key: value for key, value in reply.items() if value is not None}
        if "tool_calls" in reply:
            reply["tool_calls"] = as_sent(reply["tool_calls"])
        if reply["role"] == "tool":
            reply["tool_call_id"] = f"call_{results:05}"
            results += 1
        messages.append(reply)
    return messages


def draw(rng, kind, mode):
    if kind != "after_tool":
        return generate.draw(rng, kind, mode, True)
    while True:
        sample = generate.draw(rng, "tool", mode, True)
        if sample.calls:
            return sample


def client_prompts():
    """(mode, kind, messages, tools) of each conversation that the stock client sends."""
    rng = random.Random(41)
    for mode in generate.MODES:
        for kind in KINDS.get(mode, KINDS["other"]):
            sample = draw(rng, kind, mode)
            messages = sample.prompt()
            if kind == "after_tool":
                messages = transcript(sample, mode)[:-1]
            yield mode, kind, messages, sample.tools


def logit_sequences():
    """Token ids of whole conversations, answers included; of each kind some to choose from."""
    fast = tokenizer()

    def alternatives(mode, kind, seed):
        rng = random.Random(seed)
        for _ in range(10):
            sample = draw(rng, kind, mode)
            yield fast.apply_chat_template(
                transcript(sample, mode), tools=sample.tools or None, return_dict=False,
                **generate.kwargs_of(mode))

    for number, (mode, kind) in enumerate(LOGIT_KINDS):
        yield alternatives(mode, kind, 42 + number)
