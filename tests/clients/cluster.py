"""Starts `bottega serve` or `bottega up` on free ports, reads what it prints, ends it by pid."""
import contextlib
import json
import os
import pathlib
import queue
import random
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("BOTTEGA_BIN", ROOT / "build/release/bin"))
TINY = pathlib.Path(os.environ.get("BOTTEGA_MODEL", ROOT / "tests/fixtures/bottega-tiny"))
START_LIMIT_S = 120  # a hang limit, not a measurement


def free_ports(count: int) -> list[int]:
    """All different, nobody listens there now, and below those that the kernel gives to outgoing
    connections: a process that is restarted must find its own free."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as limits:
        top = int(limits.read().split()[0])
    chooser, held = random.Random(), []
    while len(held) < count:
        one = socket.socket()
        try:
            one.bind(("127.0.0.1", chooser.randrange(10000, max(top, 20000))))
            held.append(one)
        except OSError:
            one.close()
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def scrape(address: str) -> dict[str, float]:
    """Sum of each series by `name{labels}` of a process' /metrics."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    series = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            series[name] = series.get(name, 0) + float(value)
    return series


def total(address: str, prefix: str) -> float:
    """Sum over the series that begin with `prefix`."""
    return sum(value for key, value in scrape(address).items() if key.startswith(prefix))


def is_ready(address: str) -> bool:
    """/ready of an admin port answers 200."""
    try:
        with urllib.request.urlopen(f"http://{address}/ready", timeout=5) as answer:
            return answer.status == 200
    except OSError:  # HTTPError is one
        return False


class Cluster:
    """A running `bottega ...`; `lines` is what it has printed so far (stdout)."""

    def __init__(self, *arguments: str, environment: dict[str, str] | None = None):
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._events: queue.Queue[str | None] = queue.Queue()
        self.process = subprocess.Popen(
            [str(BIN / "bottega"), *map(str, arguments)], text=True,
            env=os.environ | (environment or {}),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._readers = [threading.Thread(target=self._read, args=pair, daemon=True)
                         for pair in ((self.process.stdout, self.lines),
                                      (self.process.stderr, self.errors))]
        for reader in self._readers:
            reader.start()

    def _read(self, stream, lines):
        with stream:
            for line in stream:
                lines.append(line.rstrip("\n"))
                if lines is self.lines:
                    self._events.put(line)
        if lines is self.lines:
            self._events.put(None)

    def wait_ready(self) -> "Cluster":
        deadline = time.monotonic() + START_LIMIT_S
        while not self.find(r"^ready +(\S+)"):
            left = deadline - time.monotonic()
            try:
                line = self._events.get(timeout=max(left, 0.01))
            except queue.Empty:
                line = None
            if line is None and not self.find(r"^ready +(\S+)"):
                raise RuntimeError("not ready:\n" + "\n".join(self.lines + self.errors[-40:]))
        return self

    def find(self, pattern: str):
        for line in self.lines:
            if match := re.match(pattern, line):
                return match
        return None

    @property
    def url(self) -> str:
        return self.find(r"^ready +(\S+)").group(1)

    @property
    def admin(self) -> str:
        """host:port of `bottega serve`'s metrics; each process of `up` has its own."""
        return self.find(r"^admin +(\S+)").group(1)

    @property
    def routers(self) -> str:
        """host:port of each router, by commas."""
        return self.find(r"^router +(\S+:\d+\S*)").group(1)

    def members(self) -> dict[str, tuple[int, str]]:
        """name -> (pid, admin host:port), the latest start of each."""
        found = {}
        for line in self.lines:
            if match := re.match(r"^started +(\S+) +pid +(\d+) +admin +(\S+)", line):
                found[match[1]] = (int(match[2]), match[3])
        return found

    def metrics(self, address: str) -> dict[str, float]:
        return scrape(address)

    def series(self, address: str, prefix: str) -> dict[str, float]:
        """The series that begin with `prefix`."""
        return {key: value for key, value in self.metrics(address).items()
                if key.startswith(prefix)}

    def transports(self, address: str) -> set[str]:
        """Over which transports a worker's frames have come in so far."""
        received = self.series(address, 'bottega_exchange_bytes_total{direction="received"')
        return {re.search(r'transport="(\w+)"', key)[1] for key, value in received.items() if value > 0}

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            for reader in self._readers:
                reader.join(timeout=10)


@contextlib.contextmanager
def running(*arguments: str, environment: dict[str, str] | None = None):
    cluster = Cluster(*arguments, environment=environment)
    try:
        yield cluster.wait_ready()
    finally:
        cluster.stop()


def post(url: str, path: str, body: dict, timeout: float = 300):
    request = urllib.request.Request(url + path, json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.load(answer)
