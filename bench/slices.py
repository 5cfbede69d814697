#!/usr/bin/env python3
"""What a long prompt does to running streams, and they to it: the token gaps of `--streams` streams before
and while a prompt of `--prompt` tokens is computed, and the speed of its prefill beside them (in its slices:
over the time of prefill steps without the decode steps inside; by the clock) and alone.

Goals: p99 of the gap at most doubles; in its slices prefill keeps 80 % of its speed alone.
Usage: bench/slices.py --model DIR --prompt N [--streams N] [--threads N] [--kv-cache BYTES]
"""
import argparse
import http.client
import json
import pathlib
import random
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/clients"))
from cluster import running  # noqa: E402

FIRST_TOKEN_ID, LAST_TOKEN_ID = 1_000, 100_000  # plain tokens in every vocabulary that synth writes
HANG_LIMIT_S = 3_600


class Stream(threading.Thread):
    """A greedy completion of random token ids; when each token came."""

    def __init__(self, cluster, prompt, tokens, seed):
        super().__init__(daemon=True)
        chooser = random.Random(seed)
        self.body = {"model": cluster.model, "max_tokens": tokens, "temperature": 0, "stream": True,
                     "ignore_eos": True,
                     "prompt": [chooser.randrange(FIRST_TOKEN_ID, LAST_TOKEN_ID) for _ in range(prompt)]}
        self.address, self.begun, self.times = cluster.url.removeprefix("http://"), 0.0, []
        self.over = False

    def run(self):
        connection = http.client.HTTPConnection(self.address, timeout=HANG_LIMIT_S)
        self.begun = time.monotonic()
        connection.request("POST", "/v1/completions", json.dumps(self.body),
                           {"Content-Type": "application/json"})
        reply = connection.getresponse()
        if reply.status != 200:
            raise RuntimeError(f"{reply.status}: {reply.read().decode()[:300]}")
        while not self.over and (line := reply.readline()):
            if line.startswith(b'data: {"'):
                self.times.append(time.monotonic())
        connection.close()

    def first(self):
        self.join()
        return self.times[0] - self.begun


def gaps(streams, begin, end):
    """Sorted, in ms, of all pairs of tokens whose later one came in between."""
    return sorted((b - a) * 1e3 for s in streams for a, b in zip(s.times, s.times[1:])
                  if begin <= b <= end)


def summary(values):
    def of(share):
        return values[min(len(values) - 1, int(share * len(values)))]
    return f"p50 {of(.5):.0f}, p99 {of(.99):.0f}, max {values[-1]:.0f} ms ({len(values)} gaps)", of(.99)


def prefill_seconds(cluster, admin):
    return cluster.metrics(admin).get('bottega_attention_step_seconds_sum{phase="prefill"}', 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompt", type=int, required=True)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kv-cache", default="3GiB")
    parser.add_argument("--before", type=float, default=30, help="seconds of gaps without the prompt")
    o = parser.parse_args()
    with running("serve", o.model, "--port", "0", "--threads", str(o.threads), "--kv-cache", o.kv_cache,
                 "--no-prefix-cache") as cluster:
        cluster.model = pathlib.Path(o.model).name
        admin = cluster.find(r"^admin +(\S+)").group(1)
        Stream(cluster, 512, 1, 1).run()  # warm
        alone = Stream(cluster, o.prompt, 1, 2)
        alone.start()
        alone_speed = o.prompt / alone.first()
        print(f"prefill of {o.prompt} alone: {alone_speed:.0f} tokens/s", flush=True)
        streams = [Stream(cluster, 16, 16_384, 10 + i) for i in range(o.streams)]
        for stream in streams:
            stream.start()
        while any(len(s.times) < 8 for s in streams):
            time.sleep(0.05)
        begin = time.monotonic()
        time.sleep(o.before)
        computed = prefill_seconds(cluster, admin)
        middle = time.monotonic()
        long = Stream(cluster, o.prompt, 1, 3)
        long.start()
        waited = long.first()
        end = time.monotonic()
        computed = prefill_seconds(cluster, admin) - computed
        calm, calm_p99 = summary(gaps(streams, begin, middle))
        busy, busy_p99 = summary(gaps(streams, middle, end))
        for stream in streams:
            stream.over = True
        print(f"gap of {o.streams} streams before: {calm}\ngap beside the prompt: {busy}: "
              f"p99 {busy_p99 / calm_p99:.2f} times")
        print(f"prefill beside them: in its slices {o.prompt / computed:.0f} tokens/s "
              f"({o.prompt / computed / alone_speed:.0%} of alone), by the clock {o.prompt / waited:.0f}")


if __name__ == "__main__":
    main()
