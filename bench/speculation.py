#!/usr/bin/env python3
"""What speculation without a draft model gains: bottega-tiny on its held-out copies and edits, and on its chat.

Two servers of one thread, speculation on and off, asked the same questions one by one in interleaved pairs;
medians of the ratios, of the time between the first and the last token of the answers (the worker's own
metric) and of whole requests. The answers must be equal. Beside them what could be gained at most: by a drafter
that finds the same places and knows how far they go on as the text does, at the price that drafted tokens had here.
--trace FILE keeps, for each request, what each decode step drafted and how much of that was accepted.

With --full DIR, a packed model of full width with random weights: what a decode step of 1 to 9 tokens takes
there, and what the recorded acceptance would gain at that price. It is labelled so: nobody has measured the
acceptance of that model, and its tokens are of as many sequences, so that each goes to experts of its own. The drafted
tokens of one text share more experts.
Usage: bench/speculation.py [--pairs N] [--questions N] [--trace FILE] [--full DIR]
"""
import argparse
import concurrent.futures
import json
import pathlib
import random
import re
import statistics
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests/clients"), str(ROOT / "tools/tiny_model")]
import generate  # noqa: E402
from cluster import TINY, post, running  # noqa: E402

SETS = {"copy and edit": (("copy", "replace"), generate.MODES),
        "copy and edit, no reasoning": (("copy", "replace"), ("none",)), "chat": (("chat",), generate.MODES)}
SPECULATION = "--num-speculative-tokens"


def bodies(kinds, modes, count):
    """Held-out questions of these kinds, in these modes by turns."""
    rng = random.Random(1)
    for i in range(count):
        mode = modes[i % len(modes)]
        sample = generate.draw(rng, kinds[i // len(modes) % len(kinds)], mode, True)
        yield {"messages": sample.prompt(), "chat_template_kwargs": generate.kwargs_of(mode),
               "max_tokens": 200, "temperature": 0, "return_token_ids": True}


def decode_seconds(server):
    return sum(server.series(server.admin, "vllm:request_decode_time_seconds_sum").values())


def ask(server, questions):
    """(decode seconds, seconds, answers with their ids)."""
    decoding, start = decode_seconds(server), time.monotonic()
    replies = [post(server.url, "/v1/chat/completions", body) for body in questions]
    seconds = time.monotonic() - start
    return decode_seconds(server) - decoding, seconds, replies


def contents(replies):
    return [reply["choices"][0]["message"] for reply in replies]


def trace_key(request_id):
    """The flight recorder's name of a request (observability/flight_recorder.cc)."""
    key = 0xcbf29ce484222325
    for byte in re.sub("^(chatcmpl|cmpl)-", "", request_id).encode():
        key = (key ^ byte) * 0x100000001b3 % 2**64
    return f"{key:016x}"


def decoded(reply):
    return reply["usage"]["completion_tokens"] - 1


def flight(server, query):
    with urllib.request.urlopen(f"http://{server.admin}/flight?{query}", timeout=30) as answer:
        return json.load(answer)["events"]


def steps_of(server, request_id):
    """[drafted, accepted] of each decode step of a request."""
    key = trace_key(request_id)
    steps = []
    for event in flight(server, f"request={key}&last=30000"):
        if event["event"] == "in_step":
            steps.append([0, 0])
        elif event["event"] == "verified":
            steps[-1] = [event["drafted"], event["accepted"]]
    return steps[1:]  # the first is the prompt's


def decode_step_us(server):
    """Medians of the decode steps, by their tokens. Requests come one by one: the first step of each is its prompt's."""
    events, of_prompts, started, took = flight(server, "last=100000"), set(), set(), {}
    for event in events:
        if event["event"] == "in_step" and event["key"] not in started:
            started.add(event["key"])
            of_prompts.add(event["step"])
        elif event["event"] == "step" and int(event["key"], 16) not in of_prompts:
            took.setdefault(event["tokens"], []).append(event["took_us"])
    return {tokens: statistics.median(times) for tokens, times in sorted(took.items()) if len(times) > 4}


def line_through(medians):
    """(us of a step of one token, us of each further one)"""
    if len(medians) < 2:
        return medians.get(1, 0), 0
    slope = statistics.linear_regression(list(medians), list(medians.values())).slope
    return medians[1], slope


def right_ahead(prompt, answer, at, most, shortest=2, longest=4):
    """How many tokens from answer[at] on stand where the last few stood before (ngram_drafter.h); None: nowhere."""
    text, size = prompt + answer, len(prompt) + at
    for length in range(longest, shortest - 1, -1):
        for end in range(size - 1, length - 1, -1):
            if text[end - length:end] == text[size - length:size]:
                # Past the end of what is known the draft repeats itself, as the text does if it is right.
                wrong = (i for i in range(most) if size + i >= len(text) or text[end + i] != text[size + i])
                return next(wrong, most)
    return None


def bound(replies, first, further, most):
    plain = spent = tokens = steps = found = 0
    for reply in replies:
        prompt, answer = reply["prompt_token_ids"], reply["choices"][0]["token_ids"]
        at = 1
        while at < len(answer):
            right = right_ahead(prompt, answer, at, most)
            found += right is not None
            drafted = min(right or 0, len(answer) - at - 1)
            spent += first + further * drafted
            plain += first * (drafted + 1)
            tokens += drafted + 1
            steps += 1
            at += drafted + 1
    return (f"at most {plain / spent:.2f}x, by drafts of just what is right: {tokens} tokens in {steps} steps, {found} "
            f"of which find their last tokens before")


def compare(pairs, questions, off, on):
    asked = {name: list(bodies(*of, questions)) for name, of in SETS.items()}
    ratios = {name: ([], []) for name in SETS}
    per_token, trace, replies = {name: [] for name in SETS}, {}, {}
    for pair in range(pairs + 1):  # the first is to learn and to warm up
        for name, set_bodies in asked.items():
            servers = (off, on) if pair % 2 == 0 else (on, off)
            took = {server: ask(server, set_bodies) for server in servers}
            if contents(took[on][2]) != contents(took[off][2]):
                raise SystemExit(f"{name}: the answers differ")
            if pair == 0:
                continue
            for which in (0, 1):
                ratios[name][which].append(took[off][which] / took[on][which])
            per_token[name].append(took[off][0] / sum(decoded(reply) for reply in took[off][2]))
            if pair < pairs:
                continue  # the flight recorder holds some seconds
            replies[name] = took[on][2]
            trace[name] = [steps_of(on, reply["id"]) for reply in took[on][2]]
    step_us = decode_step_us(on)
    first, further = line_through(step_us)
    print("a decode step takes " + ", ".join(f"{us:.0f} us of {tokens}" for tokens, us in step_us.items())
          + f" tokens: {further / max(1, first):.2f} of the first for each further one")
    for name, (decoding, whole) in ratios.items():
        print(f"{name}: {statistics.median(decoding):.2f}x while decoding ({min(decoding):.2f}-{max(decoding):.2f}), "
              f"{statistics.median(whole):.2f}x of whole requests ({min(whole):.2f}-{max(whole):.2f}); {pairs} pairs "
              f"of {questions} questions")
        print(f"  {summary(trace[name])}; without speculation a token takes "
              f"{statistics.median(per_token[name]) * 1e6:.0f} us")
        print(f"  {bound(replies[name], first, further, 16)}")
    return trace


def summary(requests):
    steps = [step for request in requests for step in request]
    drafts = [step for step in steps if step[0] > 0]
    tokens = sum(1 + accepted for _, accepted in steps)
    drafted, accepted = sum(d for d, _ in drafts), sum(a for _, a in drafts)
    return (f"{tokens} tokens in {len(steps)} decode steps, {len(drafts)} of them with a draft: {drafted} tokens "
            f"drafted, {accepted} accepted ({100 * accepted / max(1, drafted):.0f} %)")


def step_ms(server, tokens):
    """Median of the decode steps of `tokens` tokens, one each of so many sequences."""
    rng = random.Random(tokens)
    prompts = [[rng.randrange(1000, 60000) for _ in range(32)] for _ in range(tokens)]
    body = {"max_tokens": 24, "ignore_eos": True, "temperature": 0}
    with concurrent.futures.ThreadPoolExecutor(tokens) as pool:
        list(pool.map(lambda prompt: post(server.url, "/v1/completions", body | {"prompt": prompt}), prompts))
    took = [event["took_us"] for event in flight(server, "last=40000")
            if event["event"] == "step" and event["tokens"] == tokens]
    return statistics.median(took[-20:]) / 1000


def cost_of(step, most, cost):
    """What a recorded step costs if it is done in steps of at most `most` drafted tokens."""
    drafted, accepted = step
    to_emit, spent = accepted + 1, 0
    while to_emit > 0:
        verified = min(drafted, most)
        spent += cost[1 + verified]
        to_emit -= verified + 1
        drafted = max(0, drafted - verified - 1)
    return spent


def replay(directory, trace):
    flags = ("--port", "0", "--weights", "int8", "--threads", "2", SPECULATION, "0")
    with running("serve", directory, *flags) as server:
        step_ms(server, 1)  # reads the weights
        cost = {tokens: step_ms(server, tokens) for tokens in range(1, 10)}
    print(f"{directory}: a decode step of 1 to 9 tokens takes "
          + ", ".join(f"{ms:.0f}" for ms in cost.values()) + " ms")
    for name, requests in trace.items():
        steps = [step for request in requests for step in request]
        plain = sum(1 + accepted for _, accepted in steps) * cost[1]
        gains = {}
        for most in (1, 2, 3, 4, 8):
            gains[most] = plain / sum(cost_of(step, most, cost) for step in steps)
        print(f"  {name}, acceptance replayed from bottega-tiny, at most so many drafted tokens: "
              + ", ".join(f"{most}: {gain:.2f}x" for most, gain in gains.items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--drafted", default="8", help="--num-speculative-tokens of the server that speculates")
    parser.add_argument("--trace", type=pathlib.Path)
    parser.add_argument("--full")
    arguments = parser.parse_args()
    flags = ("serve", TINY, "--port", "0", "--threads", "1", SPECULATION)
    with running(*flags, "0") as off, running(*flags, arguments.drafted) as on:
        trace = compare(arguments.pairs, arguments.questions, off, on)
    if arguments.trace:
        arguments.trace.write_text(json.dumps({"of": "bottega-tiny, [drafted, accepted] of each decode step",
                                               "sets": trace}))
    if arguments.full:
        replay(arguments.full, trace)


if __name__ == "__main__":
    main()
