"""The same bytes from one process, one attention worker and one expert worker, two and four, over
shared memory and over TCP.

32 requests at once, greedy and seeded, with logprobs printed so that f32 round-trips; then one after
the other. A lost expert row often leaves every argmax unchanged, so logprobs are part of the answer.
"""
import concurrent.futures
import json
import unittest

from cluster import TINY, post, running

PROMPTS = ["Quanto fa 12 + 30?", "What is 7 times 8?", "Repeat this: the red boat", "Ciao, chi sei?",
           "What is the capital of Italy?", "Replace cat by dog: my cat sleeps", "Quanto fa 9 - 4?",
           "What's the weather in Rome?"]
MODES = [{}, {"reasoning_lang": "ita"}, {"enable_turbo": True}, {"enable_thinking": False}]

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}


def requests():
    for i in range(32):
        body = {"messages": [{"role": "user", "content": PROMPTS[i % len(PROMPTS)]}],
                "chat_template_kwargs": MODES[(i // 8) % len(MODES)], "max_tokens": 24 + i,
                "logprobs": True, "top_logprobs": i % 4, "return_token_ids": True}
        body |= {"temperature": 0} if i % 2 == 0 else {"temperature": 0.9, "top_p": 0.95, "seed": i}
        if "weather" in PROMPTS[i % len(PROMPTS)]:  # ids of calls are made of the request's
            body |= {"tools": [WEATHER], "request_id": f"weather-{i}"}
        yield body


def answer(url, body):
    reply = post(url, "/v1/chat/completions", body)
    del reply["usage"]["prompt_tokens_details"]  # what was cached: whoever asked before decides
    return json.dumps([reply["choices"], reply["usage"], reply["system_fingerprint"]],
                      sort_keys=True)


def answers(url, at_once):
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda body: answer(url, body), requests()))


class OneAnswer(unittest.TestCase):
    maxDiff = 2000

    def test_same_bytes_from_every_shape(self):
        flags = [TINY, "--port", "0"]
        with running("serve", *flags) as one:
            expected = answers(one.url, 1)
            self.assertTrue(any('"tool_calls": [' in answer for answer in expected), expected)
            self.assertEqual(answers(one.url, 32), expected, "serve, 32 at once")
            self.assertEqual(one.transports(one.admin), {"loopback"})
        for attention, experts, replication, transport in ((1, 1, 1, "tcp"), (1, 1, 1, "shm"),
                                                           (2, 4, 2, "tcp"), (2, 4, 2, "shm")):
            shape = f"{attention}A x {experts}E over {transport}"
            # Shared memory: what `auto` chooses here; TCP: by order.
            exchange = "auto" if transport == "shm" else transport
            with running("up", *flags, "--attention-workers", str(attention), "--expert-workers",
                         str(experts), "--replication", str(replication), "--exchange",
                         exchange) as cluster:
                self.assertEqual(answers(cluster.url, 32), expected, f"{shape}, 32 at once")
                self.assertEqual(answers(cluster.url, 1), expected, f"{shape}, one by one")
                for name, (_, admin) in cluster.members().items():
                    if name.startswith(("attention", "expert")):
                        self.assertEqual(cluster.transports(admin), {transport}, name)
                    if name.startswith("expert"):
                        rows = cluster.series(admin, "bottega_expert_rows_total")
                        self.assertGreater(sum(rows.values()), 0, f"{shape}: {name} computed nothing")

    def test_same_bytes_from_quantised_weights(self):
        for weights in ("int8", "int4"):
            flags = [TINY, "--port", "0", "--weights", weights]
            with running("serve", *flags) as one:
                expected = answers(one.url, 1)
            with running("up", *flags, "--attention-workers", "2", "--expert-workers", "4") as cluster:
                self.assertEqual(answers(cluster.url, 32), expected, weights)


if __name__ == "__main__":
    unittest.main(verbosity=2)
