"""Streams of a server and their speed: what the benches here have in common."""
import functools
import http.client
import json
import random
import threading
import time
import urllib.request

TOKEN_IDS = range(300, 1_000)  # plain tokens of every vocabulary here
HANG_LIMIT_S = 3_600


@functools.lru_cache
def model_of(url):
    with urllib.request.urlopen(url + "/v1/models", timeout=30) as answer:
        return json.load(answer)["data"][0]["id"]


class Stream(threading.Thread):
    """A greedy completion of random token ids; `times` says when each token came."""

    def __init__(self, url, prompt, tokens, seed):
        super().__init__(daemon=True)
        self.body = {"model": model_of(url), "prompt": random.Random(seed).choices(TOKEN_IDS, k=prompt),
                     "max_tokens": tokens, "temperature": 0, "stream": True, "ignore_eos": True}
        self.address, self.begun, self.times, self.error = url.removeprefix("http://"), 0.0, [], ""
        self.over = False  # set from outside: leaves with the next token

    def run(self):
        connection = http.client.HTTPConnection(self.address, timeout=HANG_LIMIT_S)
        self.begun = time.monotonic()
        connection.request("POST", "/v1/completions", json.dumps(self.body),
                           {"Content-Type": "application/json"})
        reply = connection.getresponse()
        if reply.status != 200:
            self.error = f"{reply.status}: {reply.read().decode()[:300]}"
        while not self.over and not self.error and (line := reply.readline()):
            if line.startswith(b'data: {"error'):
                self.error = line.decode()
            elif line.startswith(b"data: {"):
                self.times.append(time.monotonic())
        connection.close()

    def end(self):
        self.join()
        if self.error:
            raise RuntimeError(self.error)


def decode(url, streams, tokens):
    """Tokens a second of `streams` completions while all of them run: prompts do not count."""
    all_streams = [Stream(url, 16, tokens, seed) for seed in range(streams)]
    for stream in all_streams:
        stream.start()
    for stream in all_streams:
        stream.end()
    begin, end = max(s.times[0] for s in all_streams), min(s.times[-1] for s in all_streams)
    return sum(begin < t <= end for s in all_streams for t in s.times) / (end - begin)
