"""Streams whose bytes are known: what a client got without a fault is what it must get with one."""
import concurrent.futures
import contextlib
import json
import threading
import time


def body(number, tokens):
    return {"model": "bottega-tiny", "prompt": f"The number {number} is", "max_tokens": tokens,
            "logprobs": 2, "seed": number, "temperature": 0 if number % 2 else 0.8,
            "extra_body": {"ignore_eos": True, "return_token_ids": True}}


def ask(client, number, tokens):
    """One stream through OpenAI's client; text, ids, logprobs and finish reason as one string."""
    text, ids, logprobs, finish = "", [], [], None
    for chunk in client.completions.create(stream=True, **body(number, tokens)):
        for choice in chunk.choices:
            text += choice.text or ""
            ids += getattr(choice, "token_ids", None) or []
            if choice.logprobs:
                logprobs += [repr(p) for p in choice.logprobs.token_logprobs or []]
            finish = choice.finish_reason or finish
    return json.dumps([text, ids, logprobs, finish])


class Load:
    """`streams` clients ask again and again until the block ends; then `answers` are all of them."""

    def __init__(self, client, streams, tokens):
        self.client, self.streams, self.tokens = client, streams, tokens
        self.answers: list[tuple[int, str]] = []
        self.errors: list[str] = []
        self._over = threading.Event()

    def _run(self, number):
        while not self._over.is_set():
            try:
                self.answers.append((number, ask(self.client, number, self.tokens)))
            except Exception as error:  # noqa: BLE001: whatever a client sees counts
                self.errors.append(f"{time.monotonic():.3f} {type(error).__name__}: {error}")

    def __enter__(self):
        self._pool = concurrent.futures.ThreadPoolExecutor(self.streams)
        for number in range(self.streams):
            self._pool.submit(self._run, number)
        return self

    def __exit__(self, *_):
        self._over.set()
        self._pool.shutdown()


def expected(client, streams, tokens):
    with concurrent.futures.ThreadPoolExecutor(streams) as pool:
        return list(pool.map(lambda n: ask(client, n, tokens), range(streams)))


def status(router):
    """`bottega status --json` of the writing one of these routers."""
    import subprocess
    from cluster import BIN
    ran = subprocess.run([BIN / "bottega", "status", "--json", "--router", router], text=True,
                         capture_output=True, timeout=30)
    return json.loads(ran.stdout) if ran.returncode == 0 else None


@contextlib.contextmanager
def unharmed(test, client, streams, tokens):
    """The load of the block: whatever is done in it, nobody fails and every answer has the bytes of
    before it."""
    calm = expected(client, streams, tokens)
    with Load(client, streams, tokens) as load:
        yield load
    test.assertEqual(load.errors, [])
    for number, answer in load.answers:
        test.assertEqual(answer, calm[number])


def wait(what, done, limit=60):
    """What `done()` gives once that is true; a hang limit, not a measurement."""
    deadline = time.monotonic() + limit
    while not (found := done()):
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.02)
    return found
