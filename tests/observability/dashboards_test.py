#!/usr/bin/env python3
"""Dashboards, alerts and runbooks are whole: what a person reads is there, and every metric and label exists."""
import pathlib
import re
import subprocess
import tempfile
import shutil
import unittest

from promql import (OBSERVABILITY, ROOT, SCRAPE_LABELS, base_name, dashboards, grouping_labels, metrics_md, panels,
                    rules, selectors)


class Expressions(unittest.TestCase):
    """What dashboards and alerts have in common."""

    metrics = metrics_md()
    recorded = {rule["record"] for rule in rules() if "record" in rule}

    def check(self, expression: str):
        used = selectors(expression)
        self.assertTrue(used, "no metric at all")
        known = set(SCRAPE_LABELS)
        for series, labels, window in used:
            if series in self.recorded or series == "up":
                known |= labels
                continue
            self.assertIn(base_name(series) if base_name(series) in self.metrics else series, self.metrics)
            kind, own = self.metrics.get(series) or self.metrics[base_name(series)]
            known |= own
            self.assertLessEqual(labels, own | SCRAPE_LABELS, f"labels of {series}")
            if kind in ("counter", "histogram"):
                self.assertTrue(window, f"{series} only grows: rate() or increase() of it")
            if kind == "histogram":
                self.assertNotEqual(series, base_name(series), f"{series} has no series of its own")
        self.assertLessEqual(grouping_labels(expression), known, "labels of by() and on()")


class Dashboards(Expressions):
    def test_each_is_whole(self):
        self.assertEqual(set(dashboards()), {"bottega-overview.json", "bottega-mixture.json"})
        for name, dashboard in dashboards().items():
            with self.subTest(name):
                self.assertEqual(dashboard["uid"] + ".json", name)
                self.assertGreaterEqual(dashboard["schemaVersion"], 39)
                self.assertTrue(dashboard["title"] and dashboard["description"])
                variables = [variable["name"] for variable in dashboard["templating"]["list"]]
                self.assertEqual(variables, ["datasource", "job", "instance"])
                ids = [panel["id"] for panel in dashboard["panels"]]
                self.assertEqual(len(ids), len(set(ids)))
                titles = [panel["title"] for panel in panels(dashboard)]
                self.assertEqual(len(titles), len(set(titles)))

    def test_panels_do_not_overlap(self):
        for name, dashboard in dashboards().items():
            taken = set()
            for panel in dashboard["panels"]:
                place = panel["gridPos"]
                cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                         for y in range(place["y"], place["y"] + place["h"])}
                self.assertFalse(taken & cells, f"{name}: {panel['title']}")
                self.assertLessEqual(place["x"] + place["w"], 24)
                taken |= cells

    def test_each_panel_can_be_read(self):
        for name, dashboard in dashboards().items():
            for panel in panels(dashboard):
                with self.subTest(f"{name}: {panel['title']}"):
                    self.assertGreater(len(panel["description"]), 20)
                    self.assertTrue(panel["description"].endswith("."))
                    self.assertTrue(panel["fieldConfig"]["defaults"]["unit"])
                    self.assertTrue(panel["targets"])
                    for target in panel["targets"]:
                        expression = target["expr"]
                        self.assertEqual(target["datasource"]["uid"], "${datasource}")
                        self.check(expression)
                        for series, labels, window in selectors(expression):
                            self.assertLessEqual({"job", "instance"}, labels, series)
                            self.assertIn(window, ("", "[$__rate_interval]"))

    def test_the_files_are_what_make_writes(self):
        with tempfile.TemporaryDirectory() as folder:
            make = pathlib.Path(shutil.copy(OBSERVABILITY / "dashboards" / "make", folder))
            subprocess.run([make], check=True, timeout=60)
            for name in dashboards():
                self.assertEqual((pathlib.Path(folder) / name).read_text(),
                                 (OBSERVABILITY / "dashboards" / name).read_text(),
                                 f"{name}: run observability/dashboards/make")


class Alerts(Expressions):
    def test_each_says_what_it_is_and_what_to_do(self):
        alerts = [rule for rule in rules() if "alert" in rule]
        self.assertGreater(len(alerts), 12)
        for rule in alerts:
            with self.subTest(rule["alert"]):
                self.check(rule["expr"])
                self.assertIn(rule["severity"], ("critical", "warning"))
                self.assertTrue(rule["summary"])
                self.assertGreater(len(rule["description"]), 20)
                page = ROOT / rule["runbook_url"]
                self.assertEqual(page.stem, rule["alert"])
                text = page.read_text()
                for heading in ("## What it means", "## Look at", "## Do"):
                    self.assertIn(heading, text)

    def test_recorded_series_follow_from_ours(self):
        for rule in rules():
            if "record" in rule:
                self.check(rule["expr"])

    def test_each_runbook_has_an_alert(self):
        pages = {page.stem for page in (ROOT / "docs" / "runbooks").glob("*.md")} - {"README"}
        self.assertEqual(pages, {rule["alert"] for rule in rules() if "alert" in rule})


class MetricsPage(unittest.TestCase):
    def test_names_say_unit_and_kind(self):
        for name, (kind, _) in metrics_md().items():
            if name.startswith(("process_", "vllm:")):  # names that others chose
                continue
            self.assertEqual(name.endswith("_total"), kind == "counter", name)
            self.assertTrue(re.fullmatch(r"bottega_[a-z][a-z0-9_]*", name), name)


if __name__ == "__main__":
    unittest.main()
