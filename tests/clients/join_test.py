"""Who may join a running cluster, and who not: workers of another model, numerics or protocol are
refused with a clear word and counted; a second process of a live name takes it over; a worker that
fails its self-test is given no rows; one that joins under load is used, and drained without a loss;
one whose file is cut under it (M9) dies, and nobody notices; one whose file is replaced goes on; one
that cannot come back is waited for.
"""
import contextlib
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import unittest

import openai

from cluster import BIN, ROOT, TINY, free_ports, is_ready, running, total
from streams import status, unharmed, wait

NEXT = pathlib.Path(os.environ.get("BOTTEGA_TESTS", BIN.parent / "tests"))
STREAMS, TOKENS = 8, 60
REFUSED = 3  # exit code


class Join(unittest.TestCase):
    @contextlib.contextmanager
    def started(self, program, *arguments):
        """A process by hand; its lines are in `lines`, all of them once it has ended."""
        process = subprocess.Popen([program, *arguments], stdin=subprocess.DEVNULL, text=True,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            process.stderr.close()

    def worker(self, cluster, name, *more, program=BIN / "bottega-expert", model=TINY):
        return self.started(program, model, "--router", cluster.routers, "--name", name, *more)

    def changes(self, cluster, change):
        series = cluster.series(cluster.members()["router"][1],
                                "bottega_router_member_changes_total")
        return sum(value for key, value in series.items() if f'change="{change}"' in key)

    def moves(self, cluster, reason):
        series = cluster.series(cluster.members()["router"][1],
                                "bottega_router_expert_moves_total")
        return sum(value for key, value in series.items() if f'reason="{reason}"' in key)

    def held(self, cluster, name):
        table = status(cluster.routers)
        ids = [member["id"] for member in table["members"] if member["name"] == name]
        return sum(ids[0] in replicas for layer in table["replicas"] for replicas in layer) \
            if ids else 0

    def assert_refused(self, process, words):
        _, said = process.communicate(timeout=60)
        self.assertEqual(process.returncode, REFUSED, said)
        self.assertRegex(said, words)

    def test_o12_d9_strangers_are_refused(self):
        with running("up", TINY, "--port", "0", "--expert-workers", "2") as cluster:
            client = openai.OpenAI(base_url=cluster.url + "/v1", api_key="none", timeout=120)
            members = len(status(cluster.routers)["members"])
            other = ROOT / "tests/fixtures/random-qwen3moe"
            newer = "speaks protocols 2 to 2, this cluster 1"
            with unharmed(self, client, STREAMS, TOKENS) as load:
                with self.worker(cluster, "other-model", model=other) as process:
                    self.assert_refused(process, "serves model .*, this cluster serves")
                with self.worker(cluster, "other-rows", "--row-type", "f32") as process:
                    self.assert_refused(process, "computes .*-f32, this cluster computes .*-bf16")
                for role in ("expert", "attention", "gateway"):
                    with self.worker(cluster, f"newer-{role}",
                                     program=NEXT / f"bottega-{role}-next") as process:
                        self.assert_refused(process, newer)
            self.assertEqual(self.changes(cluster, "refused"), 5, "the alarm")
            self.assertEqual(len(status(cluster.routers)["members"]), members)

    def test_o12_a_newer_router_refuses_older_workers(self):
        with self.started(NEXT / "bottega-router-next", "--port", "0") as router:
            address = next(match[1] for line in router.stderr
                           if (match := re.search(r"router at (\S+?),", line)))
            with self.started(BIN / "bottega-expert", TINY, "--router", address) as worker:
                self.assert_refused(worker, "speaks protocols 1 to 1, this cluster 2")

    def test_s13_the_older_of_two_processes_of_one_name_is_fenced(self):
        with running("up", TINY, "--port", "0", "--expert-workers", "2", "--replication",
                     "2") as cluster:
            client = openai.OpenAI(base_url=cluster.url + "/v1", api_key="none", timeout=120)
            with unharmed(self, client, STREAMS, TOKENS) as load:
                with self.worker(cluster, "expert-0") as second:
                    wait("the older one's end", lambda: cluster.find(r"^died +expert-0"))
                    # Its supervisor starts it again: now that is the newer one.
                    second.communicate(timeout=60)
            self.assertGreaterEqual(self.changes(cluster, "replaced"), 2, "the alarm")

    def test_a_worker_joins_under_load_and_is_drained(self):
        with running("up", TINY, "--port", "0", "--expert-workers", "2", "--replication",
                     "2") as cluster:
            client = openai.OpenAI(base_url=cluster.url + "/v1", api_key="none", timeout=120,
                                   max_retries=0)
            with unharmed(self, client, STREAMS, TOKENS) as load:
                with self.worker(cluster, "broken", "--faults", "ew.compute=corrupt") as broken:
                    said = next(line for line in broken.stderr if "is not served" in line)
                    self.assertIn("self-test", said)
                    self.assertEqual(self.held(cluster, "broken"), 0)
                with self.worker(cluster, "expert-2") as joined:
                    wait("its experts", lambda: self.held(cluster, "expert-2") > 0)
                    self.assertGreater(self.moves(cluster, "join"), 0)
                    soon = len(load.answers) + STREAMS
                    wait("answers with it", lambda: len(load.answers) >= soon)
                    joined.send_signal(signal.SIGTERM)
                    joined.communicate(timeout=60)
                    self.assertEqual(joined.returncode, 0)
                    self.assertGreater(self.moves(cluster, "drain"), 0)

    def test_m9_a_file_replaced_while_mapped_changes_no_byte(self):
        """Every weight file of a joined worker gets another content by rename: it goes on with what it
        has mapped, and cannot come back with what lies there now."""
        with tempfile.TemporaryDirectory() as folder, \
                running("up", TINY, "--port", "0", "--expert-workers", "2", "--replication",
                        "2") as cluster:
            copy = pathlib.Path(folder, "copy")
            subprocess.run([BIN / "bottega", "pack", TINY, copy], check=True, capture_output=True)
            client = openai.OpenAI(base_url=cluster.url + "/v1", api_key="none", timeout=120,
                                   max_retries=0)
            with unharmed(self, client, STREAMS, TOKENS) as load:
                with self.worker(cluster, "expert-2", model=copy) as joined:
                    wait("its experts", lambda: self.held(cluster, "expert-2") > 0)
                    for file in copy.glob("*.weights"):
                        other = file.with_name("other")
                        other.write_bytes(bytes(byte ^ 0x55 for byte in file.read_bytes()))
                        other.rename(file)
                    soon = len(load.answers) + 2 * STREAMS
                    wait("answers with it", lambda: len(load.answers) >= soon)
                    self.assertIsNone(joined.poll())
                    self.assertGreater(self.held(cluster, "expert-2"), 0)

    def test_m9_an_attention_worker_whose_file_is_cut_is_failed_over(self):
        """It dies of it, loudly, and its requests go on at the other one, to the byte."""
        with tempfile.TemporaryDirectory() as folder, \
                running("up", TINY, "--port", "0", "--expert-workers", "2", "--replication",
                        "2") as cluster:
            copy = pathlib.Path(folder, "copy")
            subprocess.run([BIN / "bottega", "pack", TINY, copy], check=True, capture_output=True)
            client = openai.OpenAI(base_url=cluster.url + "/v1", api_key="none", timeout=120,
                                   max_retries=0)
            admin, = free_ports(1)
            attention = self.worker(cluster, "attention-1", "--admin-port", str(admin), model=copy,
                                    program=BIN / "bottega-attention")
            with unharmed(self, client, STREAMS, TOKENS) as load:
                with attention as joined:
                    wait("its first tokens", lambda: joined.poll() is not None or (
                        is_ready(f"127.0.0.1:{admin}")
                        and total(f"127.0.0.1:{admin}", "bottega_attention_generation_tokens_total") > 0))
                    os.truncate(copy / "attention.weights", 4096)
                    _, said = joined.communicate(timeout=60)
                    self.assertEqual(joined.returncode, -signal.SIGBUS, said)
                soon = len(load.answers) + STREAMS
                wait("answers without it", lambda: len(load.answers) >= soon)

    def test_m9_a_worker_whose_file_is_cut_is_failed_over(self):
        """A joined worker with a copy of its own, which is cut while it is served from."""
        with tempfile.TemporaryDirectory() as folder, \
                running("up", TINY, "--port", "0", "--expert-workers", "2", "--replication",
                        "2") as cluster:
            copy = pathlib.Path(folder, "copy")
            subprocess.run([BIN / "bottega", "pack", TINY, copy], check=True, capture_output=True)
            client = openai.OpenAI(base_url=cluster.url + "/v1", api_key="none", timeout=120,
                                   max_retries=0)
            with unharmed(self, client, STREAMS, TOKENS) as load:
                with self.worker(cluster, "expert-2", model=copy) as joined:
                    wait("its experts", lambda: self.held(cluster, "expert-2") > 0)
                    soon = len(load.answers) + STREAMS
                    wait("answers with it", lambda: len(load.answers) >= soon)
                    for file in copy.glob("experts.*"):
                        os.truncate(file, 4096)
                    _, said = joined.communicate(timeout=60)
                    self.assertEqual(joined.returncode, -signal.SIGBUS, said)
                    soon = len(load.answers) + STREAMS
                    wait("answers without it", lambda: len(load.answers) >= soon)
                with self.worker(cluster, "expert-2", model=copy) as again:
                    self.assert_refused(again, r"experts\.\d+\.weights: 4096 bytes, the manifest")

    def test_a_worker_that_refuses_to_come_back_ends_nobody(self):
        """A worker of `up` dies and cannot open the model any more: the others go on, and it is back
        once the model is. The living have the old file mapped."""
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder, "copy")
            subprocess.run([BIN / "bottega", "pack", TINY, copy], check=True, capture_output=True)
            with running("up", copy, "--port", "0", "--expert-workers", "2", "--replication", "2",
                         "--served-model-name", "bottega-tiny") as cluster:
                client = openai.OpenAI(base_url=cluster.url + "/v1", api_key="none", timeout=120,
                                       max_retries=0)
                weights = next(copy.glob("experts.*"))
                kept = weights.rename(weights.with_name("kept"))
                weights.write_bytes(b"")
                with unharmed(self, client, STREAMS, TOKENS) as load:
                    os.kill(cluster.members()["expert-0"][0], signal.SIGKILL)
                    wait("its refusal", lambda: cluster.find(r"^died +expert-0 +exit code 3"))
                    soon = len(load.answers) + STREAMS
                    wait("answers without it", lambda: len(load.answers) >= soon)
                    kept.rename(weights)
                    wait("its return", lambda: self.held(cluster, "expert-0") > 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
