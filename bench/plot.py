#!/usr/bin/env python3
"""Plots of what `bottega bench --json` measured: how decode and prefill cost as work grows.

Writes one SVG a question into DIR (default docs/plots), the measured line beside its floor:
  batch.svg    tokens a second of decodes at the common context, by sequences at once
  context.svg  time of a decode step, by tokens before it
  threads.svg  tokens a second of each work, by threads (several files)
  experts.svg  tokens a second of each decode, by experts a layer (several files)
  workers.svg  tokens a second of a cluster, by expert workers, beside one process (bench/cluster.py --json)
A plot needs two points at least; what the files do not have is left out, and said.
Usage: bench/plot.py [--only PLOT...] [--out DIR] FILE.json...
"""
import argparse
import json
import math
import pathlib
import sys
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 560, 340
LEFT, RIGHT, TOP, BOTTOM = 64, 28, 40, 52
COLOURS = ("#1f6feb", "#d1495b", "#2a9d5c", "#8a5cd0", "#c77d0a", "#3a9fb5")


class Line:
    """A measured series: (x, y, least y, most y), and where there is one the floor (x, y)."""

    def __init__(self, name, points, floor=()):
        self.name, self.points, self.floor = name, sorted(points), sorted(floor)


def ticks(largest):
    """Round steps from 0 to at least `largest`, about five of them."""
    step = 10 ** math.floor(math.log10(largest / 5))
    step *= next(factor for factor in (1, 2, 5, 10) if factor * step * 5 >= largest)
    return [i * step for i in range(math.ceil(largest / step) + 1)]


def number(value):
    if value >= 1024 and value % 1024 == 0:
        return f"{int(value) // 1024}k"
    return f"{value:g}"


def svg(title, note, x_title, y_title, lines, dashed):
    """x on a logarithmic axis at the measured values, y from 0."""
    xs = sorted({point[0] for line in lines for point in line.points})
    low, high = math.log2(xs[0]), math.log2(xs[-1])
    top = max([point[3] for line in lines for point in line.points] +
              [y for line in lines for _, y in line.floor])
    marks = ticks(top)

    def at_x(x):
        return LEFT + (math.log2(x) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def at_y(y):
        return HEIGHT - BOTTOM - y / marks[-1] * (HEIGHT - TOP - BOTTOM)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
           'font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
           f'<text x="{LEFT}" y="18" font-size="14" font-weight="bold">{escape(title)}</text>',
           f'<text x="{LEFT}" y="33" fill="#666" font-size="10">{escape(note)}</text>']
    for mark in marks:
        y = at_y(mark)
        out.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#e4e4e4"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{mark:g}</text>')
    for x in xs:
        out.append(f'<path d="M{at_x(x):.1f} {HEIGHT - BOTTOM}v4" stroke="#888"/>')
        out.append(f'<text x="{at_x(x):.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{number(x)}</text>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 20}" text-anchor="middle">{escape(x_title)}</text>')
    out.append(f'<text transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" '
               f'text-anchor="middle">{escape(y_title)}</text>')
    for index, line in enumerate(lines):
        colour = COLOURS[index % len(COLOURS)]
        if len(line.floor) > 1:
            path = "L".join(f"{at_x(x):.1f} {at_y(y):.1f}" for x, y in line.floor)
            out.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-dasharray="5 4"/>')
        path = "L".join(f"{at_x(x):.1f} {at_y(y):.1f}" for x, y, _, _ in line.points)
        out.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, y, least, most in line.points:
            out.append(f'<path d="M{at_x(x):.1f} {at_y(least):.1f}V{at_y(most):.1f}" stroke="{colour}"/>')
            out.append(f'<circle cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="3" fill="{colour}"/>')
        out.append(f'<text x="{LEFT + 8 + index * 130}" y="{HEIGHT - 5}" fill="{colour}">{escape(line.name)}</text>')
    out.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 5}" text-anchor="end" fill="#666">dashed: {dashed}</text></svg>')
    return "\n".join(out) + "\n"


def name_of(run):
    return f"{run['model']['weights']}, {run['model']['layers']} layers"


def decodes(run):
    return [work for work in run["works"] if work["kind"] == "decode"]


def prefills(run):
    return [work for work in run["works"] if work["kind"] == "prefill"]


def rate_point(x, work):
    return x, work["tokens_per_s"], work["least"], work["most"]


def batch(runs):
    lines = []
    for run in filter(decodes, runs):
        at = min(work["context"] for work in decodes(run))
        works = [work for work in decodes(run) if work["context"] == at]
        lines.append(Line(name_of(run), [rate_point(work["sequences"], work) for work in works],
                          [(work["sequences"], work["floor_tokens_per_s"]) for work in works]))
    return lines, "Decode by sequences at once", "sequences", "tokens/s, all together"


def context(runs):
    lines = []
    for run in runs:
        for sequences in sorted({work["sequences"] for work in decodes(run)}):
            works = [work for work in decodes(run) if work["sequences"] == sequences]

            def ms(rate, sequences=sequences):
                return 1e3 * sequences / rate

            lines.append(Line(f"{run['model']['weights']}, {sequences} at once",
                              [(work["context"], ms(work["tokens_per_s"]), ms(work["most"]), ms(work["least"]))
                               for work in works],
                              [(work["context"], ms(work["floor_tokens_per_s"])) for work in works]))
    return lines, "A decode step by context", "tokens before it", "ms a step"


def across(key):
    """One line a work, over the files by what `key` says of each."""
    def points(runs):
        by_work = {}
        for run in runs:
            for work in decodes(run) + prefills(run):
                by_work.setdefault(work["name"], []).append((key(run), work))
        return [Line(name, [rate_point(x, work) for x, work in works],
                     [(x, work["floor_tokens_per_s"]) for x, work in works])
                for name, works in by_work.items()]
    return points


def threads(runs):
    return across(lambda run: run["machine"]["threads"])(runs), "By threads", "threads", "tokens/s"


def experts(runs):
    lines = across(lambda run: run["model"].get("experts", 0))(runs)
    return ([line for line in lines if line.name.startswith("decode")], "Decode by experts a layer, 8 a token",
            "experts", "tokens/s")


def workers(runs):
    works = [work for run in runs for work in run["works"] if work["kind"] == "cluster decode"]
    lines = []
    for name in sorted({work["name"] for work in works}):
        mine = [work for work in works if work["name"] == name]
        lines.append(Line(name, [rate_point(work["expert_workers"], work) for work in mine],
                          [(work["expert_workers"], work["one_process_tokens_per_s"]) for work in mine]))
    return lines, "A cluster by expert workers, all on the same cores", "expert workers", "tokens/s"


PLOTS = {"batch": batch, "context": context, "threads": threads, "experts": experts, "workers": workers}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=pathlib.Path, metavar="FILE.json")
    parser.add_argument("--only", nargs="+", choices=PLOTS, default=list(PLOTS), metavar="PLOT",
                        help="of " + ", ".join(PLOTS))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/plots"))
    chosen = parser.parse_args()
    runs = []
    for file in chosen.files:
        try:
            runs.append(json.loads(file.read_text()))
        except (OSError, ValueError) as why:
            sys.exit(f"plot.py: {file}: {why}")
    chosen.out.mkdir(parents=True, exist_ok=True)
    machine = f"{runs[0]['machine']['processor']}; medians, least to most"
    for name in chosen.only:
        plot = PLOTS[name]
        lines, title, x_title, y_title = plot(runs)
        lines = [line for line in lines if len({point[0] for point in line.points}) > 1]
        if not lines:
            print(f"{name}: nothing in these files")
            continue
        path = chosen.out / f"{name}.svg"
        dashed = "one process" if name == "workers" else "floor"
        path.write_text(svg(title, machine, x_title, y_title, lines, dashed))
        print(path)


if __name__ == "__main__":
    main()
