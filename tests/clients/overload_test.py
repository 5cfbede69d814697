"""More load than the cluster carries: O1, O2, O3, O7, O8, R11, with a live cluster each.

Zeros, bytes and counts decide: every answer is whole and the same as in calm, or a refusal that says
when to come again; refusals cost the workers nothing. Goodput and times are printed here and judged by
bench/overload.py, which takes minutes.
"""
import asyncio
import json
import os
import signal
import unittest
import urllib.error
import urllib.request

import memory_limit
from cluster import TINY, post, running
from open_loop import NUMBERS, ask, closed, goodput, opened, quantile
from process import SANITIZED, rss
from raw_http import completion, connect, wait_until

TOKENS = 192
FLAGS = ("up", TINY, "--port", "0", "--attention-workers", "1", "--expert-workers", "2")


class Overload(unittest.TestCase):
    def value(self, cluster, name: str, prefix: str) -> float:
        return sum(cluster.series(cluster.members()[name][1], prefix).values())

    def idle(self, cluster) -> bool:
        return (self.value(cluster, "attention-0", 'bottega_attention_kv_blocks{state="used"}') == 0
                and self.value(cluster, "gateway-0", "bottega_gateway_queue_depth") == 0)

    def judge(self, outcomes, expected):
        """Every outcome is a whole answer with the calm bytes or a refusal with Retry-After."""
        refused = [o for o in outcomes if o.status != 200]
        for outcome in refused:
            self.assertIn(outcome.status, (429, 503))
            self.assertGreaterEqual(int(outcome.headers["retry-after"]), 1)
            self.assertLessEqual(int(outcome.headers["retry-after"]), 60)
            self.assertGreaterEqual(int(outcome.headers["retry-after-ms"]), 1000)
        wrong = [o.number for o in outcomes
                 if o.status == 200 and (o.tokens, o.text) != (TOKENS, expected[o.number])]
        self.assertEqual(wrong, [], "answers that differ from the calm ones")
        return refused

    def calm(self, cluster) -> dict[int, str]:
        """The bytes of each different answer, a few at a time."""
        async def ask_all():
            return [await asyncio.gather(*(ask(cluster.url, n, TOKENS)
                                           for n in range(first, first + 16)))
                    for first in range(0, NUMBERS, 16)]
        return {o.number: o.text for some in asyncio.run(ask_all()) for o in some}

    def cap(self, cluster) -> dict[str, tuple[int, str]]:
        """The members as they are: whoever comes to hold a fifth more than now is ended by the kernel."""
        members = cluster.members()
        if reason := "a sanitizer keeps what is freed" if SANITIZED else memory_limit.lacking():
            print(f"  O1: without a memory cap: {reason}")
            return members
        for pid, _ in members.values():
            self.addCleanup(memory_limit.MemoryLimit(pid, rss(pid) // 5).end)  # the cluster is gone by then
        return members

    def test_o1_o7_five_times_what_it_carries(self):
        # A KV pool that is full before memory is capped: what is touched for the first time is growth.
        with running(*FLAGS, "--kv-cache", "48MiB") as cluster:
            peak_outcomes = asyncio.run(closed(cluster.url, 64, 5, TOKENS))
            peak = goodput(peak_outcomes)
            rate = 5 * peak / TOKENS
            expected = self.calm(cluster)
            members = self.cap(cluster)
            begin = self.value(cluster, "attention-0", "bottega_attention_generation_tokens_total")
            outcomes = asyncio.run(opened(cluster.url, rate, 6, TOKENS, tries=3))
            wait_until(lambda: self.idle(cluster))
            refused = self.judge(outcomes, expected)
            self.assertGreater(len(refused), 0, "that was no overload")
            computed = self.value(cluster, "attention-0",
                                  "bottega_attention_generation_tokens_total") - begin
            served = sum(o.tokens for o in outcomes)
            self.assertLessEqual(computed, 1.1 * served, "O7: refused requests are computed")
            times = [o.seconds for o in refused]
            print(f"  O1: peak {peak:.0f} tokens/s; at 5x {goodput(outcomes):.0f}; "
                  f"{len(refused)} of {len(outcomes)} refused, p50 {quantile(times, .5) * 1e3:.0f} ms, "
                  f"p99 {quantile(times, .99) * 1e3:.0f} ms")
            # No collapse afterwards: what it carried before it carries again.
            after = asyncio.run(closed(cluster.url, 16, 2, TOKENS))
            self.assertEqual({o.status for o in after}, {200})
            self.assertEqual(cluster.members(), members, "somebody was ended for lack of memory")

    def test_o2_a_deadline_in_the_queue(self):
        with running(*FLAGS) as cluster:
            hogs = [connect(cluster.url) for _ in range(64)]
            for raw in hogs:
                raw.sendall(completion({"model": "bottega-tiny", "prompt": "Once", "max_tokens": 4000,
                                        "ignore_eos": True, "stream": True}))
            wait_until(lambda: self.value(cluster, "gateway-0", "bottega_gateway_requests_running") == 64)
            # All slots are taken, and each prompt has been computed once it decodes.
            wait_until(lambda: self.value(cluster, "attention-0",
                                          "bottega_attention_requests_running") == 64)
            before = self.value(cluster, "attention-0", "bottega_attention_prompt_tokens_total")

            async def late():
                return await asyncio.gather(*(ask(cluster.url, n, TOKENS,
                                                  "x-request-timeout-ms: 50\r\n") for n in range(40)))
            self.assertEqual({o.status for o in asyncio.run(late())}, {504})
            self.assertEqual(self.value(cluster, "attention-0",
                                        "bottega_attention_prompt_tokens_total"), before)
            for raw in hogs:
                raw.close()
            wait_until(lambda: self.idle(cluster))

    def test_o3_r11_a_small_kv_pool(self):
        """More streams than blocks: the young give way and are computed again, nobody starves."""
        with running(*FLAGS, "--kv-cache", "1536KiB") as cluster:
            context = self.context(cluster)
            self.assertLess(context, 4096)
            for body in ({"prompt": "x", "max_tokens": context + 1},
                         {"prompt": [7] * (context + 5), "max_tokens": 1}):
                with self.assertRaises(urllib.error.HTTPError) as refused:
                    post(cluster.url, "/v1/completions", {"model": "bottega-tiny", **body})
                self.assertEqual(refused.exception.code, 400)
                refused.exception.close()
            self.assertEqual(self.value(cluster, "attention-0",
                                        "bottega_attention_prompt_tokens_total"), 0)
            tokens = context // 2

            async def one(n):
                return await ask(cluster.url, n, tokens)

            async def alone():
                return [(await one(n)).text for n in range(12)]

            async def together():
                return [o.text for o in await asyncio.gather(*(one(n) for n in range(12)))]
            expected = asyncio.run(alone())
            self.assertTrue(asyncio.run(together()) == expected, "preempted answers differ")
            preempted = self.value(cluster, "attention-0", "bottega_attention_preemptions_total")
            print(f"  O3: context {context}, {preempted:.0f} preemptions")
            self.assertGreater(preempted, 0)
            wait_until(lambda: self.idle(cluster))

    def test_o8_half_the_expert_workers_die(self):
        flags = ("up", TINY, "--port", "0", "--attention-workers", "1", "--expert-workers", "4",
                 "--replication", "2")
        with running(*flags) as cluster:
            expected = self.calm(cluster)

            async def load_and_kill():
                load = asyncio.create_task(closed(cluster.url, 24, 8, TOKENS))
                await asyncio.sleep(2)  # well into the load; the fault, not a wait for something
                for name in ("expert-0", "expert-1"):
                    os.kill(cluster.members()[name][0], signal.SIGKILL)
                return await load
            outcomes = asyncio.run(load_and_kill())
            shed = self.judge(outcomes, expected)
            self.assertEqual({o.status for o in shed} - {503}, set())
            slow = max(o.seconds for o in outcomes)
            print(f"  O8: {len(outcomes)} answers, {len(shed)} shed, the slowest {slow * 1e3:.0f} ms")
            after = asyncio.run(closed(cluster.url, 24, 2, TOKENS))
            self.assertEqual({o.status for o in after}, {200})
            wait_until(lambda: self.idle(cluster))

    def context(self, cluster) -> int:
        with urllib.request.urlopen(cluster.url + "/v1/models") as answer:
            return json.load(answer)["data"][0]["max_model_len"]


if __name__ == "__main__":
    unittest.main(verbosity=2)
