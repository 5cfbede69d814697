"""Decode throughput of a server: what the benches here have in common."""
import concurrent.futures
import json
import pathlib
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests/clients"))
from cluster import post  # noqa: E402


def decode(url, streams, tokens):
    """Tokens a second of `streams` greedy completions at once, of `tokens` tokens each."""
    with urllib.request.urlopen(url + "/v1/models", timeout=30) as answer:
        model = json.load(answer)["data"][0]["id"]
    body = {"model": model, "prompt": "The number 7 is", "max_tokens": tokens,
            "ignore_eos": True, "temperature": 0}
    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(streams) as pool:
        list(pool.map(lambda _: post(url, "/v1/completions", body), range(streams)))
    return streams * tokens / (time.monotonic() - start)
