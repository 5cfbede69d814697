"""What the events of a scenario do to a cell."""
import contextlib
import http.client
import os
import random
import resource
import signal
import socket
import threading
import time
import urllib.parse

from cell import Cell, role_of
import memory_limit  # tests/clients, as cell has it on the path
import network
from load import Progress
from raw_http import completion  # likewise
from scenario import Action, Event, Scenario, seconds

WAIT_LIMIT_S = 60  # hang limits, not measurements
SLOW_PERIOD_S = 0.01
NO_MEMORY = 4096  # bytes: a process ends at its next allocation
TIME_FACTOR = 20  # in the suite a time fails only past so many times its target


class Actions:
    """Runs the events of one trial; `failures` is what went wrong in them."""

    def __init__(self, scenario: Scenario, cell: Cell, seed: int, strict: bool):
        self.scenario, self.cell, self.network = scenario, cell, cell.place
        self.chooser = random.Random(seed)
        self.factor = 1 if strict else TIME_FACTOR
        self.failures: list[str] = []
        self.last = time.monotonic()  # when the last action was done
        self._undo: list = []  # what calm() ends; each returns why it had been no fault, if so
        self._checks: list = []  # of faults that left nothing to end: the same
        self._threads: list[threading.Thread] = []
        self._over = threading.Event()

    # Triggers.

    def before(self):
        for event in self.scenario.events:
            if event.trigger == "before":
                self._chain(event)

    def begin(self, progress: Progress):
        self._start = time.monotonic()
        for event in self.scenario.events:
            if event.trigger != "before":
                thread = threading.Thread(target=self._run, args=(event, progress), daemon=True)
                thread.start()
                self._threads.append(thread)

    def join(self):
        """The load is over: `every` ends, chains that have begun are brought to their end."""
        for thread in self._threads:
            thread.join()
        self._over.set()

    def calm(self):
        """Everything that an event left wrong is put right: the run's second phase."""
        self.join()
        for check in self._checks:
            self._complain(check())
        for undo in reversed(self._undo):
            self._complain(undo())
        self._undo.clear()
        for name, process in self.cell.processes.items():
            if process.child is None and not process.wanted:
                self.cell.launch(name)

    def _complain(self, why: str | None):
        if why:
            self.failures.append(why)

    def _run(self, event: Event, progress: Progress):
        if event.trigger == "token":
            if progress.wait_token(int(event.value)):
                self._chain(event)
            else:
                self.failures.append(f"no stream came to token {event.value:g}")
        elif event.trigger == "time":
            progress.wait_end(self._start + event.value - time.monotonic())
            if progress.over:
                self.failures.append(f"the load was over before {event.value:g} s")
            else:
                self._chain(event)
        else:
            turn = 1
            while not progress.wait_end(self._start + turn * event.value - time.monotonic()):
                self._chain(event)
                turn += 1

    def _chain(self, event: Event):
        for action in event.actions:
            try:
                self._do(action)
            except (OSError, ValueError, TimeoutError) as error:
                self.failures.append(f"line {action.line}: {action.verb} {' '.join(action.words)}: "
                                     f"{error}")
                return

    def _do(self, action: Action):
        if action.verb != "sleep":
            self.cell.clock.log(f"event: {action.verb} {' '.join(action.words)}")
        getattr(self, f"do_{action.verb}")(*action.words)
        self.last = time.monotonic()

    def _who(self, words) -> tuple[list[str], list[str]]:
        """The names that `[any|busy|all] WHO` means now, and the words after it."""
        if words[0] not in ("any", "busy", "all"):
            return [words[0]], list(words[1:])
        pool = self.cell.alive(words[1])
        if words[0] == "busy":
            pool = [n for n in pool
                    if self.cell.series(n, "bottega_attention_requests_running") > 0]
        if not pool:
            raise ValueError(f"there is no {' '.join(words[:2])}")
        return pool if words[0] == "all" else [self.chooser.choice(pool)], list(words[2:])

    def _group(self, words: str, other: str = "") -> list[str]:
        if words == "rest":
            return [n for n in self.cell.processes if n not in other.split(",")]
        return [n for one in words.split(",") for n in self.cell.processes
                if one in (n, role_of(n)) or (one == "worker" and role_of(n) in ("aw", "ew"))]

    # Processes.

    def do_sleep(self, duration):
        time.sleep(float(duration))

    def do_kill(self, *words):
        number = signal.SIGKILL
        if words[0].startswith("-"):
            text = words[0][1:]
            number = int(text) if text.isdigit() else getattr(signal, f"SIG{text}")
            words = words[1:]
        for name in self._who(words)[0]:
            self.cell.clock.log(f"signal {number:d} to {name}")
            self.cell.signal(name, number)

    def do_stop(self, *words):
        names, rest = self._who(words)
        for name in names:
            self.cell.clock.log(f"signal 19 to {name}")
            self.cell.signal(name, signal.SIGSTOP)
            self._undo.append(lambda name=name: self.cell.signal(name, signal.SIGCONT))
        if rest:
            time.sleep(seconds(rest[1]))
            for name in names:
                self.do_cont(name)

    def do_cont(self, *words):
        for name in self._who(words)[0]:
            self.cell.signal(name, signal.SIGCONT)

    def do_restart(self, name):
        self.cell.launch(name)

    def do_wait(self, what, *words):
        words = list(words)
        limit, target = WAIT_LIMIT_S, None
        if "within" in words:
            target = seconds(words[-1])
            limit = min(limit, self.factor * target)
            words = words[:-2]
        begin = time.monotonic()
        if what == "ready" and not words:
            self.cell.wait_whole(limit)
        elif what == "ready":
            self._wait_ready(words[0], limit)
        elif what == "down":
            for name in self._who(words)[0]:
                if not self.cell.wait_down(name, limit):
                    raise TimeoutError(f"{name} still runs after {limit:.1f} s")
        else:
            raise ValueError("wait ready or wait down")
        self.cell.clock.log(f"waited {time.monotonic() - begin:.3f} s")

    def _wait_ready(self, name: str, limit: float):
        import cluster
        deadline = time.monotonic() + limit
        while not cluster.is_ready(self.cell.processes[name].admin):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} is not ready after {limit:.1f} s")
            time.sleep(0.02)

    def do_arm(self, name, plan, always=None):
        armed = {one: self.cell.processes[one].lives for one in self._group(name)}
        for one in armed:
            process = self.cell.processes[one]
            process.faults = plan if always else ""  # it may be back before arm() is
            arm(process.admin, plan)
        self._checks.append(lambda: self._unmet(armed, plan))

        def disarm():
            for one, lives in armed.items():
                process = self.cell.processes[one]
                process.faults = ""
                if process.child and (always or process.lives == lives):
                    with contextlib.suppress(ConnectionError):  # it ends by the fault just now
                        for part in plan.split(","):
                            _admin(process.admin, "DELETE", "/faults?" + part.split("=")[0])
        self._undo.append(disarm)

    def _unmet(self, armed: dict[str, int], plan: str) -> str:
        """Why the armed plan was no fault: no armed process has come to it, nor died since."""
        for one, lives in armed.items():
            process = self.cell.processes[one]
            if process.lives != lives or not process.child:
                return ""
            if any(hits(process.admin, part.split("=")[0]) for part in plan.split(",")):
                return ""
        return f"nobody came to {plan}"

    def do_starve(self, name):
        starved = memory_limit.MemoryLimit(self.cell.processes[name].pid, NO_MEMORY)
        self._undo.append(starved.end)

    def do_clock(self, offset):
        self.cell.move_clock(int(offset))
        self._undo.append(lambda: self.cell.move_clock(0))

    def do_limit(self, name, what, number):
        pid = self.cell.processes[name].pid
        old = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (int(number), old[1]))

        def back():
            if self.cell.processes[name].pid == pid:
                resource.prlimit(pid, resource.RLIMIT_NOFILE, old)
        self._undo.append(back)

    def do_slow(self, name, percent, *rest):
        """Stopped most of the time: portable, where a cgroup's quota is not always to be had."""
        share = float(percent.rstrip("%")) / 100
        pid = self.cell.processes[name].pid
        ended = threading.Event()

        def turn():
            while not ended.is_set():
                for number, pause in ((signal.SIGSTOP, 1 - share), (signal.SIGCONT, share)):
                    try:
                        os.kill(pid, number)
                    except ProcessLookupError:
                        return
                    time.sleep(SLOW_PERIOD_S * pause)
        thread = threading.Thread(target=turn, daemon=True)
        thread.start()

        def back():
            ended.set()
            thread.join()
        if rest:
            time.sleep(seconds(rest[1]))
            back()
        else:
            self._undo.append(back)

    def do_crowd(self, name, count, *rest):
        """So many idle connections to the port of `name`."""
        address = (self.network.address(name), self.network.port(name))
        held = []
        for _ in range(int(count)):
            try:
                held.append(socket.create_connection(address, timeout=2))
            except OSError:
                break  # its queue is full: as meant

        def back():
            for one in held:
                one.close()
        if rest:
            time.sleep(seconds(rest[1]))
            back()
        else:
            self._undo.append(back)

    # The network; only in namespaces.

    def do_cut(self, left, *right):
        self.network.drop(self._group(left), self._group(right[-1], left), right[0] == "->")
        self._undo.append(self.network.heal)

    def do_reject(self, left, right):
        self.network.reject(self._group(left), self._group(right, left))
        self._undo.append(self.network.heal)

    def do_lose(self, percent, left, right):
        self.network.lose(self._group(left), self._group(right, left),
                          float(percent.rstrip("%")))
        self._undo.append(self.network.heal)

    def do_heal(self):
        self._complain(self.network.heal())

    def do_proxy(self, name, *faults):
        self._complain(self.network.proxy(name, list(faults)))
        self._undo.append(lambda: self.network.proxy(name, []))

    def do_vanish(self, name, count):
        """So many clients begin long streams of `name` and are cut off without a word."""
        request = completion({"model": "bottega-tiny", "prompt": "Once", "max_tokens": 4000, "n": 4,
                              "ignore_eos": True, "stream": True, "logprobs": 5})
        address = (self.network.address(name), self.network.port(name))
        clients = []
        for _ in range(int(count)):
            one = socket.create_connection(address, timeout=WAIT_LIMIT_S,
                                           source_address=(network.VANISHING, 0))
            self._undo.append(one.close)
            one.sendall(request)
            clients.append(one)
        for one in clients:
            one.recv(1)
        self.network.drop_vanishing(name)
        self._undo.append(self.network.heal)

    def do_shape(self, name, rate):
        self.network.shape(name, rate)
        self._undo.append(lambda: self.network.shape(name, ""))


def _admin(address: str, method: str, target: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request(method, target)
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    finally:
        connection.close()


def arm(admin: str, plan: str):
    """Arms fault points of a live process; ValueError says what it did not understand."""
    try:
        status, text = _admin(admin, "POST", "/faults?" + urllib.parse.quote(plan, safe="=,:@/+."))
    except (http.client.RemoteDisconnected, ConnectionResetError):
        if any(end in plan for end in ("=crash", "=abort", "=exit")):
            return  # its step came before its answer
        raise
    if status != 200:
        raise ValueError(f"/faults answers {status}: {text.strip()}")


def hits(admin: str, point: str) -> int:
    """How often a living process has passed an armed point."""
    status, text = _admin(admin, "GET", "/faults")
    if status != 200:
        return 0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.split()[0] == point)
