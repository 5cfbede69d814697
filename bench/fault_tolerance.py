#!/usr/bin/env python3
"""What fault tolerance costs while nothing fails: throughput against a build whose dispatcher sends each row once.

Builds the presets `package` and `direct` (the same, with bench/direct_dispatch.cc) if they are not there, starts
`bottega up` with 1 attention and 2 expert workers of each, and decodes at both in interleaved pairs; the order within
a pair changes. Prints the median ratio, its spread, and a pair of the first build with itself for the noise.
Usage: bench/fault_tolerance.py [--pairs N] [--tokens N] [--streams N]
"""
import argparse
import contextlib
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/clients"))
import cluster as clients  # noqa: E402  (tests/clients/cluster.py)
from decode import decode  # noqa: E402


def build(preset: str) -> pathlib.Path:
    subprocess.run(["cmake", "--preset", preset], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", "--preset", preset], cwd=ROOT, check=True,
                   stdout=subprocess.DEVNULL)
    return ROOT / "build" / preset / "bin"


def started(stack, programs: pathlib.Path):
    clients.BIN = programs
    return stack.enter_context(clients.running(
        "up", clients.TINY, "--port", "0", "--attention-workers", "1", "--expert-workers", "2")).url


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=1500)
    parser.add_argument("--streams", type=int, default=8)
    o = parser.parse_args()
    package, direct = build("package"), build("direct")
    with contextlib.ExitStack() as stack:
        urls = {"package": started(stack, package), "direct": started(stack, direct),
                "again": started(stack, package)}
        for url in urls.values():
            decode(url, o.streams, 64)  # warm
        speeds = {name: [] for name in urls}
        for pair in range(o.pairs):
            names = list(urls)
            for name in names[pair % 3:] + names[:pair % 3]:
                speeds[name].append(decode(urls[name], o.streams, o.tokens))
    for other in ("direct", "again"):
        ratios = sorted(a / b for a, b in zip(speeds["package"], speeds[other]))
        quarter = len(ratios) // 4
        print(f"package against {other}: {statistics.median(speeds['package']):.0f} and "
              f"{statistics.median(speeds[other]):.0f} tok/s, median of {o.pairs} ratios "
              f"{statistics.median(ratios):.3f} (quartiles {ratios[quarter]:.3f} and "
              f"{ratios[-1 - quarter]:.3f})")


if __name__ == "__main__":
    main()
