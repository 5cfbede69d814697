#!/usr/bin/env python3
"""What being a cluster costs: `bottega serve` against `bottega up` with 1 attention worker and some expert workers.

Same model, same flags, interleaved pairs, medians. Prints decode tokens/s at 1 and 8 streams, what a step
waits for beyond the computing of its busiest expert worker (the exchange, and where the others had less to
do), and of bottega-tiny the time to ready and what an idle cluster of 2 x 4 workers costs (PSS, CPU).
Usage: bench/cluster.py [--model DIR] [--threads N] [--expert-workers N...] [--replication N] [--pairs N]
                        [--tokens N] [--exchange auto|tcp|shm] [--kv-cache BYTES] [--json FILE]
The cluster has the same threads: the attention worker all of them, the expert workers share as many, as the
two kinds take turns. Of two expert workers with a replica each of the experts, the busier has 5.1 of the 8 of
a token on average; with two replicas they share them. `--json` is what bench/plot.py draws.
"""
import argparse
import dataclasses
import json
import pathlib
import statistics
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/clients"))
from cluster import TINY, running  # noqa: E402
from decode import decode  # noqa: E402
from machine import processor  # noqa: E402
from process import cpu_seconds, pss  # noqa: E402


@dataclasses.dataclass
class Steps:
    """Decode steps of an attention worker: seconds, how many, seconds of waiting for experts."""
    total: float
    count: float
    wait: float

    @classmethod
    def of(cls, series):
        return cls(series.get('bottega_attention_step_seconds_sum{phase="decode"}', 0),
                   series.get('bottega_attention_step_seconds_count{phase="decode"}', 0),
                   series.get('bottega_attention_stage_seconds_sum{stage="exchange_wait"}', 0))

    def since(self, before):
        return Steps(self.total - before.total, self.count - before.count, self.wait - before.wait)

    def microseconds(self, seconds):
        """Of one step."""
        return seconds / max(self.count, 1) * 1e6


def busy(cluster):
    """Seconds that the busiest expert worker has computed."""
    return max(cluster.metrics(admin)["bottega_expert_busy_seconds_total"]
               for name, (_, admin) in cluster.members().items() if name.startswith("expert"))


def pairs_of(o, one, cluster, streams):
    """Speeds of both, interleaved, and what the steps did meanwhile."""
    admin = next(a for name, (_, a) in cluster.members().items() if name.startswith("attention"))
    before = Steps.of(one.metrics(one.admin)), Steps.of(cluster.metrics(admin)), busy(cluster)
    alone, together = [], []
    for _ in range(o.pairs):
        alone.append(decode(one.url, streams, o.tokens))
        together.append(decode(cluster.url, streams, o.tokens))
    of_one = Steps.of(one.metrics(one.admin)).since(before[0])
    of_up = Steps.of(cluster.metrics(admin)).since(before[1])
    computed = busy(cluster) - before[2]
    ratios = [b / a for a, b in zip(alone, together)]
    print(f"decode, {streams} stream(s): serve {statistics.median(alone):.1f} tok/s, up "
          f"{statistics.median(together):.1f} tok/s, ratio {statistics.median(ratios):.3f} "
          f"({min(ratios):.3f}-{max(ratios):.3f}, {o.pairs} pairs)")
    print(f"  a step of serve takes {of_one.microseconds(of_one.total):.0f} us, of which waiting for experts "
          f"{of_one.microseconds(of_one.wait):.0f} us")
    print(f"  a step of up over {', '.join(cluster.transports(admin))} {of_up.microseconds(of_up.total):.0f} us, "
          f"waiting {of_up.microseconds(of_up.wait):.0f} us, the busiest expert worker computes "
          f"{of_up.microseconds(computed):.0f} us: {(of_up.wait - computed) / of_up.total:.1%} of a step beyond that",
          flush=True)
    return alone, together


def shape(o, expert_workers):
    """Serve against a cluster of so many expert workers; the works of it for the JSON file."""
    up = ("up", o.model, "--port", "0", "--attention-workers", "1", "--expert-workers", str(expert_workers),
          "--attention-threads", str(o.threads), "--threads", str(max(1, o.threads // expert_workers)),
          "--exchange", o.exchange, "--kv-cache", o.kv_cache,
          "--replication", str(min(o.replication, expert_workers)))
    serve = ("serve", o.model, "--port", "0", "--threads", str(o.threads), "--kv-cache", o.kv_cache)
    works = []
    with running(*serve) as one, running(*up) as cluster:
        print(f"1 x {expert_workers} workers, {min(o.replication, expert_workers)} replica(s)")
        for url in (one.url, cluster.url):
            decode(url, 8, min(o.tokens, 32))  # warm
        for streams in (1, 8):
            alone, together = pairs_of(o, one, cluster, streams)
            works.append({"kind": "cluster decode", "name": f"decode {streams}", "sequences": streams,
                          "expert_workers": expert_workers, "tokens_per_s": statistics.median(together),
                          "least": min(together), "most": max(together),
                          "one_process_tokens_per_s": statistics.median(alone)})
    return works


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=TINY)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--expert-workers", type=int, nargs="+", default=[2])
    parser.add_argument("--replication", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--exchange", default="auto")
    parser.add_argument("--kv-cache", default="256MiB")
    parser.add_argument("--json", type=pathlib.Path)
    o = parser.parse_args()
    works = [work for count in o.expert_workers for work in shape(o, count)]
    if o.json:
        o.json.write_text(json.dumps({"machine": {"processor": processor(), "threads": o.threads},
                                      "model": {"name": pathlib.Path(o.model).name},
                                      "works": works}, indent=1))
    if o.model == TINY:
        idle(o.exchange)


if __name__ == "__main__":
    main()
