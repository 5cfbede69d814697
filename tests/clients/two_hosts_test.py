"""docs/operations.md, run as it stands: two network namespaces joined by a veth pair are its two hosts.

Every `host-a` and `host-b` block is executed where it says, UCX goes over TCP between the two, and the
cluster's answer is the bytes that `bottega serve` gives. Skipped (77) where namespaces are not permitted.
"""
import contextlib
import functools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
import urllib.request

from cluster import BIN, ROOT, TINY, post, running, scrape
from raw_http import wait_until

ADDRESSES = {"host-a": "10.77.0.1", "host-b": "10.77.0.2"}
GATEWAY = "http://10.77.0.1:8000"
EXPERTS = ("http://10.77.0.1:9091", "http://10.77.0.2:9091")
INSIDE = "BOTTEGA_TEST_INSIDE_NAMESPACE"


def blocks() -> list[tuple[str, list[str]]]:
    """(where, commands) of each marked block, in order."""
    text = (ROOT / "docs/operations.md").read_text()
    return [(where, body.strip().splitlines())
            for where, body in re.findall(r"^```sh (host-a|host-b|check)\n(.*?)^```", text, re.M | re.S)]


def run(*command: str):
    subprocess.run(command, check=True, capture_output=True, timeout=30)


class Hosts:
    """This process' namespace is host A; a child that sleeps holds host B."""

    def __init__(self, stack: contextlib.ExitStack):
        self.holder = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
        stack.callback(self.end, self.holder)
        mine = os.readlink("/proc/self/ns/net")
        wait_until(lambda: os.readlink(f"/proc/{self.holder.pid}/ns/net") != mine)
        run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0",
            "netns", str(self.holder.pid))
        for where, address in ADDRESSES.items():
            for command in (f"ip addr add {address}/24 dev eth0", "ip link set eth0 up",
                            "ip link set lo up"):
                run(*self.at(where), *command.split())

    def at(self, where: str) -> list[str]:
        return ["nsenter", "-t", str(self.holder.pid), "-n"] if where == "host-b" else []

    @staticmethod
    def end(process: subprocess.Popen):
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class TwoHosts(unittest.TestCase):
    def ask(self, url: str) -> str:
        answer = post(url, "/v1/completions", {
            "model": "bottega-tiny", "prompt": "Quanto fa 12 + 30?", "max_tokens": 48, "seed": 5,
            "temperature": 0.7, "logprobs": 5, "ignore_eos": True})
        return json.dumps([answer["choices"], answer["system_fingerprint"]])

    @staticmethod
    def show_logs(scratch: pathlib.Path, failure, *_):
        if failure is not None:
            for log in sorted(scratch.glob("*.log")):
                print(f"--- {log.name}\n" + "\n".join(log.read_text().splitlines()[-12:]))

    def test_the_document(self):
        with contextlib.ExitStack() as stack:
            scratch = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            stack.push(functools.partial(self.show_logs, scratch))
            hosts = Hosts(stack)
            environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}",
                           "CHECKPOINT": str(TINY), "MODEL": str(scratch / "model"),
                           "XDG_CACHE_HOME": str(scratch / "cache")}
            processes: dict[str, subprocess.Popen] = {}
            for where, commands in blocks():
                for command in commands:
                    arguments = [*hosts.at(where), "bash", "-c", "exec " + command]
                    name = re.search(r"--name (\S+)", command)
                    if name is None:  # ends by itself
                        if where == "check":
                            wait_until(lambda: all(map(self.ready, (GATEWAY, *EXPERTS))))
                        done = subprocess.run(arguments, env=environment, capture_output=True, text=True,
                                              timeout=120)
                        self.assertEqual(done.returncode, 0, command + "\n" + done.stderr)
                        shown = done.stdout
                        continue
                    log = stack.enter_context(open(scratch / f"{name[1]}.log", "w"))
                    processes[name[1]] = subprocess.Popen(arguments, env=environment, stdout=log,
                                                          stderr=log)
                    stack.callback(hosts.end, processes[name[1]])
            for name in set(processes) - {"router"}:
                self.assertRegex(shown, rf"(?m)^{name} .* active ", shown)
            answer = self.ask(GATEWAY)
            with running("serve", TINY, "--port", "0", "--threads", "1") as one:
                expected = self.ask(one.url)
            self.assertEqual(answer, expected)
            # Host A's expert worker dies: every row crosses the wire, and the bytes are the same.
            processes["expert-a"].kill()
            self.assertEqual(self.ask(GATEWAY), expected)
            rows = sum(value for key, value in scrape("10.77.0.2:9091").items()
                       if key.startswith("bottega_expert_rows_total"))
            self.assertGreater(rows, 0)
            for name in ("gateway-a", "attention-a", "expert-b", "router"):
                processes[name].send_signal(signal.SIGTERM)
                self.assertEqual(processes[name].wait(timeout=130), 0, name)

    @staticmethod
    def ready(url: str) -> bool:
        try:
            with urllib.request.urlopen(url + "/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False


def enter_namespace():
    """Runs this file again in a network namespace of its own; never returns."""
    root = ["-r"] if os.geteuid() != 0 else []
    for tool in ("unshare", "nsenter", "ip"):
        if shutil.which(tool) is None:
            print(f"skipped: no {tool}")
            sys.exit(77)
    tried = subprocess.run(["unshare", *root, "-n", "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        print(f"skipped: no network namespaces here: {tried.stderr.strip()}")
        sys.exit(77)
    os.environ[INSIDE] = "1"
    os.execvp("unshare", ["unshare", *root, "-n", sys.executable, "-B", *sys.argv])


if __name__ == "__main__":
    if INSIDE not in os.environ:
        enter_namespace()
    unittest.main(verbosity=2)
