"""Requests as many clients would send them, mixed: chat and completions, streamed and not, prompts
of 16 to 1,500 tokens with and without a beginning that others share, answers of 8 to 128 tokens,
greedy, seeded and free, some left midway. An answer that may not change from one time to the next
is compared with the first, to the byte."""
import array
import asyncio
import dataclasses
import functools
import json
import random
import time

from raw_http import address_of, posted, status_of

REQUESTS = 480  # different ones; a lap has each of them once
SHARED = 8  # beginnings that several prompts have
PROMPT, ANSWER = (16, 1500), (8, 128)  # tokens, least and most
TEMPLATE, TOKENS_OF_A_WORD = 8, 2.7  # about; Mix.prompts has what they came to
IDS = range(300, 1000)  # of the vocabulary, without bytes and special tokens
ANSWER_LIMIT_S = 60  # a hang limit, not a measurement
TOKEN = b'"token_ids":['  # in every event that brings tokens
WORDS = ("casa numero barca rossa seven twelve the of dove quanto fa plus minus sette mare "
         "question answer Roma Torino city water small grande treno blue").split()


@dataclasses.dataclass(frozen=True)
class Request:
    path: str
    body: dict
    same: bool  # its answer is the same every time: greedy, or with a seed


def request(number: int) -> Request:
    chooser = random.Random(f"request {number}")
    chat, shared = number % 2 == 0, number % 4 < 2
    least, most = PROMPT
    length = round(least * (most / least) ** chooser.random())
    beginning = random.Random(f"beginning {number // 4 % SHARED if shared else f'of {number}'}")
    ending = random.Random(f"ending of {number}")

    def prompt(what, count: int) -> list:
        kept = count * 7 // 8
        return [*(beginning.choice(what) for _ in range(kept)),
                *(ending.choice(what) for _ in range(count - kept))]
    body = {"model": "bottega-tiny", "max_tokens": chooser.randint(*ANSWER), "temperature": 0,
            "return_token_ids": True, "ignore_eos": chooser.random() < 0.8}
    if chat:
        words = prompt(WORDS, max(4, round((length - TEMPLATE) / TOKENS_OF_A_WORD)))
        body["messages"] = [{"role": "user", "content": " ".join(words)}]
        body["chat_template_kwargs"] = {"reasoning_lang": chooser.choice(("ita", "en"))}
    else:
        body["prompt"] = prompt(IDS, length)
    if chooser.random() < 0.25:
        body["logprobs"] = True if chat else 1
    how = chooser.random()
    if how > 0.6:
        body["temperature"] = 0.8
    if 0.6 < how <= 0.85:
        body["seed"] = number
    return Request("/v1/chat/completions" if chat else "/v1/completions", body, same=how <= 0.85)


class Answer:
    """What may depend neither on streaming nor on how tokens fall into events."""

    def __init__(self):
        self.text, self.reasoning, self.ids, self.logprobs = "", "", [], []
        self.finish: str | None = None
        self.usage: dict = {}
        self.ended = False

    def add(self, answer: dict):
        for choice in answer["choices"]:
            said = choice.get("delta") or choice.get("message") or choice
            self.text += said.get("text") or said.get("content") or ""
            self.reasoning += said.get("reasoning") or ""
            self.ids += choice.get("token_ids") or []
            logprobs = choice.get("logprobs") or {}
            self.logprobs += logprobs.get("token_logprobs") or []
            self.logprobs += [token["logprob"] for token in logprobs.get("content") or []]
            self.finish = choice.get("finish_reason") or self.finish
        self.usage = answer.get("usage") or self.usage

    def whole(self) -> str:
        return json.dumps([self.text, self.reasoning, self.ids, self.logprobs, self.finish])


def answer_of(data: bytes) -> Answer:
    """Of all bytes that came, or of the first of them; ValueError if they are anything else."""
    head, _, rest = data.partition(b"\r\n\r\n")
    if status_of(data) != 200:
        raise ValueError(f"status {status_of(data)}: {rest[:300]!r}")
    answer = Answer()
    if b"text/event-stream" not in head:
        answer.add(json.loads(rest))
        answer.ended = True
        return answer
    for line in rest.split(b"\n")[:-1]:  # chunk sizes are lines of their own
        if line == b"data: [DONE]":
            answer.ended = True
        elif line.startswith(b"data: "):
            event = json.loads(line[6:])
            if "error" in event:
                raise ValueError(line)
            answer.add(event)
    return answer


@functools.lru_cache(maxsize=4)
def order(lap: int) -> list[int]:
    """Each lap has the same work, in an order of its own."""
    numbers = list(range(REQUESTS))
    random.Random(lap).shuffle(numbers)
    return numbers


class Mix:
    def __init__(self, url: str):
        self.address = address_of(url)
        self.requests = [request(number) for number in range(REQUESTS)]
        self.first: dict[int, Answer] = {}  # by number, of those whose answer is the same
        self.gaps = array.array("f")  # s between tokens of a stream; 0 if they came together
        self.answered = self.left = self.compared = self.open = 0
        self.failures: list[str] = []
        self.prompts: dict[int, int] = {}  # tokens, by number

    async def turn(self, turn: int):
        """One request, to its end or to where its client leaves; two in three are streams."""
        lap, place = divmod(turn, REQUESTS)
        number = order(lap)[place]
        stream = (lap + number) % 3 > 0
        leaves = stream and lap > 0 and (5 * lap + number) % 11 == 0
        self.open += 1
        try:
            async with asyncio.timeout(ANSWER_LIMIT_S):
                data = await self._ask(self.requests[number], stream, leaves)
            self._judge(number, answer_of(data), leaves)
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            self.failures.append(f"request {number}, turn {turn}, streamed: {stream}: "
                                 f"{type(error).__name__}: {error}")
        finally:
            self.open -= 1

    async def _ask(self, asked: Request, stream: bool, leaves: bool) -> bytes:
        body = asked.body
        if stream:
            body = body | {"stream": True, "stream_options": {"include_usage": True}}
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            writer.write(posted(asked.path, body, "Connection: close\r\n"))
            data, tokens, last = bytearray(), 0, None
            while piece := await reader.read(1 << 16):
                data += piece
                if stream and (came := piece.count(TOKEN)):
                    now = time.monotonic()
                    if last is not None:
                        self.gaps.append(now - last)
                    self.gaps.extend([0.0] * (came - 1))
                    last, tokens = now, tokens + came
                    if leaves and 2 * tokens >= asked.body["max_tokens"]:
                        writer.transport.abort()
                        break
            return bytes(data)
        finally:
            writer.close()

    def _judge(self, number: int, answer: Answer, leaves: bool):
        if not answer.ended and not leaves:
            raise ValueError(f"ended after {len(answer.ids)} tokens without [DONE]")
        if answer.ended:
            self.answered += 1
            self.prompts[number] = answer.usage["prompt_tokens"]
        else:
            self.left += 1
        if not self.requests[number].same:
            return
        if answer.ended:
            first = self.first.setdefault(number, answer)
            same = answer.whole() == first.whole()
        else:
            first = self.first[number]
            same = (first.text.startswith(answer.text)
                    and first.reasoning.startswith(answer.reasoning)
                    and first.ids[:len(answer.ids)] == answer.ids
                    and first.logprobs[:len(answer.logprobs)] == answer.logprobs)
        self.compared += 1
        if not same:
            raise ValueError(f"{answer.whole()[:300]} where the first answer was {first.whole()[:300]}")
