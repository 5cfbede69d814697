"""No process grows with what it has served: RSS of each after 10,000 requests and after 100,000, while
an expert worker dies every ten thousand. BOTTEGA_REQUESTS sets the second number (the long tier's is
the default)."""
import http.client
import json
import os
import signal
import threading
import unittest
import urllib.parse

from cluster import TINY, is_ready, running
from process import rss
from raw_http import wait_until

CLIENTS = 16
WARM = 10_000  # by then the KV pool is full: what is cached stays
ALL = int(os.environ.get("BOTTEGA_REQUESTS", 10 * WARM))
GROWTH_MAX = 0.01
ROUND = 256 << 10  # what an allocator rounds to, far less than a byte a request


class Memory(unittest.TestCase):
    def serve(self, url: str, count: int):
        """`count` requests of all kinds, none failed."""
        address = urllib.parse.urlparse(url).netloc
        wrong = []

        def client(first: int):
            connection = http.client.HTTPConnection(address, timeout=60)
            for number in range(first, count, CLIENTS):
                body = {"model": "bottega-tiny", "prompt": f"The number {number % 997} is", "max_tokens": 1 + number % 6,
                        "seed": number, "temperature": number % 3 / 2, "stream": number % 2 == 0, "ignore_eos": True}
                connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != 200 or b'"error"' in text:
                    wrong.append(text)
            connection.close()

        threads = [threading.Thread(target=client, args=(first,)) for first in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])

    def test_nothing_grows(self):
        with running("up", TINY, "--port", "0", "--attention-workers", "2", "--expert-workers", "4",
                     "--replication", "2", "--kv-cache", "16MiB") as cluster:
            survivors = [name for name in cluster.members() if name != "expert-3"]

            def sizes():
                return {name: rss(cluster.members()[name][0]) for name in survivors}

            def kill_one():
                pid, _ = cluster.members()["expert-3"]
                os.kill(pid, signal.SIGKILL)
                wait_until(lambda: cluster.members()["expert-3"][0] != pid and
                           is_ready(cluster.members()["expert-3"][1]))

            self.serve(cluster.url, WARM // 2)
            kill_one()
            self.serve(cluster.url, WARM // 2)
            before = sizes()
            for _ in range(WARM, ALL, WARM):
                self.serve(cluster.url, WARM)
                kill_one()
            after = sizes()
            for name in survivors:
                print(f"{name}: {before[name] / 2**20:.1f} MiB after {WARM} requests, {after[name] / 2**20:.1f} after {ALL}")
            for name in survivors:
                self.assertLessEqual(after[name], before[name] * (1 + GROWTH_MAX) + ROUND, name)


if __name__ == "__main__":
    unittest.main(verbosity=2)
