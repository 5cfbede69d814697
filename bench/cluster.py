#!/usr/bin/env python3
"""What being a cluster costs: `bottega serve` against `bottega up` with 1 attention and 2 expert workers.

Same model, same flags, interleaved pairs, medians. Prints decode tokens/s at 1 and 8 streams, the share of
a step that waits for the exchange (from the worker's own metrics), the time to ready, and what an idle
cluster of 2 x 4 workers costs (PSS, CPU).
Usage: bench/cluster.py [--pairs N] [--tokens N] [--exchange auto|tcp|shm]
"""
import argparse
import pathlib
import statistics
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/clients"))
from cluster import TINY, running  # noqa: E402
from decode import decode  # noqa: E402
from process import cpu_seconds, pss  # noqa: E402


def steps(series):
    """(seconds in decode steps, seconds waiting for the exchange, decode steps)."""
    total = series.get('bottega_attention_step_seconds_sum{phase="decode"}', 0)
    count = series.get('bottega_attention_step_seconds_count{phase="decode"}', 0)
    wait = series.get('bottega_attention_stage_seconds_sum{stage="exchange_wait"}', 0)
    return total, wait, count


def shape(pairs, tokens, exchange):
    up = ("up", TINY, "--port", "0", "--attention-workers", "1", "--expert-workers", "2",
          "--exchange", exchange)
    with running("serve", TINY, "--port", "0", "--threads", "1") as one, running(*up) as cluster:
        for url in (one.url, cluster.url):
            decode(url, 8, 32)  # warm
        for streams in (1, 8):
            ratios, alone, together = [], [], []
            for _ in range(pairs):
                alone.append(decode(one.url, streams, tokens))
                together.append(decode(cluster.url, streams, tokens))
                ratios.append(together[-1] / alone[-1])
            print(f"decode, {streams} stream(s): serve {statistics.median(alone):.0f} tok/s, up "
                  f"{statistics.median(together):.0f} tok/s, ratio {statistics.median(ratios):.2f} "
                  f"({min(ratios):.2f}-{max(ratios):.2f}, {pairs} pairs)")
        admin = next(a for name, (_, a) in cluster.members().items() if name.startswith("attention"))
        total, wait, count = steps(cluster.metrics(admin))
        print(f"up over {', '.join(cluster.transports(admin))}: a decode step takes {total / count * 1e6:.0f} us, of which waiting for experts "
              f"(their work and the exchange) {wait / count * 1e6:.0f} us")
        total, wait, count = steps(one.metrics(one.find(r"^admin +(\S+)").group(1)))
        print(f"serve: a decode step takes {total / count * 1e6:.0f} us, of which waiting for experts "
              f"{wait / count * 1e6:.0f} us")


def idle(exchange):
    start = time.monotonic()
    with running("up", TINY, "--port", "0", "--attention-workers", "2", "--expert-workers", "4",
                 "--replication", "2", "--exchange", exchange) as cluster:
        print(f"2 x 4 workers ready after {time.monotonic() - start:.1f} s")
        pids = [pid for pid, _ in cluster.members().values()] + [cluster.process.pid]
        time.sleep(2)
        before, seconds = sum(map(cpu_seconds, pids)), 10
        time.sleep(seconds)
        print(f"idle: {(sum(map(cpu_seconds, pids)) - before) / seconds * 100:.1f} % of one core, "
              f"{sum(map(pss, pids)) / 2**20:.0f} MiB PSS in {len(pids)} processes")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--exchange", default="auto")
    arguments = parser.parse_args()
    shape(arguments.pairs, arguments.tokens, arguments.exchange)
    idle(arguments.exchange)


if __name__ == "__main__":
    main()
