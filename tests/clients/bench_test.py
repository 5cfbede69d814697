"""`bottega bench` and `bottega plan` whole, on the bundled model: what they print and write.

Not how fast anything is: that is for whoever runs them on an idle machine.
"""
import json
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest

from cluster import BIN, TINY

QUICK = ["--prefill", "32", "--decode", "1,3", "--steps", "4", "--rounds", "2"]


def bottega(*words):
    return subprocess.run([BIN / "bottega", *words], text=True, capture_output=True, timeout=120,
                          check=False)


class Bench(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = pathlib.Path(folder.name, "bench.json")

    def test_measures_and_tells(self):
        done = bottega("bench", TINY, *QUICK, "--mixed", "1s", "--mixed-rate", "20", "--weights",
                       "int8", "--json", self.file)
        self.assertEqual(done.returncode, 0, done.stderr)
        for line in ("machine ", "prefill 32 ", "decode 1 ", "decode 3 ", "time to first token ",
                     "ITL ", "memory "):
            self.assertIn(f"\n{line}", done.stdout)
        self.assertIn("decode 3, round 2 of 2", done.stderr)
        bench = json.loads(self.file.read_text())
        self.assertEqual(list(bench["tokens_per_s"]), ["prefill 32", "decode 1", "decode 3"])
        self.assertEqual((bench["model"]["weights"], bench["model"]["layers"]), ("int8", 4))
        self.assertGreater(bench["pss_bytes"], 10 << 20)
        self.assertGreater(bench["ready_seconds"], 0)
        self.assertGreater(bench["rates"]["read_bytes_per_s"], 1e8)
        for work in bench["works"]:
            self.assertEqual(len(work["samples"]), 2)
            self.assertLessEqual(work["least"], work["tokens_per_s"])
            self.assertLessEqual(work["tokens_per_s"], work["most"])
            self.assertEqual(work["tokens_per_s"], bench["tokens_per_s"][work["name"]])
            self.assertGreater(work["floor_share"], 0)
        one, three = bench["works"][1:]
        self.assertEqual(one["experts_of_a_layer"], 8)  # what a token chooses
        self.assertTrue(8 <= three["experts_of_a_layer"] <= 24, three)
        self.assertEqual(three["between_tokens_ms"]["count"], 8)
        self.assertEqual(three["samples"][0]["tokens"], 12)
        mixed = bench["mixed"]
        self.assertGreater(mixed["requests"], 3)
        self.assertEqual(mixed["between_tokens_ms"]["count"], mixed["tokens"] - mixed["requests"])
        for times in (mixed["first_token_ms"], mixed["between_tokens_ms"]):
            self.assertTrue(0 < times["p50"] <= times["p90"] <= times["p99"] <= times["max"], times)

        plan = bottega("plan", TINY, "--memory", "2GiB", "--bench", self.file)
        self.assertEqual(plan.returncode, 0, plan.stderr)
        self.assertIn(f"({self.file})", plan.stdout)
        self.assertRegex(plan.stdout, r"choose +int8: .*\n +bottega serve \S+ --weights int8")

    def test_a_deeper_context(self):
        done = bottega("bench", TINY, *QUICK, "--prefill", "none", "--context", "16,600", "--mixed", "0s",
                       "--json", self.file)
        self.assertEqual(done.returncode, 0, done.stderr)
        works = json.loads(self.file.read_text())["works"]
        self.assertEqual([work["name"] for work in works],
                         ["decode 1", "decode 3", "decode 1 at 600", "decode 3 at 600"])
        shallow, deep = (work["step_cost"]["kv_bytes"] for work in (works[1], works[3]))
        self.assertGreater(deep, 20 * shallow)

    def test_what_does_not_fit_is_refused(self):
        done = bottega("bench", TINY, "--context", "1M", "--mixed", "0s")
        self.assertEqual(done.returncode, 2)
        self.assertRegex(done.stderr, r"decode 1 at 1048576 needs a context of \d+ tokens; this model has")
        done = bottega("bench", TINY, "--kv-cache", "64KiB")
        self.assertEqual(done.returncode, 2)
        self.assertIn("--kv-cache 65536 is less than", done.stderr)

    def test_ctrl_c_ends_it_at_once(self):
        child = subprocess.Popen([BIN / "bottega", "bench", TINY, "--rounds", "1000"], text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for line in child.stderr:
            if line.startswith("prefill"):
                break
        begun = time.monotonic()
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=10)
        self.assertEqual(child.returncode, -signal.SIGINT)
        self.assertLess(time.monotonic() - begun, 5)


class Plan(unittest.TestCase):
    def test_measures_this_machine(self):
        done = bottega("plan", "--shape", "enggpt2", "--memory", "24GiB")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"machine +read [\d.]+ GB/s, f32 \d+ GFLOP/s")
        self.assertRegex(done.stdout, r"bf16 .*does not fit")
        self.assertRegex(done.stdout, r"choose +int8: ")


if __name__ == "__main__":
    unittest.main(verbosity=2)
