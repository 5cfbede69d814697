"""EngGPT2's reasoning as its authors' guide uses it, and its budget, by OpenAI's client."""
import json
import unittest
import urllib.request

import openai

from cluster import TINY, running

QUESTION = [{"role": "system", "content": "You are Bottega, a small helpful model."},
            {"role": "user", "content": "How much is 346 less 2?"}]
MODES = {"english": {}, "italian": {"reasoning_lang": "ita"}, "turbo": {"enable_turbo": True},
         "italian turbo": {"reasoning_lang": "ita", "enable_turbo": True},
         "none": {"enable_thinking": False}}
CLOSE = "</think>"


class Reasoning(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(running(
            "up", TINY, "--port", "0", "--attention-workers", "2", "--expert-workers", "2"))
        cls.client = openai.OpenAI(base_url=cls.server.url + "/v1", api_key="none", max_retries=0)

    def ask(self, kwargs=None, messages=QUESTION, stream=False, **extra):
        """Reasoning and content, None where there is none, and the whole answer of an unstreamed one."""
        arguments = {"model": "bottega-tiny", "messages": messages, "max_tokens": 300, "temperature": 0.6,
                     "seed": 5, "stream": stream} | {k: extra.pop(k) for k in ("stop", "max_tokens")
                                                     if k in extra}
        answer = self.client.chat.completions.create(
            extra_body={"chat_template_kwargs": kwargs or {}, "return_token_ids": True} | extra, **arguments)
        if not stream:
            message = answer.choices[0].message
            return message.reasoning, message.content, answer
        reasoning = content = None
        for chunk in answer:
            for choice in chunk.choices:
                if getattr(choice.delta, "reasoning", None):
                    reasoning = (reasoning or "") + choice.delta.reasoning
                if choice.delta.content:
                    content = (content or "") + choice.delta.content
        return reasoning, content, None

    def id_of(self, tag):
        with urllib.request.urlopen(urllib.request.Request(
                self.server.url + "/tokenize", headers={"Content-Type": "application/json"},
                data=json.dumps({"prompt": tag, "add_special_tokens": False}).encode())) as answer:
            tokens = json.load(answer)["tokens"]
        self.assertEqual(len(tokens), 1)
        return tokens[0]

    def test_the_five_modes(self):
        seen = {}
        for name, kwargs in MODES.items():
            with self.subTest(name):
                reasoning, content, answer = self.ask(kwargs)
                self.assertTrue(content)
                self.assertNotIn("think>", (reasoning or "") + content)
                self.assertEqual(self.ask(kwargs, stream=True)[:2], (reasoning, content))
                details = answer.usage.completion_tokens_details
                if name == "none":
                    self.assertIsNone(reasoning)
                    self.assertEqual(details.reasoning_tokens, 0)
                else:
                    self.assertTrue(reasoning)
                    self.assertGreater(details.reasoning_tokens, 0)
                    self.assertLess(details.reasoning_tokens, answer.usage.completion_tokens)
                seen[name] = reasoning
        self.assertLess(len(seen["turbo"]), len(seen["english"]))
        self.assertNotEqual(seen["italian"], seen["english"])

    def test_a_budget_by_two_calls(self):
        """The guide's: the thought is asked for alone, closed by hand and given back."""
        _, thought, answer = self.ask(stop=CLOSE, max_tokens=10)
        self.assertEqual(answer.choices[0].finish_reason, "length")
        self.assertEqual(answer.usage.completion_tokens, 10)
        said = QUESTION + [{"role": "assistant", "content": f"{thought}{CLOSE}"}]
        _, content, answer = self.ask(messages=said)
        self.assertTrue(content)
        _, thought, answer = self.ask(stop=CLOSE)
        self.assertEqual((answer.choices[0].finish_reason, answer.choices[0].stop_reason), ("stop", CLOSE))
        self.assertNotIn(CLOSE, thought)

    def test_the_thinking_budget(self):
        """Each budget gives what /v1/completions says after the prompt, the thought and </think>."""
        opening, close = self.id_of("<think>"), self.id_of(CLOSE)
        free, _, answer = self.ask()
        ids = answer.choices[0].token_ids
        natural = ids.index(close)
        prompt = answer.prompt_token_ids
        thinks_from = ids.index(opening) + 1 if opening in ids else 0
        for name in ("thinking_token_budget", "thinking_budget"):
            for budget in (0, 1, 7, natural - thinks_from - 1, natural - thinks_from, 1000):
                with self.subTest(name, budget=budget):
                    reasoning, content, answer = self.ask(**{name: budget})
                    got = answer.choices[0].token_ids
                    end = thinks_from + min(budget, natural - thinks_from)
                    self.assertEqual(got[:end], ids[:end])
                    self.assertEqual(got[end], close)
                    self.assertEqual(answer.usage.completion_tokens_details.reasoning_tokens, end + 1)
                    self.assertEqual(answer.usage.completion_tokens, len(got))
                    self.assertTrue(free.startswith(reasoning.rstrip()))
                    rest = self.client.completions.create(
                        model="bottega-tiny", prompt=prompt + got[:end + 1], temperature=0.6, seed=5,
                        max_tokens=300 - end - 1, extra_body={"return_token_ids": True}).choices[0]
                    self.assertEqual(rest.token_ids, got[end + 1:])
                    self.assertEqual(rest.text.lstrip("\n"), content)
                    self.assertEqual(self.ask(stream=True, **{name: budget})[:2], (reasoning or None, content))

    def test_a_budget_without_a_thought_changes_nothing(self):
        kwargs = MODES["none"]
        self.assertEqual(self.ask(kwargs, thinking_token_budget=0)[:2], self.ask(kwargs)[:2])

    def test_budgets_that_differ_are_refused(self):
        with self.assertRaises(openai.BadRequestError) as raised:
            self.ask(thinking_token_budget=5, reasoning_budget_tokens=6)
        self.assertEqual(raised.exception.param, "thinking_token_budget")


if __name__ == "__main__":
    unittest.main(verbosity=2)
