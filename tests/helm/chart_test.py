"""Lints and renders the chart with helm (HELM or PATH); exit code 77, which ctest reports as skipped,
where there is none. What it asks for must exist: every flag in the program's --help, every port,
volume and label that another object names."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("BOTTEGA_BIN", ROOT / "build/release/bin"))
CHART = ROOT / "helm/bottega"
HELM = os.environ.get("HELM") or shutil.which("helm")
KUBE = ("--kube-version", "1.30.0")
REFUSED = ("gateway.replica=2", "router.replicas=2", "attention.pools.default.replicas=x",
           "model.path=relative", "expert.replication=0", "exchange.sharedMemory=1", "nonsense=1")


def helm(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, timeout=120)


def documents(*values: str) -> list[str]:
    flags = [flag for value in values for flag in ("--set", value)]
    done = helm("template", "t", str(CHART), *KUBE, *flags)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return [d for d in re.split(r"^---\n", done.stdout, flags=re.M) if re.search(r"^kind:", d, re.M)]


def kind(document: str) -> str:
    return re.search(r"^kind: (\S+)", document, re.M)[1]


def workloads(rendered: list[str]) -> dict[str, str]:
    """role -> its first workload"""
    found = {}
    for document in rendered:
        if kind(document) in ("Deployment", "StatefulSet"):
            found.setdefault(re.search(r"command: \[bottega-(\w+)\]", document)[1], document)
    return found


class Chart(unittest.TestCase):
    def test_lint(self):
        done = helm("lint", "--strict", *KUBE, str(CHART))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_four_workloads_and_what_they_need(self):
        rendered = documents()
        kinds = [kind(document) for document in rendered]
        self.assertEqual(kinds.count("Deployment"), 3)
        self.assertEqual(kinds.count("StatefulSet"), 1)
        self.assertEqual(kinds.count("PodDisruptionBudget"), 4)
        self.assertNotIn("ServiceMonitor", kinds)
        self.assertEqual(set(workloads(rendered)), {"gateway", "router", "attention", "expert"})
        with_monitors = documents("metrics.serviceMonitor=true", "metrics.podMonitor=true")
        for monitor in ("ServiceMonitor", "PodMonitor"):
            self.assertIn(monitor, [kind(document) for document in with_monitors])

    def test_every_flag_exists(self):
        for role, document in workloads(documents()).items():
            shown = subprocess.run([str(BIN / f"bottega-{role}"), "--help"], capture_output=True,
                                   text=True, timeout=60).stdout
            flags = re.findall(r"^ +- --([a-z-]+)=", document, re.M)
            self.assertIn("drain-timeout", flags)
            for flag in flags:
                self.assertRegex(shown, rf"--{flag}\b", f"{role}: --{flag}")

    def test_s16_pods_are_locked_down_and_probed(self):
        for role, document in workloads(documents()).items():
            for needed in ("runAsNonRoot: true", "readOnlyRootFilesystem: true", "RuntimeDefault",
                           "allowPrivilegeEscalation: false", "path: /ready", "path: /live",
                           "automountServiceAccountToken: false"):
                self.assertIn(needed, document, role)
            volumes = re.findall(r"^ {8}- name: (\S+)", document[document.index("volumes:"):], re.M)
            mounts = re.findall(r"- \{name: (\S+), mountPath", document)
            self.assertEqual(sorted(mounts), sorted(volumes), role)
            self.assertEqual("shm" in mounts, role in ("attention", "expert"), role)

    def test_grace_covers_pre_stop_and_drain(self):
        for role, document in workloads(documents()).items():
            grace = int(re.search(r"terminationGracePeriodSeconds: (\d+)", document)[1])
            drain = int(re.search(r"--drain-timeout=(\d+)s", document)[1])
            pre_stop = re.search(r'command: \[sleep, "(\d+)"\]', document)
            self.assertGreater(grace, drain + int(pre_stop[1] if pre_stop else 0), role)

    def test_a_pool_overrides_its_role(self):
        rendered = documents("expert.pools.big.replicas=3", "expert.pools.big.drainSeconds=60",
                             "expert.pools.big.config.capacity=8GiB")
        big = next(d for d in rendered if kind(d) == "StatefulSet" and "expert-big" in d)
        for expected in ("replicas: 3", "--drain-timeout=60s", "--capacity=8GiB"):
            self.assertIn(expected, big)

    def test_wrong_values_are_refused(self):
        for value in REFUSED:
            done = helm("template", "t", str(CHART), *KUBE, "--set", value)
            self.assertNotEqual(done.returncode, 0, value)


if __name__ == "__main__":
    if HELM is None:
        print("skipped: no helm on PATH and HELM is not set")
        sys.exit(77)
    unittest.main(verbosity=2)
