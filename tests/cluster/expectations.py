"""What a trial must show: the default checks, and a file's own `expect` lines."""
import operator

from actions import TIME_FACTOR, hits
from cell import Cell, role_of
from load import Outcome, Pace
from open_loop import quantile  # tests/clients, as cell has it on the path
from scenario import TIMED, Expect, Scenario, seconds

COMPARE = {"<=": operator.le, ">=": operator.ge, "==": operator.eq, "<": operator.lt,
           ">": operator.gt}
DIFFERENCES_SHOWN = 3


def _members(cell: Cell, who: str) -> list[str]:
    return [n for n in cell.processes if who in (n, role_of(n)) or
            (who == "worker" and role_of(n) in ("aw", "ew"))]


def _asked(expect: Expect) -> tuple[str, str]:
    """Which metric of whom an `expect metric` or `expect share` looks at."""
    if expect.kind == "metric":
        metric, _, who = expect.words[:3]
        return metric, who
    _, metric, _, name = expect.words[:4]
    return metric, role_of(name)


class Counters:
    """Counters as they were before a trial; a process that was restarted begins again at 0."""

    def __init__(self, scenario: Scenario, cell: Cell):
        self.cell = cell
        self.lives = {n: p.lives for n, p in cell.processes.items()}
        self.deaths = {n: len(p.deaths) for n, p in cell.processes.items()}
        self.lines = {n: len(p.lines) for n, p in cell.processes.items()}
        self.values = {}
        for expect in scenario.expects:
            if expect.kind in ("metric", "share"):
                metric, who = _asked(expect)
                for name in _members(cell, who):
                    self.values[metric, name] = cell.series(name, metric)

    def before(self, metric: str, who: str) -> float:
        return sum(self.values[metric, n] for n in _members(self.cell, who))

    def now(self, metric: str, who: str) -> float:
        return sum(self.cell.series(n, metric) for n in _members(self.cell, who))

    def growth(self, metric: str, who: str) -> float:
        grown = 0.0
        for name in _members(self.cell, who):
            same = self.lives[name] == self.cell.processes[name].lives
            before = self.values[metric, name] if same else 0.0
            grown += self.cell.series(name, metric) - before
        return grown


class Run:
    """One trial's outcomes, judged."""

    def __init__(self, scenario: Scenario, cell: Cell, outcomes: list[Outcome],
                 expected: dict[int, str], calm_p99: float, counters: Counters, strict: bool,
                 pace: Pace, calm_pace: Pace | None, last_event: float):
        self.scenario, self.cell, self.counters = scenario, cell, counters
        self.expected, self.factor, self.strict = expected, 1 if strict else TIME_FACTOR, strict
        self.calm_p99 = calm_p99
        self.gap_p99 = quantile([gap for o in outcomes for gap in o.gaps] or [0], 0.99)
        # Of the calm run: tokens a second, and how much of them was missing in the worst second.
        self.goodput = pace.mean / calm_pace.mean if calm_pace else 1.0
        self.dip = max(0.0, 1 - pace.least / calm_pace.mean) if calm_pace else 0.0
        # From the last event on, until tokens come as in the calm run again.
        self.recovery = pace.back(last_event, calm_pace.mean) if calm_pace else 0.0
        self.failed = [o for o in outcomes if o.error]
        self.completed = [o for o in outcomes if not o.error]
        self.stalls = sorted(max(0.0, max(o.gaps, default=0) - calm_p99) for o in outcomes)
        self.stall_max = self.stalls[-1] if self.stalls else 0.0

    def complaints(self) -> list[str]:
        found = self._identical()
        kinds = {expect.kind for expect in self.scenario.expects}
        if "failed" not in kinds:
            found += self._failed(Expect("failed", ["==", "0"], 1))
        for expect in self.scenario.expects:
            if expect.kind not in TIMED:
                found += getattr(self, f"_{expect.kind}")(expect)
        return found

    def late(self) -> list[str]:
        """Complaints of times, which on a machine that others use are no proof of a fault."""
        return [what for expect in self.scenario.expects if expect.kind in TIMED
                for what in getattr(self, f"_{expect.kind}")(expect)]

    def _say(self, expect: Expect, what: str) -> list[str]:
        return [f"{self.scenario.path}:{expect.line}: {what}"]

    def _identical(self, _expect=None) -> list[str]:
        if _expect is not None:
            return []  # always checked
        other = [o for o in self.completed if o.answer != self.expected[o.stream]]
        return [f"stream {o.stream} got other bytes:\n      {difference(self.expected[o.stream], o.answer)}"
                for o in other[:DIFFERENCES_SHOWN]]

    def _failed(self, expect: Expect) -> list[str]:
        words = list(expect.words)
        code = words[words.index("as") + 1] if "as" in words else None
        if code is not None:
            words = words[:-2]
        found = []
        if code is not None:
            found = [f"stream {o.stream} failed as {o.error}, not {code}: {o.detail}"
                     for o in self.failed if o.error != code][:DIFFERENCES_SHOWN]
        if words == ["any"]:
            return found
        compare, number = (words[0], words[1]) if len(words) == 2 else ("==", words[0])
        if not COMPARE[compare](len(self.failed), int(number)):
            reasons = sorted({f"{o.error} ({o.detail})" for o in self.failed})[:DIFFERENCES_SHOWN]
            found += self._say(expect, f"{len(self.failed)} requests failed: {'; '.join(reasons)}")
        return found

    def _stall_max(self, expect: Expect) -> list[str]:
        return self._stall(expect, self.stall_max)

    def _stall_p50(self, expect: Expect) -> list[str]:
        return self._stall(expect, self.stalls[len(self.stalls) // 2])

    def _stall(self, expect: Expect, value: float) -> list[str]:
        limit = seconds(expect.words[1]) * self.factor
        if value <= limit:
            return []
        return self._say(expect, f"{expect.kind} is {value * 1e3:.0f} ms, allowed "
                                 f"{limit * 1e3:.0f} ms ({self.factor} x the target)")

    def _goodput(self, expect: Expect) -> list[str]:
        if not self.strict or self.goodput * 100 >= float(expect.words[1].rstrip("%")):
            return []
        return self._say(expect, f"goodput is {self.goodput:.0%} of the calm run's")

    def _dip(self, expect: Expect) -> list[str]:
        if not self.strict or self.dip * 100 <= float(expect.words[1].rstrip("%")):
            return []
        return self._say(expect, f"the worst second lacks {self.dip:.0%} of the calm run's tokens")

    def _gap_p99(self, expect: Expect) -> list[str]:
        """Of all gaps between two events of a stream: a step, as a client sees it."""
        limit = expect.words[1]
        if limit.endswith("%"):
            if not self.strict:
                return []
            allowed = self.calm_p99 * float(limit.rstrip("%")) / 100
        else:
            allowed = seconds(limit) * self.factor
        if self.gap_p99 <= allowed:
            return []
        return self._say(expect, f"gap_p99 is {self.gap_p99 * 1e3:.0f} ms, allowed "
                                 f"{allowed * 1e3:.0f} ms")

    def _recovery(self, expect: Expect) -> list[str]:
        limit = seconds(expect.words[1])
        if self.recovery <= limit:
            return []
        return self._say(expect, f"{self.recovery:.1f} s until the calm run's pace, allowed {limit:g} s")

    def _metric(self, expect: Expect) -> list[str]:
        metric, _, who, how, *limit = expect.words
        value = (self.counters.growth if how == "grows" else self.counters.now)(metric, who)
        # Of what begins again with its process, epochs: above what it was, whoever says so now.
        compare, number = limit or (">", repr(self.counters.before(metric, who)))
        if COMPARE[compare](value, float(number)):
            return []
        return self._say(expect, f"{metric} on {who} {how} {value!r}, expected {compare} {number}")

    def _share(self, expect: Expect) -> list[str]:
        metric, role = _asked(expect)
        name, limit = expect.words[3], float(expect.words[5].rstrip("%"))
        share = 100 * self.counters.growth(metric, name) / max(1, self.counters.growth(metric, role))
        if share <= limit:
            return []
        return self._say(expect, f"{name} has {share:.0f} % of what {metric} grew by")

    def _hits(self, expect: Expect) -> list[str]:
        who, point, compare, number = expect.words
        value = sum(hits(self.cell.processes[n].admin, point) for n in _members(self.cell, who))
        if COMPARE[compare](value, int(number)):
            return []
        return self._say(expect, f"{point} on {who} was passed {value} times")

    def _log(self, expect: Expect) -> list[str]:
        who, text = expect.words[0], " ".join(expect.words[1:])
        if any(text in line for n in _members(self.cell, who)
               for line in self.cell.processes[n].lines):
            return []
        return self._say(expect, f"no line of {who} says '{text}'")

    def _down(self, expect: Expect) -> list[str]:
        """How a process ended: `expect down ew1 9` (signal) or `expect down gw0 exit 1`."""
        who, *how = expect.words
        wanted = int(how[1]) if how[0] == "exit" else -int(how[0])
        ends = [code for n in _members(self.cell, who)
                for code in self.cell.processes[n].deaths[self.counters.deaths[n]:]]
        if wanted in ends:
            return []
        return self._say(expect, f"ends of {who}: {ends}")

    def _deaths(self, expect: Expect) -> list[str]:
        """Of all processes, during the trial."""
        compare, number = expect.words
        ends = {name: ended for name, process in self.cell.processes.items()
                if (ended := process.deaths[self.counters.deaths[name]:])}
        count = sum(map(len, ends.values()))
        if COMPARE[compare](count, int(number)):
            return []
        return self._say(expect, f"{count} processes died: {ends}")


def difference(expected: str, got: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(expected, got)) if a != b),
              min(len(expected), len(got)))
    begin = max(0, at - 40)
    return f"at {at}: ...{expected[begin:at + 40]!r} became ...{got[begin:at + 40]!r}"
