"""The processes of one cell, started by hand and kept running: start, signal, ask, end by pid."""
import collections
import os
import pathlib
import selectors
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "clients"))
import cluster  # noqa: E402  (tests/clients/cluster.py)

from scenario import Scenario  # noqa: E402

START_LIMIT_S = 120  # hang limits, not measurements
WHOLE_LIMIT_S = 60
END_LIMIT_S = 5
END_SIGNALS = (signal.SIGTERM, signal.SIGINT)  # two of a kind would be one while pending
BACKOFF_S = 0.1  # before the dead come back; `bottega up` has the same
LINES_KEPT = 400
PROGRAMS = {"gw": "bottega-gateway", "router": "bottega-router", "aw": "bottega-attention",
            "ew": "bottega-expert"}


def role_of(name: str) -> str:
    return name.rstrip("0123456789")


class Clock:
    """Seconds since the start, for the log of events."""

    def __init__(self):
        self.start = time.monotonic()
        self.events: list[str] = []

    def log(self, what: str):
        self.events.append(f"{time.monotonic() - self.start:9.3f}  {what}")


class Process:
    """One name of the cell; `child` is its present life."""

    def __init__(self, name: str, arguments: list[str], admin: str):
        self.name, self.arguments, self.admin = name, arguments, admin
        self.child: subprocess.Popen | None = None
        self.lives = 0
        self.wanted = True  # comes back when it dies
        self.faults = ""  # what its next lives begin with
        self.deaths: list[int] = []  # return codes; -9 is SIGKILL
        self.lines: collections.deque[str] = collections.deque(maxlen=LINES_KEPT)

    @property
    def role(self) -> str:
        return role_of(self.name)

    @property
    def pid(self) -> int:
        return self.child.pid if self.child else 0

    def read(self, stream):
        with stream:
            for line in stream:
                self.lines.append(line.rstrip("\n"))


class Host:
    """Everybody on loopback; network.Namespaces is the other place to be."""
    exchange: list[str] = []
    transport = "shm"
    environment = {"UCX_TLS": "posix,self"}

    def __init__(self, names: list[str]):
        ports = cluster.free_ports(2 * len(names))
        self._ports = {name: (ports[2 * i], ports[2 * i + 1]) for i, name in enumerate(names)}

    def address(self, name: str) -> str:
        return "127.0.0.1"

    def port(self, name: str) -> int:
        return self._ports[name][0]

    def admin(self, name: str) -> str:
        return f"127.0.0.1:{self._ports[name][1]}"

    def command(self, name: str, arguments: list[str]) -> list[str]:
        return arguments

    def close(self):
        pass


class Cell:
    def __init__(self, scenario: Scenario, place, clock: Clock):
        self.spec, self.place, self.clock = scenario.cell, place, clock
        self.processes = {name: Process(name, self._arguments(name, scenario), place.admin(name))
                          for name in scenario.cell.names()}
        # One thread starts every child: --die-with-parent is about the thread that forked.
        self._orders: collections.deque[str | None] = collections.deque()
        self._wake_read, self._wake_write = os.pipe()
        self._changed = threading.Condition()
        self._ending = False
        self._clock_file = None
        self._environment = dict(os.environ) | place.environment
        if self.spec.clock == "loose":
            self._clock_file = tempfile.NamedTemporaryFile()
            self.move_clock(0)
            self._environment |= {"LOOSE_CLOCK": self._clock_file.name,
                                  "LD_PRELOAD": str(cluster.BIN.parent / "tests/libloose_clock.so")}
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def _arguments(self, name: str, scenario: Scenario) -> list[str]:
        role, place = role_of(name), self.place
        arguments = [str(cluster.BIN / PROGRAMS[role]), "--name", name, "--die-with-parent",
                     "--host", place.address(name), "--port", str(place.port(name)),
                     "--admin-port", place.admin(name).rsplit(":", 1)[1]]
        if role == "router":
            arguments += ["--replication", str(self.spec.replicas)]
        else:
            arguments += ["--model", str(cluster.TINY), "--router",
                          f"{place.address('router')}:{place.port('router')}"]
        if role in ("aw", "ew"):
            arguments += ["--threads", "1", *place.exchange]
        if role == "aw" and self.spec.kv:
            arguments += ["--kv-cache", self.spec.kv]
        for who, flags in scenario.flags:
            if who in (name, role) or (who == "worker" and role in ("aw", "ew")):
                arguments += flags
        return place.command(name, arguments)

    # Life.

    def start(self) -> "Cell":
        self._keeper.start()
        for name in self.processes:
            self.launch(name)
        self.wait_whole(START_LIMIT_S)
        return self

    def move_clock(self, seconds: int):
        """The wall clock of every process is off by so much from now on."""
        self._clock_file.seek(0)
        self._clock_file.write(struct.pack("=q", seconds))
        self._clock_file.flush()

    def launch(self, name: str):
        self.processes[name].wanted = True
        self._order(name)

    def _order(self, name: str | None):
        self._orders.append(name)
        os.write(self._wake_write, b"x")

    def _keep(self):
        """Starts who is ordered, notices who died, and (restart=yes) brings them back."""
        selector = selectors.DefaultSelector()
        selector.register(self._wake_read, selectors.EVENT_READ, None)
        back: list[tuple[float, str]] = []
        while not self._ending or any(p.child for p in self.processes.values()):
            wait = min((at for at, _ in back), default=None)
            ready = selector.select(None if wait is None else max(0, wait - time.monotonic()))
            for key, _ in ready:
                if key.data is None:
                    os.read(self._wake_read, 64)
                else:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    back += self._buried(key.data)
            due = [name for at, name in back if at <= time.monotonic()]
            back = [(at, name) for at, name in back if name not in due]
            while self._orders:
                due.append(self._orders.popleft())
            for name in filter(None, due):
                if not self._ending and self.processes[name].child is None:
                    selector.register(self._launch(name), selectors.EVENT_READ, name)
        selector.close()

    def _launch(self, name: str) -> int:
        process = self.processes[name]
        faults = ["--faults", process.faults] if process.faults else []
        child = subprocess.Popen(process.arguments + faults, env=self._environment,
                                 stdin=subprocess.DEVNULL, text=True,
                                 errors="replace", stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, start_new_session=True)
        threading.Thread(target=process.read, args=(child.stdout,), daemon=True).start()
        with self._changed:
            process.child = child
            process.lives += 1
            self._changed.notify_all()
        self.clock.log(f"{name} started, pid {child.pid}")
        return os.pidfd_open(child.pid)

    def _buried(self, name: str) -> list[tuple[float, str]]:
        process = self.processes[name]
        code = process.child.wait()
        with self._changed:
            process.child = None
            process.deaths.append(code)
            self._changed.notify_all()
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        self.clock.log(f"{name} ended {how}")
        if self.spec.restart and process.wanted and not self._ending:
            return [(time.monotonic() + BACKOFF_S, name)]
        return []

    def wait_down(self, name: str, limit_s: float, lives: int | None = None) -> bool:
        """Until the present life of `name` (or its `lives`-th) has ended."""
        process = self.processes[name]
        lives = process.lives if lives is None else lives
        with self._changed:
            return self._changed.wait_for(
                lambda: len(process.deaths) >= lives or process.child is None, limit_s)

    def signal(self, name: str, number: int):
        process = self.processes[name]
        if not self.spec.restart and number == signal.SIGKILL:
            process.wanted = False
        if process.child:
            process.child.send_signal(number)

    def end(self) -> list[str]:
        """Everybody: told twice, which ends a process at once, then killed. Who crashed at it."""
        self._ending = True
        ended = [len(p.deaths) for p in self.processes.values()]
        for number in (signal.SIGCONT, *END_SIGNALS, signal.SIGKILL):
            if number == signal.SIGKILL:
                self._wait_all_down(END_LIMIT_S)
            for process in self.processes.values():
                if child := process.child:
                    child.send_signal(number)
        self._wait_all_down(END_LIMIT_S)
        self._order(None)
        self._keeper.join()
        os.close(self._wake_read)
        os.close(self._wake_write)
        return [f"{name} did not end well: {process.deaths[-1]}"
                for lives, (name, process) in zip(ended, self.processes.items())
                if len(process.deaths) > lives and
                process.deaths[-1] not in (0, *(-n for n in END_SIGNALS))]

    def _wait_all_down(self, limit_s: float):
        with self._changed:
            self._changed.wait_for(lambda: not any(p.child for p in self.processes.values()),
                                   limit_s)

    # Questions.

    def alive(self, role: str = "") -> list[str]:
        return [name for name, p in self.processes.items()
                if p.child and (not role or p.role == role or
                                (role == "worker" and p.role in ("aw", "ew")))]

    def ports(self) -> set[int]:
        """Everything that is known to listen; what else is connected are data links."""
        return {port for n, p in self.processes.items()
                for port in (self.place.port(n), int(p.admin.rsplit(":", 1)[1]))}

    def gateways(self) -> list[str]:
        return [f"{self.place.address(n)}:{self.place.port(n)}"
                for n in self.processes if role_of(n) == "gw"]

    def series(self, name: str, metric: str) -> float:
        """Sum over the series of one process that begin with `metric`; 0 if it does not answer."""
        try:
            return cluster.total(self.processes[name].admin, metric)
        except OSError:
            return 0.0

    def not_whole(self) -> str:
        """Why rows cannot yet reach every replica; "" if they can."""
        if missing := [n for n, p in self.processes.items() if p.wanted and not p.child]:
            return f"{missing[0]} does not run"
        workers = self.alive("ew")
        for name in self.alive():
            if not cluster.is_ready(self.processes[name].admin):
                return f"{name} is not ready"
        replicas = self.series("router", "bottega_router_expert_replicas_min")
        if replicas < min(self.spec.replicas, len(workers)):
            return f"an expert has {replicas:.0f} replicas"
        for prefix, role in (("ew", "expert"), ("aw", "attention")):
            active = self.series("router",
                                 f'bottega_router_members{{role="{role}",state="active"}}')
            if active != len(self.alive(prefix)):
                return f"{active:.0f} of {len(self.alive(prefix))} {role} workers are active"
        for name in self.alive("aw"):
            links = self.series(name, f'bottega_exchange_endpoints{{state="up",transport="{self.place.transport}"}}')
            if links != len(workers):
                return f"{name} has {links:.0f} of {len(workers)} links over {self.place.transport}"
        return ""

    def wait_whole(self, limit_s: float = WHOLE_LIMIT_S):
        deadline = time.monotonic() + limit_s
        while why := self.not_whole():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the cell is not whole after {limit_s:.0f} s: {why}")
            time.sleep(0.05)  # each look asks every process
