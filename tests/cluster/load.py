"""Streams of completions whose answers are compared byte for byte, and how long each one stalled.

A process of its own reads all sockets and only notes bytes and times; what they mean is found out
when the load is over. So a gap is the cluster's and not the runner's, which starts processes and asks
for metrics meanwhile.
"""
import collections
import dataclasses
import json
import math
import pathlib
import pickle
import random
import selectors
import socket
import subprocess
import sys
import threading
import time

from scenario import Load

WORDS = ("casa numero barca rossa seven twelve the of dove quanto fa plus minus sette mare "
         "question answer Roma Torino city water small grande treno blue").split()
MARK = "\u00a7"  # its last byte is a token of its own, which nothing else here contains
BUCKET_S = 0.1
SILENCE_LIMIT_S = 120  # a hang limit, not a measurement
RETRY_PAUSE_S = 0.1  # as a client's library would


@dataclasses.dataclass
class Outcome:
    """One request: its whole answer, or why there is none; gaps between its events in seconds."""
    stream: int
    answer: str = ""
    error: str = ""  # "" if it completed; else the error's code, or what the connection did
    detail: str = ""
    gaps: list[float] = dataclasses.field(default_factory=list)
    tokens: int = 0
    worst_end: float = 0  # of the longest gap, on time.monotonic()


class Pace:
    """How fast tokens came while a load with `for=` lasted, from its timeline: events in each
    BUCKET_S. Its first and last half second, when streams begin and end, do not count."""
    WINDOW = round(1 / BUCKET_S)  # buckets in a second
    EDGE = round(0.5 / BUCKET_S)
    BACK = 0.9  # of the calm pace is normal again: single seconds of a calm run differ by more

    def __init__(self, timeline: collections.Counter[int], span: float):
        first = min(timeline, default=0)
        buckets = range(first + self.EDGE, first + round(span / BUCKET_S) - self.EDGE)
        counts = [timeline[bucket] for bucket in buckets]
        self.mean = sum(counts) / max(1, len(counts)) / BUCKET_S  # events a second
        self.least = min((sum(counts[i:i + self.WINDOW])
                          for i in range(len(counts) - self.WINDOW + 1)), default=0)
        self.timeline, self.end = timeline, buckets.stop

    def back(self, since: float, mean: float) -> float:
        """Seconds from `since` (time.monotonic()) to the first second whose tokens are BACK of what
        `mean` is; inf if the load ended before."""
        first = int(since / BUCKET_S) + 1
        for begin in range(first, self.end - self.WINDOW + 1):
            if sum(self.timeline[i] for i in range(begin, begin + self.WINDOW)) >= self.BACK * mean:
                return max(0.0, begin * BUCKET_S - since)
        return math.inf


def body_of(load: Load, stream: int) -> dict:
    chooser = random.Random(f"{load.seed}/{stream}")
    words = [chooser.choice(WORDS) for _ in range(load.prompt + stream % 5)]
    mark = MARK if stream == load.marked else ""
    return {"model": "bottega-tiny", "prompt": f"{mark}{stream}: " + " ".join(words),
            "max_tokens": load.tokens, "ignore_eos": True, "logprobs": 2, "stream": True,
            "return_token_ids": True, "seed": load.seed * 1000 + stream,
            "temperature": 0 if stream % 2 == 0 else 0.8}


class Progress:
    """How far the fastest stream is, in events of its answer; events of the scenario wait for it."""

    def __init__(self):
        self._changed = threading.Condition()
        self.most = 0
        self.over = False
        self.timeline: collections.Counter[int] = collections.Counter()  # at the end: see Pace

    def reach(self, tokens: int):
        if tokens <= self.most:
            return
        with self._changed:
            self.most = max(self.most, tokens)
            self._changed.notify_all()

    def end(self):
        with self._changed:
            self.over = True
            self._changed.notify_all()

    def wait_token(self, tokens: int) -> bool:
        """False if the load ended before."""
        with self._changed:
            self._changed.wait_for(lambda: self.over or self.most >= tokens)
            return self.most >= tokens

    def wait_end(self, limit_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.over, max(0, limit_s))


class Answer:
    """What may not depend on how a request went. How tokens fall into events may."""

    def __init__(self):
        self.text, self.ids, self.logprobs, self.top = "", [], [], []
        self.finish = None

    def add(self, choice: dict) -> int:
        self.text += choice.get("text") or ""
        ids = choice.get("token_ids") or []
        self.ids += ids
        if logprobs := choice.get("logprobs"):
            self.logprobs += logprobs["token_logprobs"]  # floats that read back as they were sent
            self.top += logprobs.get("top_logprobs") or []
        self.finish = choice.get("finish_reason") or self.finish
        return len(ids)

    def whole(self) -> str:
        return json.dumps([self.text, self.ids, self.logprobs, self.top, self.finish])


def _refusal(status: int, text: str) -> tuple[str, str]:
    try:
        error = json.loads(text)["error"]
        return error.get("code") or error.get("type") or str(status), error.get("message", "")
    except (ValueError, KeyError, TypeError):
        return f"http_{status}", text[:200]


def _body(head: bytes, rest: bytes) -> bytes:
    """The body without its chunk sizes; of a body that was cut, what there is."""
    if b"chunked" not in head.lower():
        return rest
    body, at = b"", 0
    while (end := rest.find(b"\r\n", at)) >= 0:
        size = int(rest[at:end].split(b";")[0] or b"0", 16)
        if size == 0:
            break
        body += rest[end + 2:end + 2 + size]
        at = end + 2 + size + 2
    return body


def outcome_of(connection: "_Connection") -> Outcome:
    """What the bytes of one connection say; never raises for what a server may do."""
    raw, broken = bytes(connection.raw), connection.broken
    outcome = Outcome(connection.stream, gaps=connection.gaps, worst_end=connection.worst_end)
    answer = Answer()
    head, split, rest = raw.partition(b"\r\n\r\n")
    if not split:
        outcome.error, outcome.detail = "connection", broken or "closed without an answer"
        return outcome
    status = int(head.split(None, 2)[1])
    body = _body(head, rest).decode(errors="replace")
    if status != 200:
        outcome.error, outcome.detail = _refusal(status, body)
        return outcome
    for line in body.split("\n"):
        if line.startswith("data: [DONE]"):
            outcome.answer = answer.whole()
            return outcome
        if not line.startswith("data: "):
            continue
        try:
            event = json.loads(line[6:])
        except ValueError:
            break  # cut in the middle
        if "error" in event:
            outcome.error, outcome.detail = _refusal(200, line[6:])
            return outcome
        for choice in event["choices"]:
            outcome.tokens += answer.add(choice)
    outcome.error = "cut"
    outcome.detail = f"ended after {outcome.tokens} tokens without [DONE]; {broken}"
    return outcome


class _Connection:
    """One request on its way."""

    def __init__(self, stream: int):
        self.stream = stream
        self.socket: socket.socket | None = None
        self.raw = bytearray()
        self.events = 0
        self.gaps: list[float] = []
        self.worst = self.worst_end = 0.0  # the longest gap, and when it ended
        self.last: float | None = None
        self.broken = ""

    def open(self, address: str, body: dict) -> bool:
        host, port = address.rsplit(":", 1)
        text = json.dumps(body)
        request = (f"POST /v1/completions HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n"
                   f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n{text}")
        try:
            self.socket = socket.create_connection((host, int(port)), timeout=5)
            self.socket.sendall(request.encode())
            self.socket.setblocking(False)
        except OSError as error:
            self.broken = f"{type(error).__name__}: {error}"
            return False
        return True

    def read(self) -> bool:
        """False at the end."""
        try:
            data = self.socket.recv(1 << 16)
        except BlockingIOError:
            return True
        except OSError as error:
            self.broken = f"{type(error).__name__}: {error}"
            return False
        if not data:
            return False
        self.raw += data
        if events := data.count(b"data: {"):
            now = time.monotonic()
            if self.last is not None:
                gap = now - self.last
                if gap > self.worst:
                    self.worst, self.worst_end = gap, now
                self.gaps.append(gap)
            self.last = now
            self.events += events
        return True


class _Client:
    def __init__(self, load: Load, addresses: list[str], span: float, reach):
        self.load, self.addresses, self.reach = load, addresses, reach
        self.end = time.monotonic() + span
        self.selector = selectors.DefaultSelector()
        self.ended: list[_Connection] = []
        self.timeline: collections.Counter[int] = collections.Counter()
        self.again: list[tuple[float, int]] = []  # when, which stream
        self.open = 0

    def ask(self, stream: int):
        connection = _Connection(stream)
        address = self.addresses[stream % len(self.addresses)]
        if connection.open(address, body_of(self.load, stream)):
            self.open += 1
            self.selector.register(connection.socket, selectors.EVENT_READ, connection)
        else:
            self.close(connection)

    def close(self, connection: _Connection):
        if connection.socket is not None:
            connection.socket.close()
        self.ended.append(connection)
        now = time.monotonic()
        if now < self.end:
            answered = b"data: [DONE]" in connection.raw[-200:]
            self.again.append((now if answered else now + RETRY_PAUSE_S, connection.stream))

    def run(self) -> list[Outcome]:
        for stream in range(self.load.streams):
            self.ask(stream)
        while self.open or self.again:
            due = min((at for at, _ in self.again), default=None)
            wait = SILENCE_LIMIT_S if due is None else max(0, due - time.monotonic())
            ready = self.selector.select(wait)
            if not ready and due is None:
                break  # SILENCE_LIMIT_S: whoever is still open has hung
            for key, _ in ready:
                events = key.data.events
                if key.data.read():
                    if key.data.events > events:
                        self.timeline[int(key.data.last / BUCKET_S)] += key.data.events - events
                    self.reach(key.data.events)
                else:
                    self.selector.unregister(key.fileobj)
                    self.open -= 1
                    self.close(key.data)
            now = time.monotonic()
            ripe = [one for one in self.again if one[0] <= now]
            self.again = [one for one in self.again if one[0] > now]
            for _, stream in ripe:
                self.ask(stream)
        for key in list(self.selector.get_map().values()):
            if isinstance(key.data, _Connection):
                key.data.broken = f"silent for {SILENCE_LIMIT_S} s"
                key.data.socket.close()
                self.ended.append(key.data)
        self.selector.close()
        return [outcome_of(connection) for connection in self.ended]


def run(load: Load, addresses: list[str], progress: Progress, span: float | None = None
        ) -> list[Outcome]:
    """All streams at once, stream i at gateway i mod n; returns when the last has ended. With a
    `span` each asks again and again until it is over."""
    child = subprocess.Popen([sys.executable, "-B", "-c", "import load; load.serve()"],
                             cwd=pathlib.Path(__file__).parent, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
    with child:
        pickle.dump((load, addresses, load.span if span is None else span), child.stdin)
        child.stdin.close()
        outcomes = None
        while outcomes is None:
            said = pickle.load(child.stdout)
            if isinstance(said, int):
                progress.reach(said)
            else:
                outcomes, progress.timeline = said
    progress.end()
    return outcomes


def serve():
    """The process that asks: what to ask comes in; how far it is, and at last the outcomes, go out."""
    load, addresses, span = pickle.load(sys.stdin.buffer)
    most = 0

    def reach(events: int):
        nonlocal most
        if events > most:
            most = events
            tell(events)

    def tell(what):
        sys.stdout.buffer.write(pickle.dumps(what))
        sys.stdout.buffer.flush()

    client = _Client(load, addresses, span, reach)
    tell((client.run(), client.timeline))
