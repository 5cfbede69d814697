"""`bottega trace` of live requests, the flight recorders behind it, and what of a request is never written down.

An attention worker and an expert worker die under one stream; the trace tells who had it, what was sent again and
where it went on. A worker that dies of a signal leaves its last events in a file. Prompts, answers and API keys are
in no line of the log, no metric, no recorder and no such file.
"""
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request

from cluster import BIN, TINY, running
from process import SANITIZED
from streams import wait

KEY = "sk-canary-4f1d"  # in the API key
CANARY = "zanzibarquokka"  # in the prompt
TOKENS, LONG = 600, 6000
HANG_LIMIT_S = 60


class Trace(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cleanup = contextlib.ExitStack()
        cls.folder = pathlib.Path(cls.cleanup.enter_context(tempfile.TemporaryDirectory()))
        cls.cluster = cls.cleanup.enter_context(running(
            "up", TINY, "--port", "0", "--attention-workers", "2", "--expert-workers", "4", "--replication", "2",
            "--api-key", KEY, "--flight-dir", cls.folder))

    @classmethod
    def tearDownClass(cls):
        cls.cleanup.close()

    def trace(self, request_id, code=0):
        router = self.cluster.find(r"^router +(\S+)").group(1)
        done = subprocess.run([BIN / "bottega", "trace", request_id, "--router", router], text=True,
                              capture_output=True, timeout=60)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def admin(self, name, path):
        with urllib.request.urlopen(f"http://{self.cluster.members()[name][1]}{path}", timeout=30) as answer:
            return answer.read().decode()

    def complete(self, request_id, on_token=lambda count: None, tokens=TOKENS):
        body = {"model": "bottega-tiny", "prompt": f"The {CANARY} is", "max_tokens": tokens, "ignore_eos": True,
                "stream": True, "return_token_ids": True, "seed": 1}
        request = urllib.request.Request(
            self.cluster.url + "/v1/completions", json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}", "x-request-id": request_id})
        count = 0
        with urllib.request.urlopen(request, timeout=HANG_LIMIT_S) as answer:
            for raw in answer:
                if not raw.startswith(b"data: {"):
                    continue
                for choice in json.loads(raw[6:])["choices"]:
                    count += len(choice.get("token_ids") or [])
                on_token(count)
        self.assertEqual(count, tokens)

    def owner(self, request_id):
        return re.findall(r"choice 0 has a place at (\S+)", self.trace(request_id))

    def wait_whole(self):
        router = self.cluster.find(r"^router +(\S+)").group(1)

        def whole():
            done = subprocess.run([BIN / "bottega", "status", "--json", "--router", router], text=True,
                                  capture_output=True, timeout=60)
            if done.returncode != 0:
                return False
            status = json.loads(done.stdout)
            active = [m["name"] for m in status["members"] if m["state"] == "active" and m["role"] != "gateway"]
            return len(active) == 6 and all(len(ids) >= 2 for row in status["replicas"] for ids in row)

        wait("the cluster is not whole", whole)

    def test_a_calm_request(self):
        self.wait_whole()
        self.complete("calm-1")
        text = self.trace("calm-1")
        for part in ("the request arrived", "1 choice", "has a place at attention-", "in the queue", "first token",
                     f"answered: status 200, {TOKENS} tokens"):
            self.assertIn(part, text)
        self.assertRegex(text, r"attention-\d +\d+ +\d+ +[\d.]+ +[\d.]+ +[\d.]+\n")  # its steps
        # The workers it was sent to: few frames are best, so perhaps not all four.
        self.assertRegex(text, r"attention-\d +expert-\d +\d+")
        self.assertNotIn("LOST", text)
        self.assertIn("answered", self.trace("cmpl-calm-1"))  # the id of the answer's body does too

    def test_a_request_whose_workers_die(self):
        self.wait_whole()
        state = {}

        def disturb(count):
            if count > 20 and "expert" not in state:
                state["expert"] = "expert-1"
                pid = self.cluster.members()["expert-1"][0]
                os.kill(pid, signal.SIGSTOP)
                time.sleep(0.03)  # the fault itself: frames are lost in it
                os.kill(pid, signal.SIGKILL)
            if count > 100 and "attention" not in state:
                state["attention"] = self.owner("hard-1")[-1]
                state["before"] = self.trace("hard-1")
                os.kill(self.cluster.members()[state["attention"]][0], signal.SIGKILL)

        # Long: between two faults this process runs `bottega trace` twice.
        self.complete("hard-1", disturb, LONG)
        # What its first worker knew died with it, so the resends are in the trace of that time.
        self.assertRegex(state["before"], r"RESENT, away from expert-1|expert-1 is late with")
        self.wait_whole()  # names are those of the table, which has the killed worker again then
        text = self.trace("hard-1")
        self.assertRegex(text, r"choice 0 LOST its worker at token \d+: failover")
        owners = self.owner("hard-1")
        self.assertEqual(len(owners), 2)
        self.assertEqual(owners[0], state["attention"])
        self.assertNotEqual(owners[1], owners[0])
        self.assertIn("generated before", text)
        self.assertIn(f"answered: status 200, {LONG} tokens", text)

    def test_an_unknown_id_is_said_to_be_unknown(self):
        text = self.trace("nobody-asked-this", code=1)
        self.assertIn("no process remembers a request nobody-asked-this", text)

    def test_no_router_is_said_to_be_none(self):
        done = subprocess.run([BIN / "bottega", "trace", "x", "--router", "127.0.0.1:1"], text=True,
                              capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertIn("no router at 127.0.0.1:1", done.stderr)

    @unittest.skipIf(SANITIZED, "the sanitizer's handler of fatal signals is there instead of ours")
    def test_a_process_that_dies_of_a_signal_leaves_its_last_events(self):
        self.wait_whole()
        self.complete("before-the-crash")
        pid = self.cluster.members()["expert-2"][0]
        os.kill(pid, signal.SIGSEGV)
        wait("no restart", lambda: self.cluster.members()["expert-2"][0] != pid)
        left = self.folder / f"expert-2-{pid}.flight"
        self.assertIn(" computed key=", left.read_text())

    def test_s10_what_is_said_is_never_written_down(self):
        self.wait_whole()
        self.complete("canary-1")
        with self.assertRaises(urllib.error.HTTPError):
            urllib.request.urlopen(urllib.request.Request(
                self.cluster.url + "/v1/completions", b'{"prompt": "' + CANARY.encode() + b'", "temperature": 9}',
                {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}), timeout=30)
        written = {"log": "\n".join(self.cluster.errors + self.cluster.lines)}
        for name in self.cluster.members():
            written[name] = self.admin(name, "/metrics") + self.admin(name, "/flight?last=100000")
        for path in self.folder.iterdir():
            written[path.name] = path.read_text()
        self.assertIn("canary-1", written["log"])  # the id is logged, so this does look at the log
        for where, text in written.items():
            for secret in (CANARY, KEY):
                self.assertNotIn(secret, text, where)

    def test_log_lines_are_json_with_their_keys(self):
        lines = [line.split("] ", 1)[1] for line in self.cluster.errors if line.startswith("[attention-")]
        self.assertTrue(lines)
        for line in lines:
            self.assertLessEqual({"ts", "level", "msg", "role", "worker"}, set(json.loads(line)), line)


if __name__ == "__main__":
    unittest.main()
