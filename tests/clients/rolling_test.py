"""Every process restarted once, one by one, under load (SIGUSR2 to `bottega up`).

Clients are OpenAI's with its default retries: none fails, every byte is as before the restart, every
process drains and ends with exit code 0, and every one is another process afterwards.
"""
import signal
import unittest

import openai

from cluster import TINY, running
from streams import status, unharmed, wait

STREAMS, TOKENS = 12, 60


class Rolling(unittest.TestCase):
    def roll(self, *flags):
        with running("up", TINY, "--port", "0", *flags) as cluster:
            client = openai.OpenAI(base_url=cluster.url + "/v1", api_key="none", timeout=120)
            before = cluster.members()
            term = status(cluster.routers)["term"]
            with unharmed(self, client, STREAMS, TOKENS) as load:
                wait("answers under load", lambda: len(load.answers) >= STREAMS)
                cluster.process.send_signal(signal.SIGUSR2)
                wait("the end of the restart", lambda: cluster.find(r"^rolled "), limit=300)
                rolled = len(load.answers)
                wait("answers after it", lambda: len(load.answers) >= rolled + STREAMS)
            self.assertTrue(cluster.find(r"^rolled +every"), cluster.lines)
            after = cluster.members()
            self.assertEqual(after.keys(), before.keys())
            for name, (pid, _) in after.items():
                self.assertNotEqual(pid, before[name][0], f"{name} was not restarted")
            ended = [line for line in cluster.lines if line.startswith("ended ")]
            self.assertEqual(len(ended), len(before), ended)
            for line in ended:
                self.assertTrue(line.endswith("exit code 0"), line)
            self.assertIsNone(cluster.find(r"^died "), cluster.lines)
            self.assertGreater(status(cluster.routers)["term"], term)
            print(f"{len(before)} processes restarted under {STREAMS} streams, "
                  f"{len(load.answers)} answers, 0 failed")

    def test_o10_two_of_each(self):
        self.roll("--gateways", "2", "--routers", "2", "--attention-workers", "2",
                  "--expert-workers", "3", "--replication", "2")

    def test_one_of_each_that_can_be_alone(self):
        self.roll("--attention-workers", "1", "--expert-workers", "2", "--replication", "1")


if __name__ == "__main__":
    unittest.main(verbosity=2)
