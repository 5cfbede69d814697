#!/usr/bin/env python3
"""Runs scenario files: `run.py [--trials N] [--strict] [--verbose] FILE...`

For each file: the cell is started, the load runs once without a fault and its bytes are kept, then
once a trial with the events. Prints one line a file. Exit 0; 1 if one failed; 77 if all were skipped.
"""
import argparse
import os
import pathlib
import statistics
import sys
import time
import traceback

import cell as cells
import expectations
import leaks
import load as loads
import memory_limit  # tests/clients, as cell has it on the path
import network
import scenario as language
from actions import Actions
from open_loop import quantile  # likewise

SKIPPED = 77
SHARE_LIMIT_S = 10  # until a worker that came back has its share again; a hang limit
CALM_SPAN_MAX_S = 10
PROBE = language.Load(streams=8, seed=1, tokens=12, prompt=6)


class Failed(Exception):
    pass


class Runner:
    """One file: a cell, a calm run, trials."""

    def __init__(self, path: pathlib.Path, options):
        self.path, self.options = path, options
        self.clock = cells.Clock()
        self.spec = language.parse(path)
        self.stalls: list[float] = []  # worst of each trial, over the calm p99
        self.steps: list[float] = []  # the 99th percentile of each trial's gaps, of the calm run's
        self.recoveries: list[float] = []  # seconds after the last event, where a pace is expected
        self.failed = 0  # requests that ended with an error
        self.completed = 0
        self.calm_pace: loads.Pace | None = None  # where a pace is expected
        self.late: list[str] = []  # what took too long, with --strict
        self.paces: list[tuple[float, float]] = []  # goodput and dip of each trial
        self.last_lines: list[str] = []

    def run(self) -> str:
        """The line that is printed."""
        place = self._place()
        self.cell = cells.Cell(self.spec, place, self.clock)
        try:
            self.cell.start()
            self._calm()
            for trial in range(self._trials()):
                self._trial(trial)
        finally:
            self.last_lines = self._last_lines()
            crashed = self.cell.end()
            place.close()
        if crashed:
            self.last_lines = self._last_lines()
            raise Failed("; ".join(crashed))
        if self.late:
            raise Failed("\n  ".join([self._line(), *self.late]))
        return self._line()

    def _place(self):
        if self.spec.cell.network == "namespaces":
            proxied = {action.words[0] for event in self.spec.events for action in event.actions
                       if action.verb == "proxy"}
            return network.Namespaces(self.spec.cell.names(), proxied)
        return cells.Host(self.spec.cell.names())

    def _trials(self) -> int:
        return max(self.options.trials, len(self.spec.sweep) or 1)

    def _calm(self):
        """The oracle: the same requests, nothing goes wrong."""
        self.clock.log("calm run")
        self.expected, gaps = self._answers(self.spec.load)
        self.probe, _ = self._answers(PROBE)
        self.calm_p99 = quantile(gaps, 0.99)
        if any(expect.kind in language.PACED for expect in self.spec.expects):
            progress, span = loads.Progress(), min(self.spec.load.span, CALM_SPAN_MAX_S)
            loads.run(self.spec.load, self.cell.gateways(), progress, span=span)
            self.calm_pace = loads.Pace(progress.timeline, span)
        if busy := leaks.rest(self.cell):
            raise Failed("after the calm run: " + "; ".join(busy))
        self.whole = self.before = leaks.held(self.cell)

    def _answers(self, load) -> tuple[dict[int, str], list[float]]:
        outcomes = loads.run(load, self.cell.gateways(), loads.Progress(), span=0)
        for one in outcomes:
            if one.error:
                raise Failed(f"without a fault stream {one.stream} fails: {one.error}: {one.detail}")
        return {o.stream: o.answer for o in outcomes}, [g for o in outcomes for g in o.gaps]

    def _trial(self, number: int):
        if self.spec.sweep:
            value = self.spec.sweep[number % len(self.spec.sweep)]
            self.spec = language.parse(self.path, value)
            self.clock.log(f"trial {number}: {self.spec.sweep_name} = {value}")
        else:
            self.clock.log(f"trial {number}")
        actions = Actions(self.spec, self.cell, number, self.options.strict)
        self.cell.wait_whole()
        self.before = leaks.since(leaks.held_when_whole(self.cell, self.whole), self.before)
        counters = expectations.Counters(self.spec, self.cell)
        progress = loads.Progress()
        try:
            actions.before()
            actions.begin(progress)
            outcomes = loads.run(self.spec.load, self.cell.gateways(), progress)
            self.clock.log("the load is over")
            self._log_worst_gap(outcomes)
        finally:
            actions.calm()
        self.cell.wait_whole()
        run = expectations.Run(self.spec, self.cell, outcomes, self.expected, self.calm_p99,
                               counters, self.options.strict,
                               loads.Pace(progress.timeline, self.spec.load.span), self.calm_pace,
                               actions.last)
        complaints = actions.failures + run.complaints()
        late = [f"trial {number}: {what}" for what in run.late()]
        if self.options.strict:
            self.late += late  # all trials are measured before their times are judged
        else:
            complaints += late
        complaints += self._still_serves() + leaks.left(self.cell, self.before)
        self.stalls.append(run.stall_max)
        self.steps.append(run.gap_p99 / self.calm_p99)
        self.recoveries.append(run.recovery)
        self.paces.append((run.goodput, run.dip))
        self.failed += len(run.failed)
        self.completed += len(run.completed)
        if complaints:
            raise Failed(f"trial {number}:\n  " + "\n  ".join(complaints))

    def _log_worst_gap(self, outcomes):
        worst = max((o for o in outcomes if o.gaps), key=lambda o: max(o.gaps), default=None)
        if worst is not None:
            gap, end = max(worst.gaps), worst.worst_end - self.clock.start
            self.clock.log(f"worst gap {gap * 1e3:.0f} ms, from {end - gap:.3f} to {end:.3f}")

    def _still_serves(self) -> list[str]:
        """Nobody has fallen silent: every expert worker is given rows again, and they are right."""
        before = {n: self.cell.series(n, "bottega_expert_rows_total") for n in self.cell.alive("ew")}
        deadline = time.monotonic() + SHARE_LIMIT_S
        while True:
            outcomes = loads.run(PROBE, self.cell.gateways(), loads.Progress(), span=0)
            if wrong := [f"afterwards stream {o.stream}: {o.error or 'other bytes'} {o.detail}"
                         for o in outcomes if o.error or o.answer != self.probe[o.stream]]:
                return wrong
            silent = [name for name, rows in before.items()
                      if self.cell.series(name, "bottega_expert_rows_total") <= rows]
            if not silent:
                return []
            if time.monotonic() > deadline:
                return [f"{name} is not given rows any more" for name in silent]

    def _line(self) -> str:
        stalls = [s * 1e3 for s in self.stalls]
        return (f"{' '.join(self.spec.ids):10} {self.spec.name:28} trials {len(stalls):3}  answers "
                f"{self.completed:5}  failed {self.failed:3}  stall p50 "
                f"{statistics.median(stalls):6.0f} p99 {quantile(stalls, .99):6.0f} max "
                f"{max(stalls):6.0f} ms  (calm p99 {self.calm_p99 * 1e3:.0f} ms, in trials "
                f"{statistics.median(self.steps):.2f} times)" + self._pace())

    def _pace(self) -> str:
        if self.calm_pace is None:
            return ""
        goodputs, dips = zip(*self.paces)
        calm_dip = 1 - self.calm_pace.least / self.calm_pace.mean
        return (f"  goodput p50 {statistics.median(goodputs):.0%} least {min(goodputs):.0%}, worst "
                f"second's dip p50 {statistics.median(dips):.0%} max {max(dips):.0%} (calm {calm_dip:.0%}), "
                f"back after p50 {statistics.median(self.recoveries):.1f} max {max(self.recoveries):.1f} s")

    def history(self) -> str:
        """For a failure: what happened when, and the last words of everybody."""
        return "\n    ".join(["events (seconds since the start):", *self.clock.events,
                             *self.last_lines])

    def _last_lines(self) -> list[str]:
        text = []
        for name, process in self.cell.processes.items():
            text += [f"last lines of {name}:", *list(process.lines)[-self.options.lines:]]
        return text


def run_file(path: pathlib.Path, options) -> str:
    """"ok", "failed" or "skipped"; prints the line."""
    try:
        runner = Runner(path, options)
    except language.ScenarioError as error:
        print(error, flush=True)
        return "failed"
    verbs = {action.verb for event in runner.spec.events for action in event.actions}
    if "starve" in verbs and (reason := memory_limit.lacking()):
        print(f"{' '.join(runner.spec.ids):10} {path.stem}: skipped: {reason}", flush=True)
        return "skipped"
    if runner.spec.cell.network == "namespaces" and not network.inside():
        if reason := network.lacking():
            print(f"{' '.join(runner.spec.ids):10} {path.stem}: skipped: {reason}", flush=True)
            return "skipped"
        return "ok" if network.enter(again(path, options)) == 0 else "failed"
    begin = time.monotonic()
    try:
        print(f"{runner.run()}  {time.monotonic() - begin:.0f} s", flush=True)
        if options.verbose:
            print(runner.history(), flush=True)
        return "ok"
    except Exception as error:  # noqa: BLE001  (whatever it was, the history says more)
        what = str(error) if isinstance(error, (Failed, TimeoutError)) else traceback.format_exc()
        print(f"{' '.join(runner.spec.ids)} {path}: FAILED: {what}\n    {runner.history()}",
              flush=True)
        return "failed"


def again(path: pathlib.Path, options) -> list[str]:
    """This program's arguments for one file."""
    flags = [flag for flag in ("strict", "verbose") if getattr(options, flag)]
    return [__file__, f"--trials={options.trials}", f"--lines={options.lines}",
            *(f"--{flag}" for flag in flags), str(path)]


def check(files: list[pathlib.Path]) -> int:
    """Parses only: every file, with every value of its sweep."""
    wrong = 0
    for path in files:
        try:
            for value in language.parse(path).sweep:
                language.parse(path, value)
        except language.ScenarioError as error:
            print(error)
            wrong += 1
    return min(wrong, 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    parser.add_argument("--trials", type=int, default=1)
    parser.add_argument("--strict", action="store_true", help="times decide too (idle host)")
    parser.add_argument("--verbose", action="store_true", help="the log of events in any case")
    parser.add_argument("--lines", type=int, default=15, help="last lines of a process shown")
    parser.add_argument("--check", action="store_true", help="parse only")
    options = parser.parse_args()
    if options.check:
        return check(options.files)
    results = [run_file(path, options) for path in options.files]
    if len(results) > 1:
        print(f"{len(results)} files: " + ", ".join(f"{results.count(kind)} {kind}"
                                                    for kind in sorted(set(results))), flush=True)
    if "failed" in results:
        return 1
    return SKIPPED if all(r == "skipped" for r in results) else 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    sys.exit(main())
