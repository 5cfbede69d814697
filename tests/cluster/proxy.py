#!/usr/bin/env python3
"""A transparent TCP relay that misbehaves: one thread, one selector.

Runs inside a network namespace whose nft rules redirect every connection to it (network.py). It
asks the kernel where a connection wanted to go (SO_ORIGINAL_DST) and goes there with a mark that
the rules let pass. Commands come as lines on stdin, each is answered by one line:

    set FAULT[=VALUE]... [to=HOST] [port=N|port!=N]   the faults from now on, for old connections too
    set                                               a plain relay

    latency=200ms jitter=50ms   each piece is late by latency +- jitter, order is kept
    rate=125000                 bytes a second
    slice=1                     the first 64 bytes of a piece are written so many at a time
    coalesce=5ms                pieces are kept and written together
    hang                        nothing is read any more; connections stay open
    hole=out | hole=in          bytes in that direction are swallowed (out: away from this host)
    cut=1000                    each connection is closed after so many bytes in either direction
    halfclose=1000              after so many bytes a direction ends; the other one goes on
    corrupt=20000               about every so many bytes one is changed
    duplicate=20000             about every so many bytes a piece is sent twice
    slowclose=500ms             the end of a stream is passed on late

Each answer says how many pieces or connections the faults of the last `set` have struck.
"""
import dataclasses
import random
import re
import selectors
import socket
import struct
import sys
import time

SO_ORIGINAL_DST = 80
SO_MARK = 36
MARK = 7
SLICED = 64  # bytes: more would measure this program, not the cluster
BUFFERED_MAX = 1 << 20  # bytes of one direction; then its source is not read
READ_MAX = 1 << 16


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(ms|s)", text).groups()
    return float(number) * (1e-3 if unit == "ms" else 1)


@dataclasses.dataclass
class Faults:
    latency: float = 0
    jitter: float = 0
    rate: float = 0
    slice: int = 0
    coalesce: float = 0
    hang: bool = False
    hole: str = ""
    cut: int = 0
    halfclose: int = 0
    corrupt: int = 0
    duplicate: int = 0
    slowclose: float = 0
    to: str = ""  # only connections with this host at the other end
    port: str = ""  # "=N" or "!=N": only those whose server listens there, or elsewhere

    @classmethod
    def read(cls, words: list[str]) -> "Faults":
        """ValueError says which word is not understood."""
        faults = cls()
        kinds = {f.name: f.type for f in dataclasses.fields(cls)}
        for word in words:
            match = re.fullmatch(r"(\w+?)(?:(!?=)(\S+))?", word)
            if not match or match[1] not in kinds:
                raise ValueError(f"'{word}' is no fault")
            name, sign, value = match.groups()
            try:
                if name == "port":
                    faults.port = f"{sign}{int(value)}"
                elif kinds[name] is bool:
                    setattr(faults, name, True)
                elif kinds[name] is float and name != "rate":
                    setattr(faults, name, seconds(value))
                else:
                    setattr(faults, name, kinds[name](value))
            except (TypeError, AttributeError, ValueError) as error:
                raise ValueError(f"'{word}' has no value that fits") from error
        return faults

    def meant(self, connection: "Connection") -> bool:
        if self.to and connection.other != self.to:
            return False
        if self.port:
            return (connection.port == int(self.port.lstrip("!="))) == self.port.startswith("=")
        return True


class Pipe:
    """One direction of a connection."""

    def __init__(self, connection: "Connection", source, sink, outward: bool):
        self.connection, self.source, self.sink, self.outward = connection, source, sink, outward
        self.pieces: list[tuple[float, bytes]] = []  # when to write, what
        self.buffered = 0
        self.count = 0  # bytes read
        self.next_corrupt = self.next_duplicate = 0
        self.due = 0.0  # of the last piece: order is kept
        self.ended = False  # the source has said its last
        self.closed = False  # and the sink has been told

    def take(self, data: bytes, faults: Faults, chance: random.Random, now: float) -> bool:
        """Whether a fault did something to it."""
        self.count += len(data)
        if faults.hole == ("out" if self.outward else "in"):
            return True
        original = data
        if faults.corrupt:
            if not self.next_corrupt:
                self.next_corrupt = self.count + chance.randrange(2 * faults.corrupt)
            elif self.count >= self.next_corrupt:
                self.next_corrupt = self.count + chance.randrange(2 * faults.corrupt)
                at = chance.randrange(len(data))
                data = data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1:]
        if faults.duplicate:
            if not self.next_duplicate:
                self.next_duplicate = self.count + chance.randrange(2 * faults.duplicate)
            elif self.count >= self.next_duplicate:
                self.next_duplicate = self.count + chance.randrange(2 * faults.duplicate)
                data += data
        due = now + max(0.0, faults.latency + faults.jitter * chance.uniform(-1, 1))
        if faults.coalesce:
            due = (now // faults.coalesce + 1) * faults.coalesce
        self.due = max(self.due, due)
        if faults.rate:
            self.due += len(data) / faults.rate
        if faults.slice:
            for at in range(0, min(len(data), SLICED), faults.slice):
                self.pieces.append((self.due, data[at:min(at + faults.slice, SLICED)]))
            self.buffered += min(len(data), SLICED)
            data = data[SLICED:]
        if data:
            self.pieces.append((self.due, data))
            self.buffered += len(data)
        late = faults.latency or faults.jitter or faults.rate or faults.coalesce
        return bool(late) or data != original


class Connection:
    def __init__(self, client: socket.socket, server: socket.socket, other: str, port: int,
                 outward: bool):
        self.client, self.server, self.other, self.port = client, server, other, port
        self.pipes = [Pipe(self, client, server, outward), Pipe(self, server, client, not outward)]


class Proxy:
    def __init__(self, port: int, host: str, seed: int):
        self.host = host  # this namespace's own address
        self.chance = random.Random(seed)
        self.faults = Faults()
        self.selector = selectors.DefaultSelector()
        self.connections: set[Connection] = set()
        self.opened = self.bytes = self.struck = 0
        self.listener = socket.create_server(("0.0.0.0", port), backlog=256)
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ, self.accept)
        self.selector.register(sys.stdin.fileno(), selectors.EVENT_READ, self.command)
        self.running = True

    def run(self):
        while self.running:
            for key, events in self.selector.select(self.wait()):
                if isinstance(key.data, tuple):
                    self.on_socket(key.data, events)
                else:
                    key.data()
            now = time.monotonic()
            for connection in list(self.connections):
                self.pump(connection, now)

    def wait(self) -> float | None:
        """Until the next piece is due; a full sink wakes us by itself."""
        due = [pipe.pieces[0][0] for c in self.connections for pipe in c.pipes if pipe.pieces]
        due += [pipe.due for c in self.connections for pipe in c.pipes
                if pipe.ended and not pipe.closed]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def accept(self):
        client, peer = self.listener.accept()
        raw = client.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
        port, host = struct.unpack("!2xH4s8x", raw)[0], socket.inet_ntoa(raw[4:8])
        outward = peer[0] == self.host
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, SO_MARK, MARK)
        server.setblocking(False)
        server.connect_ex((host, port))
        for one in (client, server):
            one.setblocking(False)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(client, server, host if outward else peer[0], port, outward)
        self.connections.add(connection)
        self.opened += 1
        self.watch(connection)

    def watch(self, connection: Connection):
        """What each socket waits for: room in its pipe, bytes to write that are due."""
        hung = self.faults.hang and self.faults.meant(connection)
        self.struck += hung
        now = time.monotonic()
        for out, into in (connection.pipes, connection.pipes[::-1]):
            mask = 0
            if not out.ended and not hung and out.buffered < BUFFERED_MAX:
                mask |= selectors.EVENT_READ
            if into.pieces and into.pieces[0][0] <= now:
                mask |= selectors.EVENT_WRITE
            self.register(out.source, mask, (connection, out, into))

    def register(self, one: socket.socket, mask: int, data):
        known = self.selector.get_map().get(one.fileno())
        if known and not mask:
            self.selector.unregister(one)
        elif known and known.events != mask:
            self.selector.modify(one, mask, data)
        elif not known and mask:
            self.selector.register(one, mask, data)

    def on_socket(self, data, events):
        connection, out, _ = data
        if connection not in self.connections or not events & selectors.EVENT_READ:
            return
        faults = self.faults if self.faults.meant(connection) else Faults()
        try:
            got = out.source.recv(READ_MAX)
        except BlockingIOError:
            return
        except OSError:
            return self.drop(connection, reset=True)
        self.bytes += len(got)
        if got:
            self.struck += out.take(got, faults, self.chance, time.monotonic())
            if faults.cut and out.count >= faults.cut:
                self.struck += 1
                self.drop(connection, reset=False)
            elif faults.halfclose and out.count >= faults.halfclose:
                self.struck += 1
                out.ended = True
        else:
            out.ended = True
            out.due = max(out.due, time.monotonic() + faults.slowclose)
            self.struck += faults.slowclose > 0

    def pump(self, connection: Connection, now: float):
        try:
            for pipe in connection.pipes:
                self.write(pipe, now)
        except OSError:
            return self.drop(connection, reset=True)
        if all(pipe.closed for pipe in connection.pipes):
            return self.drop(connection, reset=False)
        self.watch(connection)

    def write(self, pipe: Pipe, now: float):
        while pipe.pieces and pipe.pieces[0][0] <= now:
            due, data = pipe.pieces[0]
            try:
                sent = pipe.sink.send(data)
            except BlockingIOError:
                return
            pipe.buffered -= sent
            if sent < len(data):
                pipe.pieces[0] = (due, data[sent:])
            else:
                pipe.pieces.pop(0)
        if pipe.ended and not pipe.pieces and not pipe.closed and pipe.due <= now:
            pipe.closed = True
            pipe.sink.shutdown(socket.SHUT_WR)

    def drop(self, connection: Connection, reset: bool):
        self.connections.discard(connection)
        for one in (connection.client, connection.server):
            self.register(one, 0, None)
            if reset:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.close()

    def command(self):
        line = sys.stdin.readline()
        if not line:
            self.running = False
            return
        verb, *words = line.split() or [""]
        answer = ""
        try:
            if verb == "set":
                self.faults, self.struck, before = Faults.read(words), 0, self.struck
                answer = f"ok: {before} struck"
            else:
                answer = f"error: '{verb}' is not set"
        except ValueError as error:
            answer = f"error: {error}"
        print(f"{answer}; {len(self.connections)} of {self.opened} connections open, {self.bytes} "
              "bytes relayed", flush=True)


if __name__ == "__main__":
    Proxy(int(sys.argv[1]), sys.argv[2], seed=1).run()
