#!/usr/bin/env python3
"""Goodput of a small cluster at 2, 5 and 10 times the load it carries, open loop.

First the peak: a closed loop with as many clients as there are slots. Then Poisson arrivals at multiples of it; with
--tries N every refused client tries again at once. Prints goodput (tokens a second of whole answers) against the
peak, the time of refusals as a client sees it, what the workers computed for each token delivered, and the gateway's RSS.
Client and cluster share the machine, and the client takes more of it the more is refused.
With --judge (O1) it fails below 90 % of the peak, with refusals over 20 ms (p99) or more than a tenth computed in vain.
Usage: bench/overload.py [--seconds S] [--tokens N] [--tries N] [--judge]
"""
import argparse
import asyncio
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/clients"))
from cluster import TINY, running  # noqa: E402
from open_loop import closed, goodput, opened, quantile  # noqa: E402
from process import rss  # noqa: E402


GOODPUT_LEAST, REFUSAL_MOST_S, COMPUTED_MOST = 0.9, 0.020, 1.1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--tokens", type=int, default=192)
    parser.add_argument("--tries", type=int, default=1)
    parser.add_argument("--judge", action="store_true")
    options = parser.parse_args()
    missed = []
    flags = ("up", TINY, "--port", "0", "--attention-workers", "1", "--expert-workers", "2")
    with running(*flags) as cluster:
        gateway_pid = cluster.members()["gateway-0"][0]
        attention = cluster.members()["attention-0"][1]

        def computed() -> float:
            return sum(cluster.series(attention, "bottega_attention_generation_tokens_total").values())
        asyncio.run(closed(cluster.url, 64, 3, options.tokens))  # warm
        peak = goodput(asyncio.run(closed(cluster.url, 64, options.seconds, options.tokens)))
        print(f"peak {peak:.0f} tokens/s, closed loop of 64; answers of {options.tokens} tokens; "
              f"{options.tries} tries; gateway {rss(gateway_pid) / 2**20:.0f} MiB")
        print(f"{'load':>5} {'goodput':>8} {'of peak':>8} {'answers':>8} {'refused':>8} {'other':>6} "
              f"{'refusal p50':>12} {'p99':>8} {'computed/delivered':>19} {'RSS MiB':>8}")
        for multiple in (2, 5, 10):
            before = computed()
            outcomes = asyncio.run(opened(cluster.url, multiple * peak / options.tokens,
                                          options.seconds, options.tokens, options.tries))
            refused = [o.seconds for o in outcomes if o.status in (429, 503)]
            served = [o for o in outcomes if o.status == 200]
            rate = goodput(outcomes)
            spent = (computed() - before) / max(1, sum(o.tokens for o in served))
            late = quantile(refused, .99)
            if rate < GOODPUT_LEAST * peak or late > REFUSAL_MOST_S or spent > COMPUTED_MOST:
                missed.append(f"{multiple}x")
            print(f"{multiple:>4}x {rate:>8.0f} {rate / peak:>8.0%} {len(served):>8} {len(refused):>8} "
                  f"{len(outcomes) - len(served) - len(refused):>6} "
                  f"{quantile(refused, .5) * 1e3:>9.1f} ms {late * 1e3:>5.1f} ms "
                  f"{spent:>19.3f} {rss(gateway_pid) / 2**20:>8.0f}")
    if options.judge and missed:
        print(f"missed at {', '.join(missed)}: goodput >= {GOODPUT_LEAST:.0%}, refusals <= "
              f"{REFUSAL_MOST_S * 1e3:.0f} ms, computed <= {COMPUTED_MOST} of what is delivered")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
