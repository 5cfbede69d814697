#!/usr/bin/env python3
"""Prefill and decode of llama.cpp on the shape of EngGPT2 (or a dense 8B), and of Bottega beside it.

Builds llama.cpp and writes its model into build/peers, then measures in interleaved rounds. Beside
each number: the share of its byte floor, by the read bandwidth that kernels_bench measured just
before. Usage: bench/peers/run.py [--shape NAME] [--layers N] [--rounds N] [--bottega DIR] [--json FILE]
"""
import argparse
import json
import os
import pathlib
import re
import statistics
import sys
import time

import llama_cpp
import shapes
from bottega import Bottega
from llama_cpp import LlamaCpp
from work import Failure, Work, output

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from machine import processor  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("BOTTEGA_BIN", ROOT / "build/release/bin"))
PREFILL = 512
BATCHES = (1, 2, 4, 8, 16)


def read_bandwidth(threads: int) -> float:
    """Bytes a second of this machine's memory, now."""
    text = output([BIN / "kernels_bench", f"--threads={threads}", "--benchmark_filter=^$"],
                  "kernels_bench")
    found = re.search(r"floors: read ([\d.]+) GB/s", text)
    if not found:
        raise Failure("kernels_bench told no read bandwidth")
    return float(found.group(1)) * 1e9


def measure(contestants, works, rounds: int, bandwidth) -> list[dict]:
    """One sample for each round, work and contestant; who begins changes with the round."""
    samples = []
    for number in range(rounds):
        turn = number % len(contestants)
        for work in works:
            for contestant in contestants[turn:] + contestants[:turn]:
                read = bandwidth()
                rate, step = contestant.run(work), contestant.step_bytes(work)
                samples.append({
                    "round": number, "contestant": contestant.name, "work": work.name,
                    "tokens_per_s": rate, "read_bytes_per_s": read,
                    "floor_share": step and rate / work.tokens * step / read})
                print(f"round {number + 1} of {rounds}: {contestant.name}, {work.name}: {rate:.2f} "
                      f"tok/s, read {read / 1e9:.1f} GB/s", file=sys.stderr, flush=True)
    return samples


def summary(contestants, works, samples) -> list[dict]:
    rows = []
    for contestant in contestants:
        for work in works:
            own = [s for s in samples
                   if (s["contestant"], s["work"]) == (contestant.name, work.name)]
            rates, scale = [s["tokens_per_s"] for s in own], contestant.depth_scale(work)
            shares = [s["floor_share"] for s in own if s["floor_share"] is not None]
            median = statistics.median(rates)
            rows.append({"contestant": contestant.name, "work": work.name, "median": median,
                         "min": min(rates), "max": max(rates),
                         "floor_share": statistics.median(shares) if shares else None,
                         "whole_model": scale and median * scale})
    return rows


def table(rows: list[dict], layers: int, whole: int) -> str:
    def cell(value, form):
        return "–" if value is None else format(value, form)

    lines = [f"| contestant | work | tok/s of {layers} layers, median (min–max) | share of byte floor "
             f"| scaled to {whole} layers |", "|---|---|---|---|---|"]
    lines += [f"| {r['contestant']} | {r['work']} | {r['median']:.2f} ({r['min']:.2f}–{r['max']:.2f}) "
              f"| {cell(r['floor_share'], '.0%')} | {cell(r['whole_model'], '.2f')} |" for r in rows]
    return "\n".join(lines)


def ratios(samples: list[dict], ours: str) -> list[dict]:
    """Ours over each other contestant's, of the same round: median, least and most."""
    rates = {(s["contestant"], s["work"], s["round"]): s["tokens_per_s"] for s in samples}
    by_work: dict[tuple[str, str], list[float]] = {}
    for (name, work, number), rate in rates.items():
        if name != ours:
            by_work.setdefault((name, work), []).append(rates[ours, work, number] / rate)
    return [{"peer": name, "work": work, "median": statistics.median(values), "min": min(values),
             "max": max(values)} for (name, work), values in by_work.items()]


def ratio_table(rows: list[dict]) -> str:
    lines = ["| ours over | work | median of the rounds (min–max) |", "|---|---|---|"]
    lines += [f"| {r['peer']} | {r['work']} | {r['median']:.2f} ({r['min']:.2f}–{r['max']:.2f}) |"
              for r in rows]
    return "\n".join(lines)


def options():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="enggpt2", help=", ".join(shapes.SHAPES))
    parser.add_argument("--layers", type=int, default=12, help="full-width layers of the model")
    parser.add_argument("--quants", nargs="+", default=shapes.QUANTS, choices=shapes.QUANTS)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bottega", type=pathlib.Path, metavar="DIR", help="our engine, this model")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="every sample")
    return parser.parse_args()


def run(chosen):
    shape = shapes.checked(chosen.shape, chosen.layers)
    if chosen.threads < 1 or chosen.rounds < 1:
        raise Failure("--threads and --rounds are at least 1")
    if chosen.json and not chosen.json.resolve().parent.is_dir():
        raise Failure(f"--json {chosen.json}: no such folder")
    works = [Work("prefill", PREFILL), *(Work("decode", batch) for batch in BATCHES)]
    contestants = [LlamaCpp(chosen.shape, chosen.layers, quant, chosen.threads)
                   for quant in chosen.quants]
    if chosen.bottega:
        contestants.insert(0, Bottega(BIN / "bottega", chosen.bottega, chosen.threads))
    if not (BIN / "kernels_bench").exists():
        raise Failure(f"{BIN}/kernels_bench is missing; cmake --build --preset release makes it")
    for contestant in contestants:
        contestant.prepare()
    samples = measure(contestants, works, chosen.rounds, lambda: read_bandwidth(chosen.threads))
    rows = summary(contestants, works, samples)
    reads = [s["read_bytes_per_s"] / 1e9 for s in samples]
    print(f"{chosen.shape}, {llama_cpp.pinned()}; {processor()}, {chosen.threads} threads; read "
          f"{statistics.median(reads):.1f} ({min(reads):.1f}–{max(reads):.1f}) GB/s")
    print(table(rows, chosen.layers, shape.layers))
    versus = ratios(samples, Bottega.name) if chosen.bottega else []
    if versus:
        print(ratio_table(versus))
    if chosen.json:
        chosen.json.write_text(json.dumps({
            "date": time.strftime("%Y-%m-%d"), "processor": processor(), "threads": chosen.threads,
            "peer": llama_cpp.pinned(), "shape": chosen.shape, "layers": chosen.layers,
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY"),
            "rows": rows, "ratios": versus, "samples": samples}, indent=1) + "\n")


if __name__ == "__main__":
    try:
        run(options())
    except Failure as failure:
        sys.exit(f"bench/peers: {failure}")
