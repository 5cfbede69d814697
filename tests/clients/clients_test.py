"""Clients that misbehave, against live processes: C1, C4, C5, C7, C8, C9, C11, N12, N13, W22; and M14, logs
that are full.

In every case the rest of the cluster's answers are those of the calm run, to the byte, and afterwards
nothing is left: no sequence, no KV block, no connection. Times are printed; only 20 times the target fails.
"""
import concurrent.futures
import contextlib
import json
import os
import random
import resource
import signal
import socket
import subprocess
import time
import unittest
import urllib.error
import urllib.request

from cluster import BIN, TINY, free_ports, is_ready, post, running, total
from process import open_fds, rss
from raw_http import (address_of, ask_raw, completion, connect, read_all, status_of, wait_until)

FLAGS = ("up", TINY, "--port", "0", "--attention-workers", "1", "--expert-workers", "2",
         "--replication", "2")
KV_FREE_S, STATE_FREE_S, NEW_GATEWAY_S = 0.1, 1.0, 2.0  # targets
LATE = 20  # times its target fails a time
LONG_PROMPT = "one two three four five six seven eight nine ten " * 400
HOST = "GET /v1/models HTTP/1.1\r\nHost: a\r\n"
POST = "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"

# (id, bytes, status): what could be read in two ways, or has no end, is refused and closed.
RAW = [
    ("C8", POST + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("C8", POST + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400),
    ("C8", POST + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    ("C8", POST + "Content-Length: 2\r\nContent-Length: 20\r\n\r\n{}", 400),
    ("C8", POST + "Content-Length: +2\r\n\r\n{}", 400),
    ("C8", POST + "Content-Length : 2\r\n\r\n{}", 400),
    ("C8", POST + "Transfer-Encoding: chunked\r\n\r\n-1\r\n{}\r\n0\r\n\r\n", 400),
    ("C8", POST + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n{}\r\n0\r\n\r\n", 400),
    ("C8", POST + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}xx0\r\n\r\n", 400),
    ("C8", "GET http://a/v1/models HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("C8", HOST + "Host: b\r\n\r\n", 400),
    ("C8", HOST + "\r\n" + HOST + "\r\n", 400),  # pipelined
    ("C8", HOST + "na\0me: x\r\n\r\n", 400),
    ("C9", HOST + "h: " + "a" * (1 << 20) + "\r\n\r\n", 431),
    ("C9", HOST + "".join(f"h{i}: 1\r\n" for i in range(100_000)) + "\r\n", 431),
    ("C9", "GET /" + "a" * (1 << 20) + " HTTP/1.1\r\nHost: a\r\n\r\n", 431),
    ("C9", POST + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", 415),
    ("C9", POST + f"Content-Length: {1 << 62}\r\n\r\n", 413),
    ("C9", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\0\0\1\x09\0\0\0\0\1x" * 1000, 400),
]


class Clients(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.exit = contextlib.ExitStack()
        cls.addClassCleanup(cls.exit.close)
        cls.cluster = cls.exit.enter_context(running(*FLAGS))
        cls.expected = cls.neighbours()

    @classmethod
    def neighbours(cls) -> list[str]:
        """Eight answers with logprobs, asked for at once: a lost expert row would show in them."""
        def ask(n):
            answer = post(cls.cluster.url, "/v1/completions", {
                "model": "bottega-tiny", "prompt": f"The number {n} is", "max_tokens": 24, "seed": n,
                "temperature": n % 2 * 0.8, "logprobs": 2, "ignore_eos": True})
            return json.dumps(answer["choices"])
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            return list(pool.map(ask, range(8)))

    def tearDown(self):
        """The oracle: the same bytes as before, and nothing left."""
        self.assertEqual(self.neighbours(), self.expected)
        wait_until(self.idle)

    def pid(self, name: str) -> int:
        return self.cluster.members()[name][0]

    def value(self, name: str, prefix: str) -> float:
        return sum(self.cluster.series(self.cluster.members()[name][1], prefix).values())

    def kv_used(self) -> float:
        return self.value("attention-0", 'bottega_attention_kv_blocks{state="used"}')

    def live(self) -> float:
        return (self.value("attention-0", "bottega_attention_requests_running")
                + self.value("attention-0", "bottega_attention_requests_waiting"))

    def idle(self) -> bool:
        return self.kv_used() == 0 and self.live() == 0 and self.queue_depth() == 0

    def queue_depth(self) -> float:
        return self.value("gateway-0", "bottega_gateway_queue_depth")

    def computed(self) -> float:
        return self.value("attention-0", "bottega_attention_generation_tokens_total")

    def open(self, stream: bool, prompt: str = "Once", tokens: int = 4000) -> socket.socket:
        raw = connect(self.cluster.url)
        raw.sendall(completion({"model": "bottega-tiny", "prompt": prompt, "max_tokens": tokens,
                                "ignore_eos": True, "stream": stream}))
        return raw

    def free_after_leaving(self, clients: list[socket.socket], what: str):
        for raw in clients:
            raw.close()
        took = wait_until(self.idle, pause_s=0.005)
        print(f"  {what}: KV free after {took * 1e3:.0f} ms")
        self.assertLess(took, LATE * KV_FREE_S, what)
        before = self.computed()
        post(self.cluster.url, "/v1/completions", {"model": "bottega-tiny", "prompt": "x",
                                                   "max_tokens": 3, "ignore_eos": True})
        self.assertEqual(self.computed() - before, 3, "somebody else is still being computed")

    def test_c1_leaves_in_decode(self):
        for stream in (True, False):
            raw = self.open(stream)
            before = self.computed()
            wait_until(lambda: self.computed() > before + 2)
            self.free_after_leaving([raw], f"in decode, stream={stream}")

    def test_c1_leaves_in_prefill(self):
        for stream in (True, False):
            raw = self.open(stream, LONG_PROMPT)
            wait_until(lambda: self.kv_used() > 0, pause_s=0.001)
            self.free_after_leaving([raw], f"in prefill, stream={stream}")

    def test_c1_leaves_the_queue_and_500_at_once(self):
        def prompts() -> float:
            return self.value("attention-0", "bottega_attention_prompt_tokens_total")
        prompt_tokens = post(self.cluster.url, "/v1/completions", {
            "model": "bottega-tiny", "prompt": "Once", "max_tokens": 1})["usage"]["prompt_tokens"]
        wait_until(self.idle)
        before = prompts()
        running_ones = [self.open(True) for _ in range(64)]
        # A running request is counted before its prompt is computed.
        wait_until(lambda: prompts() == before + 64 * prompt_tokens)
        queued = [self.open(n % 2 == 0, "Never computed") for n in range(40)]
        wait_until(lambda: self.queue_depth() == 40)
        for raw in queued:
            raw.close()
        wait_until(lambda: self.queue_depth() == 0)
        self.assertEqual(self.live(), 64)
        self.assertEqual(prompts(), before + 64 * prompt_tokens)
        crowd = [self.open(n % 2 == 0) for n in range(500 - 64)]
        wait_until(lambda: self.queue_depth() == 128)
        self.free_after_leaving(running_ones + crowd, "500 at once")

    def test_c4_a_reader_that_does_not_read_is_cut(self):
        pid = self.pid("gateway-0")
        before, cut = rss(pid), self.value("gateway-0", "bottega_gateway_disconnects_total")
        slow = []
        for pace in ("never", "1 B/s", "never"):
            raw = connect(self.cluster.url, receive_buffer=2048)
            raw.sendall(completion({"model": "bottega-tiny", "prompt": "Once", "max_tokens": 4000, "n": 4,
                                    "ignore_eos": True, "stream": True, "logprobs": 5}))
            slow.append((pace, raw))
        most = before
        while self.value("gateway-0", "bottega_gateway_disconnects_total") < cut + len(slow):
            most = max(most, rss(pid))
            for pace, raw in slow:
                if pace == "1 B/s":
                    raw.recv(1)
            self.assertEqual(self.neighbours(), self.expected)
        for _, raw in slow:
            raw.close()
        print(f"  three readers that do not read: gateway {(most - before) / 2**20:.1f} MiB more at most")
        # Each: 256 KiB in the gateway, and token logs and frames of one step.
        self.assertLess(most - before, 16 << 20)

    def test_c5_slow_heads_and_bodies_are_cut(self):
        halves = [connect(self.cluster.url, timeout=120) for _ in range(3)]
        halves[0].sendall(b"GET /v1/mo")
        halves[1].sendall(HOST.encode())
        halves[2].sendall((POST + "Content-Length: 100000\r\n\r\n{").encode())
        cut = []
        begin = time.monotonic()
        # One byte a second does not count as progress.
        with contextlib.suppress(OSError):
            while len(cut) < 3 and time.monotonic() - begin < 100:
                for raw in halves:
                    if raw in cut:
                        continue
                    raw.settimeout(0.3)
                    try:
                        answer = raw.recv(4096)
                        self.assertIn(status_of(answer), (0, 408))
                        cut.append(raw)
                    except TimeoutError:
                        with contextlib.suppress(OSError):
                            raw.sendall(b"a")
        for raw in halves:
            raw.close()
        self.assertEqual(len(cut), 3)
        print(f"  cut after {time.monotonic() - begin:.0f} s (10 s for a head, 30 s for a body)")

    def test_c7_idle_connections_and_churn(self):
        pid = self.pid("gateway-0")
        before, fds = rss(pid), open_fds(pid)
        with contextlib.ExitStack() as stack:
            for _ in range(800):
                stack.enter_context(connect(self.cluster.url))
            self.assertEqual(self.neighbours(), self.expected)
        for _ in range(2000):
            connect(self.cluster.url).close()
        wait_until(lambda: open_fds(pid) <= fds + 8)
        self.assertLess(rss(pid) - before, 64 << 20)  # 64 KiB of buffers each, while open

    def test_c8_c9_what_could_be_read_in_two_ways(self):
        pid = self.pid("gateway-0")
        for _ in range(2):  # the second round shows what the first left behind
            before = rss(pid)
            for name, data, status in RAW:
                with self.subTest(name, data=data[:90]):
                    got, answer, seconds = ask_raw(self.cluster.url, data.encode())
                    # A reset may overtake the answer when much was left unread.
                    self.assertIn(got, (status, 0) if len(data) > 100_000 else (status,), answer[:200])
                    self.assertLess(seconds, 5)
                    if got:
                        self.assertIn(b"Connection: close", answer)
                        self.assertEqual(answer.count(b"HTTP/1.1 "), 1, "a second answer")
            grown = rss(pid) - before
        self.assertLess(grown, 8 << 20)

    def test_c9_endless_chunks(self):
        with connect(self.cluster.url) as raw:
            raw.sendall((POST + "Transfer-Encoding: chunked\r\n\r\n").encode())
            chunk = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
            begin = time.monotonic()
            with self.assertRaises(OSError):  # what comes after the refusal is read for 2 s
                while time.monotonic() - begin < 60:
                    raw.sendall(chunk)
            self.assertIn(status_of(read_all(raw)), (413, 0))

    def test_c11_leaving_races_with_the_end(self):
        chooser = random.Random(11)

        def one(n):
            raw = self.open(n % 2 == 0, f"The number {n} is", tokens=3)
            raw.settimeout(chooser.random() * 0.03 + 0.001)
            with contextlib.suppress(TimeoutError):
                while raw.recv(4096):
                    pass
            raw.close()
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            list(pool.map(one, range(300)))
        wait_until(self.idle)

    def test_n12_out_of_file_descriptors(self):
        """Each process may have a few fds more than it has; then strangers take those at each of its
        ports. What runs goes on; once they have left, each port accepts again."""
        members = self.cluster.members()
        router = self.cluster.find(r"^router +(\S+)")[1]
        before = {}
        for name, (pid, _) in members.items():
            before[pid] = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_fds(pid) + 12, before[pid][1]))
        ports = [address_of(self.cluster.url), address_of("http://" + router)]
        ports += [address_of("http://" + admin) for _, admin in members.values()]
        ports += [address_of("http://" + a) for a in self.control_addresses()]
        with contextlib.ExitStack() as strangers:
            stream = strangers.enter_context(self.open(True, tokens=200))
            for port in ports:
                for _ in range(40):
                    raw = strangers.enter_context(socket.socket())
                    raw.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        raw.connect(port)
            self.assertIn(b"[DONE]", self.until(stream, b"[DONE]"))
        for pid, limits in before.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(open_fds(pid) + 64, limits[1]), limits[1]))
        self.assertEqual(self.neighbours(), self.expected)
        for name, (pid, admin) in members.items():
            self.assertEqual(self.cluster.members()[name][0], pid, f"{name} was restarted")
            wait_until(lambda: self.answers(admin))
        # A new gateway and a new attention worker go through every gRPC port there is.
        for name in ("gateway-0", "attention-0"):
            os.kill(members[name][0], signal.SIGKILL)
            wait_until(lambda: self.cluster.members()[name][0] != members[name][0])
            wait_until(self.serves)

    def test_w22_a_gateway_dies(self):
        clients = [self.open(True) for _ in range(16)]
        wait_until(lambda: self.live() == 16)
        old = self.pid("gateway-0")
        os.kill(old, signal.SIGKILL)
        begin = time.monotonic()
        freed = wait_until(lambda: self.kv_used() == 0 and self.live() == 0, pause_s=0.005)
        wait_until(self.serves, pause_s=0.01)
        served = time.monotonic() - begin
        print(f"  W22: state freed after {freed * 1e3:.0f} ms, a new gateway serves after {served * 1e3:.0f} ms")
        self.assertLess(freed, LATE * STATE_FREE_S)
        self.assertLess(served, LATE * NEW_GATEWAY_S)
        for raw in clients:
            raw.close()
        self.assertNotEqual(self.pid("gateway-0"), old)
        self.assertEqual(self.value("expert-0", "bottega_expert_queue_rows"), 0)

    def control_addresses(self) -> list[str]:
        router = self.cluster.find(r"^router +(\S+)")[1]
        shown = subprocess.run([str(BIN / "bottega"), "status", "--json", "--router", router],
                               capture_output=True, text=True, timeout=60, check=True).stdout
        return [m["control_address"] for m in json.loads(shown)["members"] if m["control_address"]]

    def answers(self, admin: str) -> bool:
        try:
            with urllib.request.urlopen(f"http://{admin}/live", timeout=5):
                return True
        except OSError:
            return False

    def serves(self) -> bool:
        try:
            post(self.cluster.url, "/v1/completions",
                 {"model": "bottega-tiny", "prompt": "x", "max_tokens": 1}, timeout=10)
            return True
        except (OSError, ValueError):
            return False

    @staticmethod
    def until(raw: socket.socket, text: bytes) -> bytes:
        data = b""
        while text not in data:
            chunk = raw.recv(65536)
            if not chunk:
                break
            data += chunk
        return data


class FullLogs(unittest.TestCase):
    """M14: where the log goes there is no room left; serving goes on, with the same answers."""

    def answers(self, url: str) -> list[str]:
        choices = []
        for number in range(4):
            answer = post(url, "/v1/completions", {
                "model": "bottega-tiny", "prompt": f"The number {number} is", "max_tokens": 16, "seed": number,
                "logprobs": 2, "ignore_eos": True})
            choices.append(json.dumps(answer["choices"]))
        return choices

    def check(self, url: str):
        """Answers, while lines are logged, also of refusals."""
        expected = self.answers(url)
        for _ in range(50):
            with self.assertRaises(urllib.error.HTTPError):
                post(url, "/v1/completions", {"model": "bottega-tiny", "prompt": "a", "temperature": 3})
        self.assertEqual(self.answers(url), expected)

    def test_m14_stderr_is_full(self):
        port, admin = free_ports(2)
        with open("/dev/full", "w", encoding="utf-8") as full:
            server = subprocess.Popen([BIN / "bottega", "serve", TINY, "--port", str(port),
                                       "--admin-port", str(admin)], stdout=full, stderr=full)
        try:
            wait_until(lambda: is_ready(f"127.0.0.1:{admin}"))
            self.check(f"http://127.0.0.1:{port}")
            server.send_signal(signal.SIGTERM)
            self.assertEqual(server.wait(timeout=60), 0)
        finally:
            server.kill()
            server.wait()

    def test_m14_the_log_file_is_full(self):
        with running(*FLAGS, "--log-file", "/dev/full") as cluster:
            self.check(cluster.url)
            logged = total(cluster.members()["gateway-0"][1], "bottega_log_messages_total")
            self.assertGreater(logged, 50, "nothing was lost")


class AtTheEnd(unittest.TestCase):
    def test_ctrl_c_ends_an_answer_with_a_word(self):
        """Longer than the drain: the stream's last event says why, and everything ends in order."""
        for command in (FLAGS + ("--drain-timeout", "100ms"),
                        ("serve", TINY, "--port", "0", "--interrupt-timeout", "100ms")):
            with running(*command) as server:
                raw = connect(server.url)
                raw.sendall(completion({"model": "bottega-tiny", "prompt": "Once", "stream": True,
                                        "max_tokens": 4000, "ignore_eos": True,
                                        "temperature": 0}))
                Clients.until(raw, b"data: ")
                server.process.send_signal(signal.SIGINT)
                said = read_all(raw)
                if b"[DONE]" not in said:  # it may be quicker than the drain is long
                    self.assertIn(b'"code":"draining"', said[-2000:], command[0])
                self.assertEqual(server.process.wait(timeout=60), 0, command[0])


class AtStart(unittest.TestCase):
    def test_n13_a_router_that_is_not_there(self):
        """Refused, silent or no name at all: the process lives, says that it is not ready, takes the
        router when it comes, and ends when told to."""
        with contextlib.ExitStack() as stack:
            silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            refused, *admins = free_ports(4)
            routers = (f"127.0.0.1:{refused}", f"127.0.0.1:{silent.getsockname()[1]}",
                       "no-such-host.invalid:50061")
            started = []
            for router, admin in zip(routers, admins):
                arguments = [BIN / "bottega-gateway", TINY, "--port", "0", "--admin-port", str(admin),
                             "--router", router, "--name", f"gateway-{admin}"]
                process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
                stack.callback(process.kill)
                started.append((process, f"http://127.0.0.1:{admin}"))
            for _, admin in started:
                wait_until(lambda: self.get(admin + "/live") == 200)
                self.assertEqual(self.get(admin + "/ready"), 503)
            late = subprocess.Popen([BIN / "bottega-router", "--port", str(refused), "--admin-port", "0"],
                                    stderr=subprocess.DEVNULL)
            stack.callback(late.kill)
            wait_until(lambda: "gateway-" in subprocess.run(
                [BIN / "bottega", "status", "--router", routers[0]], capture_output=True, text=True,
                timeout=60).stdout)
            for process, _ in [*started, (late, "")]:
                process.send_signal(signal.SIGTERM)
                self.assertEqual(process.wait(timeout=60), 0)

    @staticmethod
    def get(url: str) -> int:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0


if __name__ == "__main__":
    unittest.main(verbosity=2)
