"""How long a person waits when a worker dies or stops: measures, judges only that no byte differs.

    python3 stalls.py [--trials 30] [--streams 16] [expert-kill expert-stop attention-kill attention-stop]

One cluster of 2 attention and 4 expert workers, replication 2. Each trial runs the same streams and
strikes one worker at a random moment. Stall: the worst gap between two events of any stream, less the
99th percentile of the gaps without a fault. Prints p50, p99 and max of each kind of fault.
"""
import argparse
import os
import random
import signal
import time

import kill_test
from cluster import TINY, running

STOP_S = 3.0


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def strike(kind, cluster, chooser, streams):
    role, how = kind.split("-")
    count = 2 if role == "attention" else 4
    pid = cluster.members()[f"{role}-{chooser.randrange(count)}"][0]

    def disturb(progress):
        for _ in range(chooser.randrange(streams, streams * 40)):
            progress.acquire(timeout=60)
        if how == "kill":
            os.kill(pid, signal.SIGKILL)
            return
        os.kill(pid, signal.SIGSTOP)
        time.sleep(STOP_S)  # the fault itself
        os.kill(pid, signal.SIGCONT)
    return disturb


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", default=["expert-kill", "expert-stop",
                                                     "attention-kill", "attention-stop"])
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--streams", type=int, default=16)
    options = parser.parse_args()
    kill_test.STREAMS = options.streams
    case = kill_test.Kill()
    chooser = random.Random(11)
    with running("up", TINY, "--port", "0", "--attention-workers", "2", "--expert-workers", "4",
                 "--replication", "2") as cluster:
        case.wait_whole(cluster)
        expected, calm = case.run_streams(cluster.url)
        again, gaps = case.run_streams(cluster.url)
        assert again == expected
        base = percentile(calm + gaps, 0.99)
        print(f"without a fault: p50 {percentile(calm + gaps, 0.5) * 1e3:.1f} ms, "
              f"p99 {base * 1e3:.1f} ms between events", flush=True)
        for kind in options.kinds:
            stalls, failed = [], 0
            for _ in range(options.trials):
                case.wait_whole(cluster)
                try:
                    answers, gaps = case.run_streams(
                        cluster.url, strike(kind, cluster, chooser, options.streams))
                except (RuntimeError, OSError) as error:
                    failed += 1
                    print(f"{kind}: {error}", flush=True)
                    continue
                failed += sum(a != b for a, b in zip(answers, expected))
                stalls.append(max(0.0, max(gaps) - base))
            print(f"{kind}: {len(stalls)} trials, {failed} failed or different, stall "
                  f"p50 {percentile(stalls, 0.5) * 1e3:.0f} ms, "
                  f"p99 {percentile(stalls, 0.99) * 1e3:.0f} ms, max {max(stalls) * 1e3:.0f} ms",
                  flush=True)


if __name__ == "__main__":
    main()
