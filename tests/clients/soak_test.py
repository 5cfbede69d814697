"""Half an hour of mixed load near capacity: nothing fails, no byte changes, nobody grows, and tokens
come at the end as evenly as at the beginning. BOTTEGA_SOAK_SECONDS makes it shorter: then slopes
and gaps are printed, not judged. It wants the machine for itself: `others` is what it did not get.
"""
import array
import asyncio
import dataclasses
import os
import statistics
import time
import unittest

from cluster import TINY, running
from mixed_load import REQUESTS, Mix
from open_loop import again_and_again, arrivals, quantile
from process import cpu_seconds, machine_cpu_seconds, open_fds, pss_without_files, threads
from raw_http import wait_until

WHOLE_S = 1800
SECONDS = float(os.environ.get("BOTTEGA_SOAK_SECONDS", WHOLE_S))
PERIODS = 30  # lines of the table: minutes of the whole half hour
WINDOW = 5  # of them: memory's warm-up, and what is compared of the beginning and of the end
LOOKS = 12  # at the processes, in a period
PEAK_S = max(8, SECONDS / 60)
CLIENTS = 64  # places at one attention worker: more would wait in the queue
CALM = 16  # at once, while nothing is measured

# At capacity means: a step follows the other, but the queue ends. At 100 % of the peak, requests of
# random length at random times wait in a queue that only grows, as a random walk does, until one is
# refused. At 80 % it empties again and again, and what a noisy machine takes for some seconds fits
# into it (128 may wait).
SHARE = 0.8
# Holds half a lap at most: what is shared stays, the rest is gone before it comes again, however
# many run. With room for a whole lap a queue would cost hits, which would make it longer. And it is
# full before the warm-up ends: what a pool touches for the first time is no growth.
KV_CACHE = "64MiB"

REQUESTS_MIN = 10_000
SLOPE_MAX = 1 << 20  # bytes in 1,000 requests, all processes together
GROWTH_MAX, ROUND = 0.01, 256 << 10  # of a process in 10,000 requests, as in memory_test.py
GAP_RATIO_MAX = 1.1
HITS = "bottega_attention_prefix_cache_{}_tokens_total"
# gRPC starts another when all of its pool are busy, and keeps it for longer than we wait.
THREADS_OF_POOL = 4
FAILURES_MAX = 20  # then there is no point in going on


@dataclasses.dataclass
class Look:
    answered: int
    memory: dict[str, int]  # bytes, by process


@dataclasses.dataclass
class Period:
    answered: int
    open: int  # requests at its end
    gaps: array.array
    fds: int
    threads: int
    others: float  # cores that neither the cluster nor this client used


class Soak(unittest.TestCase):
    def value(self, name: str, prefix: str) -> float:
        return sum(self.cluster.series(self.cluster.members()[name][1], prefix).values())

    def idle(self) -> bool:
        return (self.value("gateway-0", "bottega_gateway_open_streams") == 0
                and self.value("gateway-0", "bottega_gateway_queue_depth") == 0
                and self.value("attention-0", 'bottega_attention_kv_blocks{state="used"}') == 0)

    def held(self, of) -> dict[str, int]:
        return {name: of(pid) for name, pid in self.pids.items()}

    async def load(self, rate: float):
        """SECONDS of arrivals; meanwhile the processes are looked at."""
        over = False

        async def watch():
            begin, ours = time.monotonic(), [*self.pids.values(), os.getpid()]
            used = machine_cpu_seconds() - sum(map(cpu_seconds, ours))
            answered = self.mix.answered
            for number in range(1, LOOKS * PERIODS + 1):
                await asyncio.sleep(begin + number * SECONDS / LOOKS / PERIODS - time.monotonic())
                if over:
                    return
                # In a thread: walking page tables takes milliseconds, which would be gaps.
                memory = await asyncio.to_thread(self.held, pss_without_files)
                self.looks.append(Look(self.mix.answered, memory))
                if number % LOOKS == 0:
                    now = machine_cpu_seconds() - sum(map(cpu_seconds, ours))
                    self.periods.append(Period(
                        self.mix.answered - answered, self.mix.open, self.mix.gaps,
                        sum(self.held(open_fds).values()), sum(self.held(threads).values()),
                        (now - used) / SECONDS * PERIODS))
                    self.mix.gaps, used, answered = array.array("f"), now, self.mix.answered

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(watch())
            async for number in arrivals(rate, SECONDS):
                tasks.create_task(self.mix.turn(self.turns + number))
                if len(self.mix.failures) > FAILURES_MAX:
                    break
            over = len(self.mix.failures) > FAILURES_MAX

    def capacity(self) -> float:
        """Requests a second. First each once, a few at a time: the answers to compare with."""
        async def calm():
            for first in range(0, REQUESTS, CALM):
                await asyncio.gather(*map(self.mix.turn, range(first, first + CALM)))
        asyncio.run(calm())
        done = 0

        async def one(number: int):
            nonlocal done
            await self.mix.turn(REQUESTS + number)
            done += 1
        begin = time.monotonic()
        asyncio.run(again_and_again(one, CLIENTS, PEAK_S))
        self.turns = 2 * REQUESTS + done
        return done / (time.monotonic() - begin)

    def test_nothing_grows_or_slows_down(self):
        with running("up", TINY, "--port", "0", "--attention-workers", "1", "--expert-workers", "2",
                     "--replication", "2", "--kv-cache", KV_CACHE) as self.cluster:
            members = self.cluster.members()
            self.pids = {name: pid for name, (pid, _) in members.items()}
            self.pids["up"] = self.cluster.process.pid
            self.mix, self.looks, self.periods = Mix(self.cluster.url), [], []
            peak = self.capacity()
            self.assertEqual(self.mix.failures[:5], [])
            wait_until(self.idle)
            fds, tasks, self.cpu = self.held(open_fds), self.held(threads), self.held(cpu_seconds)
            self.mix.gaps = array.array("f")
            asyncio.run(self.load(SHARE * peak))
            self.assertLessEqual(len(self.mix.failures), FAILURES_MAX, self.mix.failures[:5])
            self.cpu = {name: (now - self.cpu[name]) / SECONDS
                        for name, now in self.held(cpu_seconds).items()}
            self.tell(peak)
            self.judge()
            self.assertEqual(self.mix.failures[:5], [])
            self.assertEqual(self.cluster.members(), members, "somebody was started again")
            self.assertGreater(self.mix.left, 0)
            self.assertGreater(self.value("attention-0", HITS.format("hit")), 0)
            wait_until(self.idle)
            self.gone(open_fds, fds, 0)
            self.gone(threads, tasks, THREADS_OF_POOL)

    def gone(self, what, before: dict[str, int], more: int):
        """At rest each process has what it had at rest before the load, and `more` at most."""
        for name, pid in self.pids.items():
            with self.subTest(f"{what.__name__} of {name}", before=before[name], now=what(pid)):
                wait_until(lambda: what(pid) <= before[name] + more)

    def growth(self) -> dict[str, float]:
        """Bytes a request after the warm-up, by process: the slope of a line through all looks."""
        looks = self.looks[LOOKS * WINDOW:]
        answered = [look.answered for look in looks]
        return {name: statistics.linear_regression(answered, [look.memory[name] for look in looks]).slope
                for name in self.pids}

    def gap_p99(self, periods: list[Period]) -> float:
        return quantile([gap for period in periods for gap in period.gaps], 0.99)

    def tell(self, peak: float):
        prompts = sorted(self.mix.prompts.values())
        hits, asked = (self.value("attention-0", HITS.format(what)) for what in ("hit", "query"))
        preempted = self.value("attention-0", "bottega_attention_preemptions_total")
        print(f"\npeak {peak:.1f} requests/s, {CLIENTS} clients; load {SHARE * peak:.1f}/s for {SECONDS:.0f} s; "
              f"prompts {prompts[0]}-{prompts[-1]} tokens, mean {statistics.mean(prompts):.0f}, "
              f"{hits / asked:.0%} of them cached; {preempted:.0f} preemptions\n"
              f"{self.mix.answered} answered, {self.mix.left} left midway, {self.mix.compared} compared, "
              f"{len(self.mix.failures)} failed")
        print(f"{'until s':>8} {'answered':>8} {'open':>5} {'gap p50 ms':>10} {'p99':>6} {'max':>6} {'MiB':>7} "
              f"{'fds':>5} {'threads':>7} {'others':>6}")
        for number, period in enumerate(self.periods, 1):
            memory = sum(self.looks[LOOKS * number - 1].memory.values())
            p50, p99, most = (quantile(period.gaps, q) * 1e3 for q in (0.5, 0.99, 1))
            print(f"{number * SECONDS / PERIODS:>8.0f} {period.answered:>8} {period.open:>5} {p50:>10.1f} "
                  f"{p99:>6.1f} {most:>6.0f} {memory / 2**20:>7.1f} {period.fds:>5} {period.threads:>7} "
                  f"{period.others:>6.2f}")

    def judge(self):
        whole = SECONDS >= WHOLE_S
        warm, end = self.looks[LOOKS * WINDOW - 1], self.looks[-1]
        growth = self.growth()
        for name, slope in growth.items():
            print(f"{name:>12}: {warm.memory[name] / 2**20:6.1f} MiB after the warm-up, "
                  f"{end.memory[name] / 2**20:6.1f} at the end, {slope * 1000 / 1024:8.1f} KiB in 1,000 requests; "
                  f"{self.cpu[name]:.2f} cores")
        slope = sum(growth.values()) * 1000
        first, last = (self.gap_p99(periods) for periods in (self.periods[:WINDOW], self.periods[-WINDOW:]))
        print(f"all together: {slope / 1024:.1f} KiB in 1,000 requests, {end.answered - warm.answered} answered "
              f"after the warm-up; gap p99 {first * 1e3:.1f} ms in the first window, "
              f"{last * 1e3:.1f} in the last, ratio {last / first:.2f}"
              + ("" if whole else " (too short to judge)"))
        if not whole:
            return
        with self.subTest("enough was asked"):
            self.assertGreaterEqual(end.answered - warm.answered, REQUESTS_MIN)
        with self.subTest("memory"):
            self.assertLessEqual(slope, SLOPE_MAX)
        for name, slope in growth.items():
            with self.subTest(f"memory of {name}"):
                self.assertLessEqual(10_000 * slope, GROWTH_MAX * warm.memory[name] + ROUND)
        with self.subTest("gaps"):
            self.assertLessEqual(last, GAP_RATIO_MAX * first)


if __name__ == "__main__":
    unittest.main(verbosity=2)
