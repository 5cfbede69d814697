"""bench/peers: the shapes it writes, the floors it claims, the answers of the tools that it reads."""
import math
import pathlib
import subprocess
import sys
import tempfile
import unittest

PEERS = pathlib.Path(__file__).resolve().parents[2] / "bench/peers"
sys.path.insert(0, str(PEERS))
import bottega  # noqa: E402
import llama_cpp  # noqa: E402
import run  # noqa: E402
import shapes  # noqa: E402
from work import Failure, Work, output  # noqa: E402


def weights(shape, layers):
    return sum(math.prod(t.shape) for t in shapes.tensors(shape, layers, "q8_0"))


class Shapes(unittest.TestCase):
    enggpt2 = shapes.SHAPES["enggpt2"]

    def test_has_the_weights_of_the_models(self):
        expert_weights = 14_332_723_200
        padding = expert_weights * 8 // 1080
        self.assertEqual(weights(self.enggpt2, 24), 15_729_347_904 + padding)
        self.assertEqual(weights(shapes.SHAPES["dense-8b"], 32), 8_030_261_248)

    def test_experts_are_padded_to_whole_blocks(self):
        self.assertEqual([shapes.padded(width) for width in (1, 32, 1080, 1088)], [32, 32, 1088, 1088])
        by_name = {t.name: t for t in shapes.tensors(self.enggpt2, 2, "q4_0")}
        self.assertEqual(len(by_name), 3 + 2 * 12)
        down = by_name["blk.1.ffn_down_exps.weight"]
        self.assertEqual(down.shape, (64, 2880, 1088))
        self.assertEqual(down.bytes, 64 * 2880 * 34 * 18)
        self.assertEqual(by_name["blk.0.ffn_gate_exps.weight"].bytes, 64 * 1088 * 90 * 18)
        self.assertEqual(by_name["blk.0.ffn_gate_inp.weight"].bytes, 64 * 2880 * 4)
        self.assertEqual(by_name["output.weight"].shape, (131084, 2880))
        with self.assertRaises(ValueError):
            shapes.Tensor("down", (2880, 1080), "q8_0").bytes

    def test_a_step_reads_the_experts_it_hits(self):
        def read(tokens):
            return shapes.step_bytes(self.enggpt2, 24, "q8_0", tokens)

        dense = 2_810_693_184 - 1_791_590_400  # weights of one token, without experts
        norms_and_routers = 24 * (2 * 2880 + 2 * 128 + 64 * 2880) + 2880
        experts = 64 * 3 * 2880 * 1088 * 24 * 34 // 32
        dense_bytes = (dense - norms_and_routers) * 34 // 32 + norms_and_routers * 4
        self.assertEqual(read(1), dense_bytes + experts // 8)
        self.assertEqual(read(2), round(dense_bytes + experts * (1 - (7 / 8) ** 2)))
        self.assertEqual(read(512), dense_bytes + experts)
        dense_8b = shapes.SHAPES["dense-8b"]
        self.assertEqual(shapes.step_bytes(dense_8b, 32, "q4_0", 1),
                         shapes.step_bytes(dense_8b, 32, "q4_0", 16))

    def test_fewer_layers_are_scaled_to_the_whole(self):
        attention, experts = 2 * 2880 * (4096 + 512), 8 * 3 * 2880 * 1088  # of one layer
        self.assertAlmostEqual(shapes.depth_scale(self.enggpt2, 12, "q8_0", Work("prefill", 512)),
                               (12 * attention + 11 * experts) / (24 * attention + 23 * experts), 4)
        self.assertEqual(shapes.depth_scale(self.enggpt2, 24, "q8_0", Work("decode", 4)), 1)
        head_too = shapes.depth_scale(self.enggpt2, 12, "q8_0", Work("decode", 1))
        self.assertTrue(0.5 < head_too < 0.6)


class Reading(unittest.TestCase):
    prefill = '[{"n_prompt": 512, "n_gen": 0, "avg_ts": 40.5, "samples_ts": [40.5]}]'
    decode = ('llama_context: n_ctx = 256\n'
              '{"n_kv_max": 256, "pp": 16, "tg": 32, "pl": 8, "speed_pp": 99.0, "speed_tg": 12.5}\n\n'
              '{"n_kv_max": 256, "pp": 16, "tg": 1, "pl": 8, "speed_pp": 99.0, "speed_tg": 11.5}\n\n')

    def test_llama_bench(self):
        self.assertEqual(llama_cpp.parse_prefill(self.prefill, Work("prefill", 512)), 40.5)
        with self.assertRaisesRegex(Failure, "no prefill 256"):
            llama_cpp.parse_prefill(self.prefill, Work("prefill", 256))

    def test_llama_batched_bench(self):
        self.assertEqual(llama_cpp.parse_decode(self.decode, Work("decode", 8)), 12.5)
        with self.assertRaisesRegex(Failure, "no decode 16"):
            llama_cpp.parse_decode(self.decode, Work("decode", 16))

    def test_a_tool_that_fails_is_told_in_one_line(self):
        with self.assertRaisesRegex(Failure, "^tool ended with 3: the last$"):
            output(["sh", "-c", "echo first >&2; echo the last >&2; exit 3"], "tool")
        with self.assertRaisesRegex(Failure, "No such file"):
            output(["/nonexistent/tool"], "tool")


class Ours(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def contestant(self, script: str) -> bottega.Bottega:
        program = self.folder / "bottega"
        program.write_text("#!/bin/sh\n" + script)
        program.chmod(0o755)
        return bottega.Bottega(program, self.folder, 2)

    def test_a_program_without_the_command_is_refused(self):
        ours = self.contestant("echo 'bottega: no command \"bench\"' >&2; exit 2")
        with self.assertRaisesRegex(Failure, 'bottega: no command "bench"'):
            ours.prepare()

    def test_measures_anew_in_each_round(self):
        ours = self.contestant(f'echo run >> {self.folder}/runs\n'
                               '[ "$1 $2 $3 $4 $5" = "bench $(dirname $0) --threads 2 --json" ] || exit 1\n'
                               'echo \'{"tokens_per_s": {"decode 1": 9.5, "decode 2": 15}, "works": ['
                               '{"name": "decode 1", "kind": "decode", "step_cost": {"weight_bytes": 7}},'
                               '{"name": "decode 2", "kind": "decode", "step_cost": {"weight_bytes": 8}}'
                               ']}\' > "$6"\n')
        for _ in range(2):
            self.assertEqual([ours.run(Work("decode", n)) for n in (1, 2)], [9.5, 15])
            self.assertEqual([ours.step_bytes(Work("decode", n)) for n in (1, 2)], [7, 8])
        self.assertEqual((self.folder / "runs").read_text(), "run\nrun\n")
        with self.assertRaisesRegex(Failure, "no prefill 512"):
            ours.run(Work("prefill", 512))


class Fake:
    def __init__(self, name, rates, step):
        self.name, self.rates, self.step = name, iter(rates), step

    def run(self, work):
        return next(self.rates)

    def step_bytes(self, work):
        return self.step

    def depth_scale(self, work):
        return self.step and 0.5


class Rounds(unittest.TestCase):
    def test_interleaves_and_pairs_each_number_with_its_bandwidth(self):
        peer, ours = Fake("peer", [10, 30, 20], 100), Fake("ours", [5, 5, 5], None)
        bandwidth = iter([4000, 1, 1, 6000, 4000, 1])
        work = Work("decode", 2)
        samples = run.measure([peer, ours], [work], 3, lambda: next(bandwidth))
        self.assertEqual([s["contestant"] for s in samples],
                         ["peer", "ours", "ours", "peer", "peer", "ours"])
        rows = run.summary([peer, ours], [work], samples)
        # Steps a second times bytes of a step, over bandwidth: 5 * 100 / 4000, then 1/4, 1/4.
        self.assertEqual(rows[0], {"contestant": "peer", "work": "decode 2", "median": 20, "min": 10,
                                   "max": 30, "floor_share": 0.25, "whole_model": 10})
        self.assertEqual((rows[1]["floor_share"], rows[1]["whole_model"]), (None, None))
        self.assertIn("| peer | decode 2 | 20.00 (10.00–30.00) | 25% | 10.00 |", run.table(rows, 12, 24))
        self.assertIn("| ours | decode 2 | 5.00 (5.00–5.00) | – | – |", run.table(rows, 12, 24))


class Refusals(unittest.TestCase):
    def refused(self, why, *words):
        done = subprocess.run([sys.executable, "-B", PEERS / "run.py", *words], text=True,
                              capture_output=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, rf"\Abench/peers: {why}\n\Z")

    def test_bad_input_is_one_line(self):
        self.refused("no shape 'gpt'; there are enggpt2, dense-8b", "--shape", "gpt")
        self.refused("25 layers: enggpt2 has 1 to 24", "--layers", "25")
        self.refused("0 layers: dense-8b has 1 to 32", "--shape", "dense-8b", "--layers", "0")
        self.refused("--threads and --rounds are at least 1", "--rounds", "0")
        self.refused("--json /nonexistent/x: no such folder", "--json", "/nonexistent/x")

    def test_no_disk(self):
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaisesRegex(Failure, r"GB free; the model needs 1000001\.1$"):
                llama_cpp.room_for(10**15, pathlib.Path(folder))
            llama_cpp.room_for(-llama_cpp.SLACK_BYTES, pathlib.Path(folder))


if __name__ == "__main__":
    unittest.main()
