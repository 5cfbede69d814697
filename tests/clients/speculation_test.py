"""bottega-tiny with speculation and without: the same bytes, and drafts that were right.

Copies and edits, where most of the answer stands in the prompt, and all else; greedy and seeded, one
by one and at once.
"""
import unittest

import one_answer_test
from cluster import TINY, running

COPIES = ["Repeat this: mattina lafe piccolo acqua mano sopra bird tool 4057",
          "Ripeti le parole dopo i due punti: 717 tool bird bimel blue gerro vulo old",
          "Replace freddo with mupu: fuoco freddo gunsipa pimatre uccello",
          "Sostituisci mano con sen: mano blu luce acqua"]


def copy_requests():
    for i, text in enumerate(COPIES * 2):
        yield {"messages": [{"role": "user", "content": text}], "max_tokens": 80, "logprobs": True,
               "top_logprobs": 2, "temperature": 0 if i < len(COPIES) else 0.8, "seed": i,
               "chat_template_kwargs": {"enable_thinking": i % 2 == 0}}


def answers(url, at_once):
    copies = [one_answer_test.answer(url, body) for body in copy_requests()]
    return copies + one_answer_test.answers(url, at_once)


def accepted(cluster, admin):
    return sum(cluster.series(admin, "vllm:spec_decode_num_accepted_tokens_total").values())


class Speculation(unittest.TestCase):
    maxDiff = 2000

    def test_same_bytes_with_and_without(self):
        flags = [TINY, "--port", "0", "--num-speculative-tokens"]
        with running("serve", *flags, "0") as plain:
            expected = answers(plain.url, 1)
            self.assertEqual(accepted(plain, plain.admin), 0)
        for drafted in ("1", "8", "16"):
            with running("serve", *flags, drafted) as one:
                for at_once in (1, 32):
                    self.assertEqual(answers(one.url, at_once), expected, f"{drafted}, {at_once}")
                # How many are drafted depends on what steps take here, and how busy the machine is.
                self.assertGreater(accepted(one, one.admin), 10)


if __name__ == "__main__":
    unittest.main(verbosity=2)
