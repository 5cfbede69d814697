"""Reads what the tests of this folder and of tests/clients need: metrics.md, dashboards, alert rules."""
import json
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
OBSERVABILITY = ROOT / "observability"
KINDS = {"c": "counter", "g": "gauge", "h": "histogram"}
# Labels that the scrape itself adds, and a histogram's own.
SCRAPE_LABELS = {"job", "instance", "component", "le"}


def metrics_md() -> dict[str, tuple[str, set[str]]]:
    """name -> (kind, labels)"""
    found = {}
    for line in (OBSERVABILITY / "metrics.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("| `"):
            continue
        for name in re.findall(r"`([a-z_:0-9]+)`", cells[0]):
            found[name] = (KINDS[cells[1][0]], set(cells[2].strip("`").split()))
    return found


def base_name(series: str) -> str:
    """bottega_x_seconds for bottega_x_seconds_bucket; other names as they are."""
    return re.sub(r"_(bucket|sum|count)$", "", series)


def panels(dashboard: dict):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def dashboards() -> dict[str, dict]:
    return {path.name: json.loads(path.read_text())
            for path in sorted((OBSERVABILITY / "dashboards").glob("*.json"))}


def rules() -> list[dict[str, str]]:
    """Each rule of alerts/*.rules.yml: alert or record, expr, severity, summary, description, runbook_url."""
    found = []
    for path in sorted((OBSERVABILITY / "alerts").glob("*.rules.yml")):
        text = re.sub(r"expr: >-\n\s+", "expr: ", path.read_text())
        for line in text.splitlines():
            if match := re.match(r"\s+- (alert|record): (\S+)$", line):
                found.append({match[1]: match[2]})
            elif found and (match := re.match(r"\s+(expr|for|summary|description|runbook_url): (.+)$", line)):
                found[-1][match[1]] = match[2].strip('"')
            elif found and (match := re.match(r"\s+labels: \{severity: (\w+)", line)):
                found[-1]["severity"] = match[1]
    return found


# A name of ours, its selector if it has one, its range if it has one.
SELECTOR = re.compile(r"\b((?:bottega|process|up)[a-z0-9_:]*)(\{[^}]*\})?(\[[^\]]+\])?")


def selectors(expression: str) -> list[tuple[str, set[str], str]]:
    """(series, labels used in its selector, range) of an expression."""
    found = []
    for name, labels, window in SELECTOR.findall(expression):
        found.append((name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", labels)), window))
    return found


def grouping_labels(expression: str) -> set[str]:
    inside = re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", expression)
    return {label.strip() for group in inside for label in group.split(",") if label.strip()}
