#!/usr/bin/env python3
"""What a long prompt does to running streams, and they to it: the token gaps of `--streams` streams before
and while a prompt of `--prompt` tokens is computed, and the speed of its prefill beside them (in its slices:
over the time of prefill steps without the decode steps inside; by the clock) and alone.

Goals: p99 of the gap at most doubles; in its slices prefill keeps 80 % of its speed alone.
Usage: bench/slices.py --model DIR --prompt N [--streams N] [--threads N] [--kv-cache BYTES]
"""
import argparse
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/clients"))
from cluster import running  # noqa: E402
from decode import Stream  # noqa: E402
from open_loop import quantile  # noqa: E402


def gaps(streams, begin, end):
    """In ms, of all pairs of tokens whose later one came in between."""
    return [(b - a) * 1e3 for s in streams for a, b in zip(s.times, s.times[1:]) if begin <= b <= end]


def summary(values):
    p50, p99, most = (quantile(values, q) for q in (.5, .99, 1))
    return f"p50 {p50:.0f}, p99 {p99:.0f}, max {most:.0f} ms ({len(values)} gaps)", p99


def first_token(url, prompt):
    """Seconds until it comes."""
    stream = Stream(url, prompt, 1, seed=1000)
    stream.start()
    stream.end()
    return stream.times[0] - stream.begun


def prefill_seconds(cluster):
    return cluster.metrics(cluster.admin).get('bottega_attention_step_seconds_sum{phase="prefill"}', 0)


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
        first_token(cluster.url, 512)  # warm
        alone_speed = o.prompt / first_token(cluster.url, o.prompt)
        print(f"prefill of {o.prompt} alone: {alone_speed:.0f} tokens/s", flush=True)
        streams = [Stream(cluster.url, 16, 16_384, i) for i in range(o.streams)]
        for stream in streams:
            stream.start()
        while any(len(s.times) < 8 for s in streams):
            time.sleep(0.05)
        begin = time.monotonic()
        time.sleep(o.before)
        computed = prefill_seconds(cluster)
        middle = time.monotonic()
        waited = first_token(cluster.url, o.prompt)
        end = time.monotonic()
        computed = prefill_seconds(cluster) - computed
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
