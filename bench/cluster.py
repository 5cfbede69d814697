#!/usr/bin/env python3
"""What being a cluster costs: `bottega serve` against `bottega up` with 1 attention and 2 expert workers.

Same model, same flags, interleaved pairs, medians. Prints decode tokens/s at 1 and 8 streams, the share of
a step that waits for the exchange (from the worker's own metrics), the time to ready, and what an idle
cluster of 2 x 4 workers costs (PSS, CPU).
Usage: bench/cluster.py [--model DIR] [--threads N] [--pairs N] [--tokens N] [--exchange auto|tcp|shm]
                        [--kv-cache BYTES] [--replication N]
The cluster has the same threads: the attention worker all of them, the expert workers half each, as they
take turns. `--model` (of `bottega synth`, say) leaves out the idle cluster. With one replica
the busier expert worker of a layer has 5.1 of the 8 experts of a token on average; with two they share them.
"""
import argparse
import dataclasses
import pathlib
import statistics
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/clients"))
from cluster import TINY, running  # noqa: E402
from decode import decode  # noqa: E402
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


def shape(model, pairs, tokens, exchange, kv_cache, threads, replication):
    up = ("up", model, "--port", "0", "--attention-workers", "1", "--expert-workers", "2",
          "--attention-threads", str(threads), "--threads", str(max(1, threads // 2)),
          "--exchange", exchange, "--kv-cache", kv_cache, "--replication", str(replication))
    serve = ("serve", model, "--port", "0", "--threads", str(threads), "--kv-cache", kv_cache)
    with running(*serve) as one, running(*up) as cluster:
        admin = next(a for name, (_, a) in cluster.members().items() if name.startswith("attention"))
        alone_admin = one.find(r"^admin +(\S+)").group(1)
        for url in (one.url, cluster.url):
            decode(url, 8, min(tokens, 32))  # warm
        for streams in (1, 8):
            ratios, alone, together = [], [], []
            before = Steps.of(one.metrics(alone_admin)), Steps.of(cluster.metrics(admin))
            computed = busy(cluster)
            for _ in range(pairs):
                alone.append(decode(one.url, streams, tokens))
                together.append(decode(cluster.url, streams, tokens))
                ratios.append(together[-1] / alone[-1])
            of_one = Steps.of(one.metrics(alone_admin)).since(before[0])
            of_up = Steps.of(cluster.metrics(admin)).since(before[1])
            computed = busy(cluster) - computed
            print(f"decode, {streams} stream(s): serve {statistics.median(alone):.1f} tok/s, up "
                  f"{statistics.median(together):.1f} tok/s, ratio {statistics.median(ratios):.3f} "
                  f"({min(ratios):.3f}-{max(ratios):.3f}, {pairs} pairs)")
            print(f"  a step of serve takes {of_one.microseconds(of_one.total):.0f} us, of which waiting for experts "
                  f"{of_one.microseconds(of_one.wait):.0f} us")
            print(f"  a step of up over {', '.join(cluster.transports(admin))} {of_up.microseconds(of_up.total):.0f} us, "
                  f"waiting {of_up.microseconds(of_up.wait):.0f} us, the busier expert worker computes "
                  f"{of_up.microseconds(computed):.0f} us: exchange {(of_up.wait - computed) / of_up.total:.1%} "
                  "of a step")


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
    parser.add_argument("--model", default=TINY)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--exchange", default="auto")
    parser.add_argument("--replication", type=int, default=1)
    parser.add_argument("--kv-cache", default="256MiB")
    arguments = parser.parse_args()
    shape(arguments.model, arguments.pairs, arguments.tokens, arguments.exchange, arguments.kv_cache,
          arguments.threads, arguments.replication)
    if arguments.model == TINY:
        idle(arguments.exchange)


if __name__ == "__main__":
    main()
