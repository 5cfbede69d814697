"""Open-loop load: requests come at their times, whatever becomes of those before them."""
import asyncio
import dataclasses
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from raw_http import address_of, completion, status_of


@dataclasses.dataclass
class Outcome:
    number: int  # of the prompt
    status: int  # 0: the connection broke
    began: float
    seconds: float
    tokens: int
    text: str
    headers: dict[str, str]


NUMBERS = 64  # different prompts


async def ask(url: str, number: int, max_tokens: int, headers: str = "") -> Outcome:
    body = {"model": "bottega-tiny", "prompt": f"The number {number} is", "max_tokens": max_tokens,
            "ignore_eos": True, "temperature": 0, "logprobs": 1}
    began = time.monotonic()
    data = b""
    try:
        reader, writer = await asyncio.open_connection(*address_of(url))
        try:
            writer.write(completion(body, headers + "Connection: close\r\n"))
            data = await reader.read()
        finally:
            writer.close()
    except OSError:
        pass
    seconds = time.monotonic() - began
    head, _, rest = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:])
    answer = json.loads(rest) if status_of(data) == 200 else {}
    choice = answer.get("choices", [{}])[0]
    return Outcome(number, status_of(data), began, seconds,
                   answer.get("usage", {}).get("completion_tokens", 0),
                   json.dumps([choice.get("text"), choice.get("logprobs")]), fields)


async def again_and_again(one: Callable[[int], Awaitable], clients: int, seconds: float):
    """A closed loop: each of the `clients` calls `one(number)` again as soon as it is answered."""
    end = time.monotonic() + seconds

    async def client(number: int):
        while time.monotonic() < end:
            await one(number)
            number += clients
    await asyncio.gather(*(client(n) for n in range(clients)))


async def arrivals(rate: float, seconds: float, seed: int = 1) -> AsyncIterator[int]:
    """0, 1, 2, ... at the times of Poisson arrivals of `rate` a second."""
    chooser = random.Random(seed)
    begin = time.monotonic()
    due, number = 0.0, 0
    while (due := due + chooser.expovariate(rate)) < seconds:
        await asyncio.sleep(max(0.0, begin + due - time.monotonic()))
        yield number
        number += 1


async def closed(url: str, clients: int, seconds: float, max_tokens: int) -> list[Outcome]:
    outcomes: list[Outcome] = []

    async def one(number: int):
        outcomes.append(await ask(url, number % NUMBERS, max_tokens))
    await again_and_again(one, clients, seconds)
    return outcomes


async def opened(url: str, rate: float, seconds: float, max_tokens: int, tries: int = 1,
                 seed: int = 1) -> list[Outcome]:
    """Poisson arrivals of `rate` a second. A refused one is tried again at once, `tries` in all."""
    outcomes: list[Outcome] = []

    async def client(n: int):
        for _ in range(tries):
            outcomes.append(await ask(url, n % NUMBERS, max_tokens))
            if outcomes[-1].status == 200:
                return
    async with asyncio.TaskGroup() as tasks:
        async for number in arrivals(rate, seconds, seed):
            tasks.create_task(client(number))
    return outcomes


def quantile(values: Sequence[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else 0.0


def goodput(outcomes: list[Outcome]) -> float:
    """Tokens a second of whole answers, from the first arrival to the last answer."""
    served = [o for o in outcomes if o.status == 200]
    if not served:
        return 0.0
    end = max(o.began + o.seconds for o in served)
    return sum(o.tokens for o in served) / (end - min(o.began for o in outcomes))
