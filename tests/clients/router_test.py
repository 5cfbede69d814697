"""The writing router is killed, or stopped past its lease, under streams: tokens flow on the last
table, the standby writes under a higher term, the old writer steps down. An expert worker that dies
or joins while nobody writes is handled afterwards. With a lease in a file, and in etcd if
`tools/unpack etcd-server` was run.
"""
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import unittest
import urllib.error
import urllib.request

import openai

from cluster import ROOT, TINY, running
from streams import status, unharmed, wait

STREAMS, TOKENS = 8, 80
ETCD = pathlib.Path(os.environ.get("BOTTEGA_ETCD", ROOT / "build/debian/etcd-server/files/usr/bin/etcd"))
SHAPE = ("--attention-workers", "1", "--expert-workers", "3", "--replication", "2")


@contextlib.contextmanager
def etcd():
    """A store of its own on a free port; its client URL."""
    with socket.socket() as one, socket.socket() as two, tempfile.TemporaryDirectory() as data:
        for sock in (one, two):
            sock.bind(("127.0.0.1", 0))
        client, peer = (f"http://127.0.0.1:{s.getsockname()[1]}" for s in (one, two))
        one.close(), two.close()
        process = subprocess.Popen(
            [ETCD, "--data-dir", data, "--listen-client-urls", client, "--advertise-client-urls",
             client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
             "--initial-cluster", f"default={peer}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            def healthy():
                try:
                    return urllib.request.urlopen(client + "/health", timeout=2).status == 200
                except (urllib.error.URLError, OSError):
                    return False
            wait("etcd", healthy)
            yield client
        finally:
            process.kill()
            process.wait()


class Router(unittest.TestCase):
    def leader(self, cluster, name):
        try:
            return sum(cluster.series(cluster.members()[name][1],
                                      "bottega_router_is_leader").values())
        except OSError:
            return 0

    def writers(self, cluster):
        return [name for name in cluster.members()
                if name.startswith("router") and self.leader(cluster, name) == 1]

    def rows(self, cluster, name):
        return sum(cluster.series(cluster.members()[name][1],
                                  "bottega_expert_rows_total").values())

    @contextlib.contextmanager
    def under_load(self, *flags):
        """A cluster that answers all the time, with the right bytes, whatever the block does."""
        with running("up", TINY, "--port", "0", *SHAPE, *flags) as cluster:
            client = openai.OpenAI(base_url=cluster.url + "/v1", api_key="none", timeout=120,
                                   max_retries=0)
            with unharmed(self, client, STREAMS, TOKENS) as load:
                wait("answers under load", lambda: len(load.answers) >= STREAMS)
                yield cluster, load
                soon = len(load.answers) + STREAMS
                wait("answers after it", lambda: len(load.answers) >= soon)

    def kill_the_writer(self, *flags):
        with self.under_load("--routers", "2", *flags) as (cluster, load):
            writer, = self.writers(cluster)
            before = status(cluster.routers)
            os.kill(cluster.members()[writer][0], signal.SIGKILL)
            # The standby, unless the killed one was restarted and asked first.
            wait("a higher term", lambda: (now := status(cluster.routers)) is not None and
                 now["term"] > before["term"] and len(now["members"]) == len(before["members"]))
            self.assertEqual(len(self.writers(cluster)), 1)
            after = status(cluster.routers)
            self.assertGreater(after["epoch"], before["epoch"])

    def stop_the_writer(self, *flags):
        with self.under_load("--routers", "2", *flags) as (cluster, load):
            writer, = self.writers(cluster)
            pid = cluster.members()[writer][0]
            before = status(cluster.routers)
            os.kill(pid, signal.SIGSTOP)
            try:
                other = next(name for name in cluster.members()
                             if name.startswith("router") and name != writer)
                wait("another writer", lambda: self.leader(cluster, other) == 1)
                answered = len(load.answers)
                wait("tokens meanwhile", lambda: len(load.answers) > answered)
            finally:
                os.kill(pid, signal.SIGCONT)
            wait("the old one to step down", lambda: self.writers(cluster) == [other])
            wait("a table", lambda: (now := status(cluster.routers)) is not None and
                 len(now["members"]) == len(before["members"]))
            self.assertGreater(status(cluster.routers)["term"], before["term"])
            self.assertTrue(any("writes no more" in line for line in cluster.errors),
                            "the old writer says that it steps down")

    def test_a_writer_killed(self):
        self.kill_the_writer()

    def test_a_writer_stopped_past_its_lease(self):
        self.stop_the_writer()

    @unittest.skipUnless(ETCD.exists(), "no etcd: tools/unpack etcd-server")
    def test_with_etcd(self):
        with etcd() as url:
            self.kill_the_writer("--lease", f"etcd:{url}/bottega/killed")
            self.stop_the_writer("--lease", f"etcd:{url}/bottega/stopped")

    def test_an_expert_worker_dies_while_the_only_router_stands_still(self):
        with self.under_load() as (cluster, load):
            before = status(cluster.routers)
            router, expert = (cluster.members()[name][0] for name in ("router", "expert-1"))
            os.kill(router, signal.SIGSTOP)
            try:
                os.kill(expert, signal.SIGKILL)
                wait("its restart", lambda: cluster.members()["expert-1"][0] != expert)
                answered = len(load.answers)
                wait("tokens on the last table", lambda: len(load.answers) > answered + STREAMS)
            finally:
                os.kill(router, signal.SIGCONT)
            wait("rows at the new one", lambda: self.rows(cluster, "expert-1") > 0)
            after = status(cluster.routers)
            # A later term only if it stood still for longer than its lease.
            self.assertGreaterEqual(after["term"], before["term"])
            self.assertGreater(after["epoch"], before["epoch"])

    def test_the_only_router_killed(self):
        with self.under_load() as (cluster, load):
            before = status(cluster.routers)
            os.kill(cluster.members()["router"][0], signal.SIGKILL)
            wait("a higher term", lambda: (now := status(cluster.routers)) is not None and
                 now["term"] > before["term"] and len(now["members"]) == len(before["members"]))
            self.assertGreater(status(cluster.routers)["epoch"], before["epoch"])
            self.assertEqual(self.writers(cluster), ["router"])

    def test_all_expert_workers_at_once(self):
        with self.under_load() as (cluster, load):
            old = {name: pid for name, (pid, _) in cluster.members().items() if "expert" in name}
            for pid in old.values():
                os.kill(pid, signal.SIGKILL)
            for name, pid in old.items():
                wait(f"{name} anew", lambda: cluster.members()[name][0] != pid)
            deaths = [line for line in cluster.lines if line.startswith("died ")]
            self.assertEqual(len(deaths), len(old), "no crash loop")


if __name__ == "__main__":
    unittest.main(verbosity=2)
