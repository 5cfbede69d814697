"""A real Prometheus scrapes every process of a live cluster, as observability/prometheus/local.yml says.

What it then knows is compared with observability/metrics.md, both ways; with the tokens that the clients counted (an
attention worker is killed meanwhile); with what the dashboards ask. promtool checks configuration, rules, rule tests
and the text of every scrape.
"""
import concurrent.futures
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request

from cluster import ROOT, TINY, free_ports, post, running

sys.path.insert(0, str(ROOT / "tests/observability"))
from promql import SCRAPE_LABELS, base_name, dashboards, metrics_md, panels  # noqa: E402

TOOLS = ROOT / "build/debian/prometheus/files/usr/bin"  # tools/unpack prometheus
HANG_LIMIT_S = 60
SERIES_MAX = 2000
PROCESSES = {"gateway-0": "gateway", "router": "router", "attention-0": "attention",
             "attention-1": "attention", "expert-0": "expert", "expert-1": "expert"}  # of the cluster
STREAMS = 12


def wait_for(what: str, probe):
    """The first true answer of `probe`."""
    deadline = time.monotonic() + HANG_LIMIT_S
    while True:
        with contextlib.suppress(OSError):
            if answer := probe():
                return answer
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.1)


class Prometheus:
    """A Prometheus of its own, in `folder`, with the configuration for a local cluster."""

    def __init__(self, folder: pathlib.Path):
        shutil.copytree(ROOT / "observability/alerts", folder / "alerts")
        (folder / "prometheus").mkdir()
        text = (ROOT / "observability/prometheus/local.yml").read_text()
        self.config = folder / "prometheus" / "local.yml"
        self.config.write_text(text.replace("5s", "1s"))
        self.targets = folder / "prometheus" / "targets.json"
        self.folder, self.url, self.process = folder, "", None

    def start(self):
        port, = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        log = open(self.folder / "prometheus.log", "w")
        with log:
            self.process = subprocess.Popen(
                [TOOLS / "prometheus", f"--config.file={self.config}",
                 f"--storage.tsdb.path={self.folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for("Prometheus is not ready", lambda: self._get("/-/ready"))

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=30)

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return answer.read()

    def api(self, path: str, **parameters):
        return json.loads(self._get(f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))["data"]

    def query(self, expression: str) -> list[dict]:
        return self.api("query", query=expression)["result"]

    def value(self, expression: str) -> float:
        result = self.query(expression)
        return float(result[0]["value"][1]) if result else float("nan")


def generate(url: str, number: int, stream: bool) -> int:
    """One request to its end; the generated tokens that its client was told of."""
    body = {"model": "bottega-tiny", "prompt": f"The number {number} is", "max_tokens": 150, "seed": number,
            "ignore_eos": True, "return_token_ids": True, "stream": stream}
    if not stream:
        body["n"] = 2
        return post(url, "/v1/completions", body)["usage"]["completion_tokens"]
    request = urllib.request.Request(url + "/v1/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    count = 0
    with urllib.request.urlopen(request, timeout=HANG_LIMIT_S) as answer:
        for raw in answer:
            line = raw.decode().strip()
            if line.startswith("data: {"):
                event = json.loads(line[6:])
                if "error" in event:
                    raise RuntimeError(line)
                count += sum(len(choice.get("token_ids") or []) for choice in event["choices"])
    return count


class WhatPrometheusSees(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cleanup = contextlib.ExitStack()
        folder = pathlib.Path(cls.cleanup.enter_context(tempfile.TemporaryDirectory()))
        cls.prometheus = Prometheus(folder)
        cls.cluster = cls.cleanup.enter_context(running(
            "up", TINY, "--port", "0", "--attention-workers", "2", "--expert-workers", "2", "--replication", "2",
            "--moe-metrics", "detailed", "--prometheus-targets", cls.prometheus.targets))
        cls.cleanup.callback(cls.prometheus.stop)
        cls.prometheus.start()
        cls.counted = cls.load()

    @classmethod
    def tearDownClass(cls):
        cls.cleanup.close()

    @classmethod
    def load(cls) -> int:
        """Requests of all kinds while an attention worker dies; the tokens that clients got."""
        cls.counted_first = generate(cls.cluster.url, 0, True)
        wait_for("not scraped", lambda: cls.prometheus.value(
            "sum(bottega_gateway_generation_tokens_total)") == cls.counted_first)
        with concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
            requests = [pool.submit(generate, cls.cluster.url, number, number % 3 > 0) for number in range(STREAMS)]
            admin = cls.cluster.members()["gateway-0"][1]
            wait_for("no stream runs", lambda: cls.cluster.metrics(admin)["bottega_gateway_open_streams"] > 0)
            os.kill(cls.cluster.members()["attention-0"][0], signal.SIGKILL)
            counted = cls.counted_first + sum(request.result() for request in requests)
        chat = post(cls.cluster.url, "/v1/chat/completions",
                    {"model": "bottega-tiny", "messages": [{"role": "user", "content": "Quanto fa 12 + 30?"}]})
        for body in ({"model": "nobody", "prompt": "x"}, {"model": "bottega-tiny", "prompt": "x", "temperature": 9}):
            with contextlib.suppress(urllib.error.HTTPError):
                post(cls.cluster.url, "/v1/completions", body)
        return counted + chat["usage"]["completion_tokens"]

    def after_a_scrape(self):
        """Everything that has happened by now is in Prometheus, and every process has a rate."""
        now = time.time()
        wait_for("a process has no rate", lambda: self.prometheus.value(
            'count(count_over_time(up{job="bottega"}[1m]) > 1)') == len(PROCESSES))
        wait_for("a process is not scraped", lambda: all(
            float(sample["value"][1]) > now for sample in self.prometheus.query('timestamp(up{job="bottega"})')))
        wait_for("a process is down", lambda: self.prometheus.value('min(up{job="bottega"})') == 1)

    def test_every_process_is_scraped(self):
        up = {sample["metric"]["instance"]: sample["metric"]["component"]
              for sample in self.prometheus.query('up{job="bottega"}')}
        self.assertEqual(up, PROCESSES)

    def test_the_tokens_are_those_that_clients_counted(self):
        self.after_a_scrape()
        self.assertEqual(self.prometheus.value("sum(bottega_gateway_generation_tokens_total)"), self.counted)
        self.assertGreater(self.prometheus.value('bottega_gateway_failovers_total{outcome="resumed"}'), 0)

    def test_metrics_md_and_the_scrape_are_the_same(self):
        self.after_a_scrape()
        names = self.prometheus.api("label/__name__/values", **{"match[]": '{job="bottega"}'})
        kinds = {name: entry[0]["type"] for name, entry in self.prometheus.api("metadata").items()}
        seen = {}
        for name in names:
            if name == "up" or name.startswith("scrape_"):
                continue
            base = base_name(name) if base_name(name) in kinds else name
            labels = {label for series in self.prometheus.api("series", **{"match[]": name}) for label in series}
            seen.setdefault(base, (kinds[base], set()))[1].update(labels - SCRAPE_LABELS - {"__name__"})
        listed = metrics_md()
        self.assertEqual(set(seen) - set(listed), set(), "scraped, but not in metrics.md")
        self.assertEqual(set(listed) - set(seen), set(), "in metrics.md, but nowhere scraped")
        for name, kind_and_labels in listed.items():
            self.assertEqual(seen[name], kind_and_labels, name)

    def test_a_process_has_a_bounded_number_of_series(self):
        for sample in self.prometheus.query('count by (instance) ({job="bottega"})'):
            print(f"{sample['metric']['instance']}: {sample['value'][1]} series")
            self.assertLessEqual(int(sample["value"][1]), SERIES_MAX, sample["metric"])

    def test_each_query_of_the_dashboards_returns_data(self):
        self.after_a_scrape()
        for name, dashboard in dashboards().items():
            for panel in panels(dashboard):
                for target in panel["targets"]:
                    expression = target["expr"].replace("$__rate_interval", "1m").replace(
                        "$job", "bottega").replace("$instance", ".+")
                    with self.subTest(f"{name}: {panel['title']}", query=expression):
                        self.assertTrue(self.prometheus.query(expression), "no data")

    def test_no_rule_fails(self):
        for group in self.prometheus.api("rules")["groups"]:
            for rule in group["rules"]:
                self.assertIn(rule["health"], ("ok", "unknown"), rule)

    def test_promtool_finds_nothing(self):
        def promtool(*arguments, text=None):
            done = subprocess.run([TOOLS / "promtool", *map(str, arguments)], input=text, text=True,
                                  capture_output=True, timeout=300)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            return done.stdout + done.stderr

        promtool("check", "config", self.prometheus.config)
        promtool("check", "rules", *sorted((ROOT / "observability/alerts").glob("*.yml")))
        promtool("test", "rules", ROOT / "tests/observability/alerts_test.yml")
        for name, (_, admin) in self.cluster.members().items():
            with urllib.request.urlopen(f"http://{admin}/metrics", timeout=30) as answer:
                # vLLM's names are not ours to correct: colons are for recording rules.
                text = "".join(line for line in answer.read().decode().splitlines(keepends=True) if "vllm:" not in line)
                self.assertEqual(promtool("check", "metrics", text=text).strip(), "", name)


if __name__ == "__main__":
    unittest.main()
