#!/usr/bin/env python3
"""What a user of a model of full size meets: how soon it serves, how soon a chat begins, what it holds.

Prints the times from start to ready (the first start fills the page cache and is told apart), the first
token's time that `bottega chat --stats` shows for questions of about 200 tokens, and the memory (PSS) of all
processes after a prompt of `--context` tokens: of `serve`, and of `up` with 1 attention and 4 expert workers.
Usage: bench/full_size.py --model DIR [--threads N] [--starts N] [--context N] [--kv-cache BYTES]
"""
import argparse
import pathlib
import random
import re
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/clients"))
from cluster import BIN, post, running  # noqa: E402
from decode import Stream, model_of  # noqa: E402
from process import pss  # noqa: E402

QUESTIONS, QUESTION_TOKENS, ANSWER_TOKENS = 5, 200, 8
TEMPLATE_ROOM = 40  # tokens that the chat template may add


def start_seconds(serve):
    begun = time.monotonic()
    with running(*serve):
        return time.monotonic() - begun


def question(url, seed):
    """Random letters, as many as make about 200 tokens: how a text is cut is the tokenizer's affair."""
    letters = "".join(random.Random(seed).choices("abcdefghijklmnopqrstuvwxyz ", k=QUESTION_TOKENS))
    while True:
        asked = post(url, "/v1/chat/completions", {
            "model": model_of(url), "max_tokens": 1, "messages": [{"role": "user", "content": letters}]})
        tokens = asked["usage"]["prompt_tokens"]
        if tokens <= QUESTION_TOKENS + TEMPLATE_ROOM:
            return letters, tokens
        letters = letters[:len(letters) * QUESTION_TOKENS // tokens]


def chat(url):
    times = []
    for seed in range(QUESTIONS):
        text, tokens = question(url, seed)
        said = subprocess.run([BIN / "bottega", "chat", "--url", url, "--stats", "--max-tokens",
                               str(ANSWER_TOKENS), text], capture_output=True, text=True, check=True)
        times.append(float(re.search(r"first token after ([\d.]+) s", said.stdout + said.stderr)[1]))
    return times, tokens


def held(cluster, context):
    """GiB of all processes after a prompt of so many tokens."""
    stream = Stream(cluster.url, context, 8, seed=1)
    stream.start()
    stream.end()
    pids = [cluster.process.pid, *(pid for pid, _ in cluster.members().values())]
    return sum(map(pss, pids)) / 2**30, len(pids)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--kv-cache", default="1GiB")
    o = parser.parse_args()
    common = [o.model, "--port", "0", "--kv-cache", o.kv_cache]
    serve = ["serve", *common, "--threads", str(o.threads), "--no-prefix-cache"]
    first, *starts = (start_seconds(serve) for _ in range(1 + o.starts))
    print(f"ready: {statistics.median(starts):.2f} s ({min(starts):.2f}-{max(starts):.2f}, {o.starts} starts), "
          f"the start before them {first:.2f} s", flush=True)
    with running(*serve) as one:
        times, tokens = chat(one.url)
        print(f"chat: first token of a question of {tokens} tokens after {statistics.median(times):.2f} s "
              f"({min(times):.2f}-{max(times):.2f}, {QUESTIONS} questions)", flush=True)
        gib, count = held(one, o.context)
        print(f"serve holds {gib:.2f} GiB in {count} process", flush=True)
    with running("up", *common, "--expert-workers", "4", "--threads", "1") as cluster:
        gib, count = held(cluster, o.context)
        print(f"up, 1 x 4 workers, holds {gib:.2f} GiB in {count} processes")


if __name__ == "__main__":
    main()
