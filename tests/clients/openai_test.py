"""OpenAI's clients of PyPI and npm, unmodified, against one process and against a cluster: token
ids as transformers gave.

tests/golden/client/bottega-tiny.json holds greedy answers of transformers in float32 over the five
reasoning modes. A first divergence is allowed only where the reference itself was undecided (gap of
its two best logits < 1e-4), in at most 1 of 50 prompts.
"""
import concurrent.futures
import json
import pathlib
import re
import subprocess
import sys
import unittest

import openai

from cluster import ROOT, TINY, running, total

GOLDEN_FILE = ROOT / "tests/golden/client/bottega-tiny.json"
GOLDEN = json.loads(GOLDEN_FILE.read_text())
CLIENTS = pathlib.Path(sys.prefix)  # what tests/clients/setup made
UNDECIDED = 1e-4


def ask(client, case, stream):
    extra = {"chat_template_kwargs": case["chat_template_kwargs"], "return_token_ids": True}
    arguments = dict(model="bottega-tiny", messages=case["messages"], temperature=0,
                     max_tokens=GOLDEN["max_tokens"], extra_body=extra)
    if case.get("tools"):
        arguments["tools"] = case["tools"]
    if not stream:
        choice = client.chat.completions.create(**arguments).choices[0]
        calls = [[call.id, call.function.name, call.function.arguments]
                 for call in choice.message.tool_calls or []]
        return choice.token_ids, choice.message.content, choice.message.reasoning, calls
    ids, content, reasoning, calls = [], "", "", []
    for chunk in client.chat.completions.create(stream=True, **arguments):
        for choice in chunk.choices:
            ids += getattr(choice, "token_ids", None) or []
            content += choice.delta.content or ""
            reasoning += getattr(choice.delta, "reasoning", None) or ""
            for part in choice.delta.tool_calls or []:
                if part.id:
                    calls.append([part.id, part.function.name, ""])
                calls[part.index][2] += part.function.arguments or ""
    return ids, content or None, reasoning or None, calls


def expected_calls(case):
    """Name and arguments of each, the latter as the reference wrote them."""
    calls = re.findall(r'<tool_call>\n\{"name": "(\w+)", "arguments": (.*)\}\n</tool_call>',
                       case["generated_text"])
    return [list(call) for call in calls]


def ask_with_node(url, stream):
    """All cases through npm's client: as `ask` returns them."""
    command = [CLIENTS / "bin/node", ROOT / "tests/clients/openai_client.mjs", url + "/v1",
               GOLDEN_FILE, str(int(stream))]
    ran = subprocess.run(command, cwd=CLIENTS, capture_output=True, text=True, timeout=300)
    if ran.returncode != 0:
        raise RuntimeError(ran.stderr)
    return [json.loads(line) for line in ran.stdout.splitlines()]


class StockClient(unittest.TestCase):
    def check(self, url):
        client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0, timeout=300)
        self.assertEqual([m.id for m in client.models.list()], ["bottega-tiny"])
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            whole = list(pool.map(lambda case: ask(client, case, False), GOLDEN["cases"]))
            streamed = list(pool.map(lambda case: ask(client, case, True), GOLDEN["cases"]))
        self.compare(whole, streamed)
        print(f"{url}: {len(whole)} prompts, streamed and not")

    def compare(self, whole, streamed):
        """Both are the answers to all cases; they are the same, and what the reference gave."""
        self.assertGreaterEqual(len(GOLDEN["cases"]), 50)
        self.assertEqual((len(whole), len(streamed)), (len(GOLDEN["cases"]),) * 2)
        undecided = called = 0
        for case, answer, pieces in zip(GOLDEN["cases"], whole, streamed):
            self.assertEqual(answer[0], pieces[0], case["messages"])
            self.assertEqual(answer[1] or None, pieces[1], case["messages"])
            self.assertEqual(answer[2] or None, pieces[2], case["messages"])
            calls = [call[1:] for call in answer[3]]
            self.assertEqual(calls, [call[1:] for call in pieces[3]], case["messages"])
            ours, theirs = answer[0], case["generated_ids"]
            if ours == theirs:
                self.assertEqual(calls, expected_calls(case), case["messages"])
                called += len(calls)
                continue
            first = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b),
                         min(len(ours), len(theirs)))
            self.assertLess(case["top2_gap"][first], UNDECIDED,
                            f"{case['messages']}: token {first}: {ours[first:first + 3]} for "
                            f"{theirs[first:first + 3]}")
            undecided += 1
        self.assertLessEqual(undecided, len(GOLDEN["cases"]) // 50)
        self.assertGreaterEqual(called, 3)

    def test_one_process(self):
        with running("serve", TINY, "--port", "0", "--weights", "f32", "--row-type", "f32") as one:
            self.check(one.url)
            self.compare(ask_with_node(one.url, False), ask_with_node(one.url, True))

    def test_cluster(self):
        with running("up", TINY, "--port", "0", "--weights", "f32", "--row-type", "f32",
                     "--attention-workers", "2", "--expert-workers", "4", "--replication",
                     "2") as cluster:
            self.check(cluster.url)

    def test_choices_of_a_request_count_once_in_vllm_s_metrics(self):
        def seen(server, name):
            return [total(server.admin, f"vllm:request_{name}_{part}") for part in ("count", "sum")]

        with running("serve", TINY, "--port", "0") as one:
            client = openai.OpenAI(base_url=one.url + "/v1", api_key="none", max_retries=0)
            longest = 0
            for n, seed in ((1, 1), (4, 2), (4, 3)):
                answer = client.completions.create(
                    model="bottega-tiny", prompt="Once", max_tokens=40, n=n, seed=seed, temperature=1.5,
                    extra_body={"return_token_ids": True})
                longest += max(len(choice.token_ids) for choice in answer.choices)
            self.assertEqual(seen(one, "params_n"), [3, 9])
            self.assertEqual(seen(one, "max_num_generation_tokens"), [3, longest])

    def test_errors_are_the_sdk_s_own(self):
        with running("serve", TINY, "--port", "0") as one:
            client = openai.OpenAI(base_url=one.url + "/v1", api_key="none", max_retries=0)
            hello = [{"role": "user", "content": "Ciao"}]
            with self.assertRaises(openai.NotFoundError) as raised:
                client.chat.completions.create(model="other", messages=hello)
            self.assertEqual(raised.exception.code, "model_not_found")
            with self.assertRaises(openai.BadRequestError) as raised:
                client.chat.completions.create(model="bottega-tiny", messages=hello, temperature=3)
            self.assertEqual(raised.exception.param, "temperature")
            with self.assertRaises(openai.BadRequestError) as raised:
                client.chat.completions.create(model="bottega-tiny", messages=hello, max_tokens=10**7)
            self.assertEqual(raised.exception.code, "context_length_exceeded")


if __name__ == "__main__":
    unittest.main(verbosity=2)
