"""The web page in headless Chromium (page_cases.mjs, over playwright-core) against a live cluster, and its
Markdown without a browser (markdown_cases.mjs). Both run under Node's own test runner.

`tools/install --browser` installs Chromium; BOTTEGA_CHROMIUM points elsewhere.
"""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from cluster import ROOT, TINY, running
from process import SANITIZED

HERE = pathlib.Path(__file__).resolve().parent
CLIENTS = ROOT / "build/clients"
KEY = "a key of the test"
HANG_LIMIT_S = 540 * (5 if SANITIZED else 1)


def node(cases: str, **environment: str):
    """Runs a file of cases; what they print is printed, and a failed one fails here."""
    with tempfile.TemporaryDirectory() as scratch:
        ran = subprocess.run(
            [CLIENTS / "bin/node", "--test", "--test-concurrency=1", "--test-reporter=spec", HERE / cases],
            cwd=CLIENTS, env=os.environ | {"TMPDIR": scratch} | environment, timeout=HANG_LIMIT_S, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(ran.stdout)
    return ran.returncode


class Page(unittest.TestCase):
    def test_markdown(self):
        self.assertEqual(node("markdown_cases.mjs"), 0)

    def test_browser(self):
        chromium = os.environ.get("BOTTEGA_CHROMIUM") or shutil.which("chromium")
        self.assertIsNotNone(chromium, "no Chromium: tools/install --browser")
        up = ("up", TINY, "--port", "0", "--attention-workers", "2", "--expert-workers", "4",
              "--replication", "2")
        # A step that takes a while: an answer that somebody can stop, or kill a worker under.
        slow = {"BOTTEGA_FAULTS": "aw.step=sleep:4ms"}
        with running(*up, environment=slow) as cluster, running("serve", TINY, "--port", "0", "--api-key", KEY) as locked:
            members = {name: pid for name, (pid, _) in cluster.members().items()}
            self.assertEqual(node("page_cases.mjs", BOTTEGA_URL=cluster.url, BOTTEGA_LOCKED_URL=locked.url,
                                  BOTTEGA_KEY=KEY, BOTTEGA_CHROMIUM=chromium,
                                  BOTTEGA_MEMBERS=json.dumps(members)), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
