"""What is seen of a model that loads slowly: 503 with a growing progress, a line per 10 %, a chat that waits.

The load is slowed by a fault point in the reading of each piece of a region. Without it the bundled model is there at
once, and nothing is said.
"""
import json
import re
import subprocess
import unittest
import urllib.error
import urllib.request

from cluster import BIN, TINY, Cluster, free_ports, running, scrape
from streams import wait

SLOW = "load.region=sleep:40ms"
HANG_LIMIT_S = 120
PERCENT = re.compile(r"loading (\d+) %")


def ask(address, path="/ready"):
    """(status, body) of an admin port or the API's; nothing where nobody listens yet."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()
    except OSError:
        return None


def watch(address):
    """Each progress that /ready of `address` told until it was ready, doubles left out."""
    told = []

    def ready():
        if (answer := ask(address)) is None:
            return False
        status, body = answer
        if status == 503:
            body = json.loads(body)
            if body["status"] == "loading" and told[-1:] != [body["progress"]]:
                told.append(body["progress"])
        return status == 200

    wait(f"{address} is not ready", ready, HANG_LIMIT_S)
    return told


class Loading(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with running("serve", TINY, "--port", "0") as at_once:  # and it is packed afterwards
            cls.quiet = [line for line in at_once.lines + at_once.errors if PERCENT.search(line)]

    def grows(self, told):
        self.assertEqual(told, sorted(told))
        self.assertGreater(len([one for one in told if 0 < one < 1]), 5, told)

    def lines_grow(self, lines, prefix="loading"):
        percents = [int(match[1]) for line in lines if (match := re.fullmatch(prefix + r" (\d+) %", line))]
        self.assertEqual(percents, sorted(set(percents)))
        self.assertGreater(len(percents), 3, lines)
        self.assertTrue(all(percent % 10 == 0 for percent in percents), percents)
        self.assertEqual(percents[-1], 100)

    def test_what_loads_at_once_says_nothing(self):
        self.assertEqual(self.quiet, [])

    def test_serve_and_a_chat_that_waits(self):
        port = free_ports(1)[0]
        api = f"127.0.0.1:{port}"
        server = Cluster("serve", TINY, "--port", port, "--faults", SLOW)
        try:
            wait("no admin port", lambda: server.find(r"^admin +(\S+)"), HANG_LIMIT_S)
            wait("no word on the API's port", lambda: (ask(api) or (0,))[0] == 503,
                 HANG_LIMIT_S)
            chat = subprocess.Popen([BIN / "bottega", "chat", "--url", f"http://{api}", "--max-tokens", "4", "Ciao"],
                                    text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                    stderr=subprocess.PIPE)
            door = json.loads(ask(api)[1])
            self.assertEqual(door["status"], "loading")
            self.assertLess(door["progress"], 1)
            self.assertEqual(ask(server.admin, "/live")[0], 200)
            ratio = scrape(server.admin)["bottega_load_progress_ratio"]
            self.assertLess(ratio, 1)
            self.grows(watch(server.admin))
            self.assertEqual(scrape(server.admin)["bottega_load_progress_ratio"], 1)
            server.wait_ready()
            _, errors = chat.communicate(timeout=HANG_LIMIT_S)
            self.assertEqual(chat.returncode, 0, errors)
            self.lines_grow(errors.splitlines(), "the server is loading")
        finally:
            server.stop()
        self.lines_grow(server.errors)

    def test_a_cluster(self):
        cluster = Cluster("up", TINY, "--port", "0", environment={"BOTTEGA_FAULTS": SLOW})
        try:
            wait("no workers", lambda: len(cluster.members()) >= 4, HANG_LIMIT_S)
            for name in ("attention-0", "expert-1"):
                self.assertIn(name, cluster.members())
            self.grows(watch(cluster.members()["expert-1"][1]))
            cluster.wait_ready()
            for name, (_, admin) in cluster.members().items():
                self.assertEqual(scrape(admin)["bottega_load_progress_ratio"], 1, name)
        finally:
            cluster.stop()
        self.lines_grow(cluster.errors)


if __name__ == "__main__":
    unittest.main(verbosity=2)
