"""Trains on the CPU with two processes of one thread. They share the weights and the gradients; each
updates one half of the weights.

Usage: train.py --run FOLDER [--seed 1] [--tokens 34e6] [--deadline HH:MM]
With --deadline (UTC) the schedule also follows the clock, so that the run ends in time on a busy
machine. A run that was stopped goes on from its last checkpoint.
"""
import argparse
import datetime
import json
import pathlib
import time

import numpy as np
import torch
import torch.multiprocessing as mp
from tokenizers import Tokenizer

import conversation
import fixed_files
import generate
import model

PROCESSES = 2
PIECE = 2048           # tokens, padding included, of one pass of one process
POOL = 8192            # conversations sorted by length together
RATE, BETAS, DECAY, CLIP = 4e-3, (0.9, 0.98), 0.05, 1.0
WARM_STEPS, COOL_FROM = 100, 0.6
# The experts first find their work, then share it evenly.
BALANCE, BALANCE_LATE, LATE_FROM = 0.01, 0.05, 0.3357
SAVE_SECONDS, LOG_STEPS = 240, 50


# ---- data ---------------------------------------------------------------------------------------

def make_data(seed, tokens, folder):
    """ids.npy, learned.npy: all conversations end to end; bounds.npy: where each begins."""
    if (folder / "bounds.npy").exists():
        return
    encoder = conversation.Encoder(Tokenizer.from_file(str(fixed_files.MODEL / "tokenizer.json")))
    render = conversation.Renderer(fixed_files.MODEL)
    ids, learned, bounds = [], [], [0]
    for sample, mode in generate.conversations(seed):
        one, mask = encoder.encode(render.sample(sample, mode), 2 if sample.calls else 1)
        ids.append(one.astype(np.uint16))
        learned.append(mask)
        bounds.append(bounds[-1] + len(one))
        if bounds[-1] >= tokens:
            break
    np.save(folder / "ids.npy", np.concatenate(ids))
    np.save(folder / "learned.npy", np.concatenate(learned))
    np.save(folder / "bounds.npy", np.array(bounds))


def make_pieces(bounds, seed):
    """Groups of conversations of like length, each PIECE tokens at most with its padding."""
    rng, pieces = np.random.default_rng(seed), []
    lengths = np.diff(bounds)
    for start in range(0, len(lengths), POOL):
        pool = start + np.argsort(lengths[start:start + POOL], kind="stable")
        mine = []
        while len(pool):
            # From the longest down: the first one sets the width.
            width = -(-lengths[pool[-1]] // 8) * 8
            count = min(len(pool), PIECE // width)
            mine.append(pool[-count:])
            pool = pool[:-count]
        rng.shuffle(mine)
        pieces += mine
    return pieces


def load_piece(data, piece):
    ids, learned, bounds = data
    width = -(-max(bounds[i + 1] - bounds[i] for i in piece) // 8) * 8
    batch = np.full((len(piece), width), fixed_files.PAD, dtype=np.int64)
    mask = np.zeros((len(piece), width), dtype=bool)
    for row, i in enumerate(piece):
        length = bounds[i + 1] - bounds[i]
        batch[row, :length] = ids[bounds[i]:bounds[i + 1]]
        mask[row, :length] = learned[bounds[i]:bounds[i + 1]]
    return torch.from_numpy(batch), torch.from_numpy(mask)


# ---- the run ------------------------------------------------------------------------------------

def learning_rate(step, progress):
    if progress >= COOL_FROM:
        return RATE * max(0.0, (1 - progress) / (1 - COOL_FROM))
    return RATE * min(1.0, (step + 1) / WARM_STEPS)


class Shared:
    """What both processes see."""

    def __init__(self):
        n = model.PARAMETERS
        self.flat, self.m, self.v = (torch.zeros(n).share_memory_() for _ in range(3))
        self.gradients = [torch.zeros(n).share_memory_() for _ in range(PROCESSES)]
        self.norms = torch.zeros(PROCESSES).share_memory_()
        self.losses = torch.zeros(PROCESSES, 3, dtype=torch.float64).share_memory_()
        self.loads = torch.zeros(PROCESSES, model.LAYERS, model.EXPERTS).share_memory_()
        self.clock = torch.zeros(1, dtype=torch.float64).share_memory_()
        self.barrier = mp.get_context("fork").Barrier(PROCESSES)


def update(shared, rank, step, rate):
    """AdamW on this process's half."""
    n = model.PARAMETERS
    half = slice(rank * n // PROCESSES, (rank + 1) * n // PROCESSES)
    gradient = shared.gradients[0][half]
    for other in shared.gradients[1:]:
        gradient += other[half]
        other[half].zero_()
    shared.norms[rank] = gradient.square().sum()
    shared.barrier.wait()
    gradient *= min(1.0, CLIP / (float(shared.norms.sum().sqrt()) + 1e-6))
    m, v, flat = shared.m[half], shared.v[half], shared.flat[half]
    m.lerp_(gradient, 1 - BETAS[0])
    v.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
    flat.mul_(1 - rate * DECAY)
    scale = (1 - BETAS[1] ** (step + 1)) ** 0.5
    flat.addcdiv_(m, v.sqrt().div_(scale).add_(1e-8), value=-rate / (1 - BETAS[0] ** (step + 1)))
    gradient.zero_()
    shared.barrier.wait()


def save(path, shared, state):
    torch.save({"flat": shared.flat, "m": shared.m, "v": shared.v, **state}, f"{path}.new")
    pathlib.Path(f"{path}.new").replace(path)


def work(rank, shared, state, args, folder):
    torch.set_num_threads(1)
    data = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("ids", "learned")]
    bounds = np.load(folder / "bounds.npy")
    data.append(bounds)
    counts = np.concatenate([[0], np.cumsum(data[1])])[bounds]
    pieces = make_pieces(bounds, args.seed)
    weights = model.views(shared.flat)
    for weight, gradient in zip(weights.values(), model.views(shared.gradients[rank]).values()):
        weight.requires_grad_()
        weight.grad = gradient
    tables = model.rope_tables(1024)
    step, tokens, at, spent = state["step"], state["tokens"], state["piece"], state["spent"]
    began = saved = logged = time.time()
    log_tokens = tokens
    while True:
        shared.clock[0] = time.time()  # one clock for both: they must agree on the schedule
        shared.barrier.wait()
        now = float(shared.clock[0])
        progress = tokens / args.tokens
        if args.deadline:
            progress = max(progress, (now - state["started"]) / (args.deadline - state["started"]))
        each = 1 if progress < 0.5 else 2
        step_pieces = pieces[at:at + each * PROCESSES]
        if progress >= 1 or len(step_pieces) < each * PROCESSES:
            break
        learned = sum(int((counts[p + 1] - counts[p]).sum()) for p in step_pieces)
        for piece in step_pieces[rank::PROCESSES]:
            loss, balance, loads = model.training_loss(weights, *load_piece(data, piece), tables)
            share = BALANCE if progress < LATE_FROM else BALANCE_LATE
            (loss / learned + share * balance / len(step_pieces)).backward()
            shared.losses[rank] += torch.tensor([loss.item(), balance.item(), 1.0])
            shared.loads[rank] += loads
        if rank == 0:
            shared.norms.zero_()
        shared.barrier.wait()
        rate = learning_rate(step, progress)
        with torch.no_grad():
            update(shared, rank, step, rate)
        step, at = step + 1, at + len(step_pieces)
        tokens += sum(int((bounds[p + 1] - bounds[p]).sum()) for p in step_pieces)
        state["learned"] += learned
        if rank == 0:
            log_learned = state.setdefault("log_learned", 0) + learned
            state["log_learned"] = log_learned
            if step % LOG_STEPS == 0:
                total, loads = shared.losses.sum(0), shared.loads.sum(0)
                loads = 100 * loads / loads.sum(1, keepdim=True)
                print(f"{datetime.datetime.now(datetime.timezone.utc):%H:%M:%S} step {step} "
                      f"tokens {tokens / 1e6:.2f}M progress {progress:.3f} rate {rate:.5f} "
                      f"loss {total[0] / log_learned:.4f} "
                      f"balance {total[1] / total[2]:.3f} load {loads.min():.2f}-{loads.max():.2f} % "
                      f"{(tokens - log_tokens) / (time.time() - logged):.0f} tokens/s", flush=True)
                state["log_learned"], logged, log_tokens = 0, time.time(), tokens
                shared.losses.zero_(), shared.loads.zero_()
            if time.time() - saved > SAVE_SECONDS:
                saved = time.time()
                save(folder / "checkpoint.pt", shared, {**state, "step": step, "tokens": tokens, "piece": at,
                                                        "spent": spent + saved - began})
    if rank == 0:
        save(folder / "checkpoint.pt", shared, {**state, "step": step, "tokens": tokens, "piece": at,
                                                "spent": spent + time.time() - began, "done": True})
        minutes = (spent + time.time() - began) / 60
        (folder / "training.json").write_text(json.dumps(
            {"seed": args.seed, "tokens": tokens, "learned": state["learned"], "steps": step,
             "minutes": round(minutes, 1)}) + "\n")
        print(f"done: {tokens} tokens, {step} steps, {minutes:.1f} minutes", flush=True)


def utc_today(clock):
    now = datetime.datetime.now(datetime.timezone.utc)
    at = datetime.datetime.strptime(clock, "%H:%M").time()
    return datetime.datetime.combine(now.date(), at, datetime.timezone.utc).timestamp()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokens", type=float, default=34e6)
    parser.add_argument("--deadline", type=utc_today)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.run.mkdir(parents=True, exist_ok=True)
    make_data(args.seed, args.tokens * 1.01, args.run)
    shared = Shared()
    state = {"step": 0, "tokens": 0, "piece": 0, "learned": 0, "spent": 0.0, "started": time.time()}
    if (args.run / "checkpoint.pt").exists():
        loaded = torch.load(args.run / "checkpoint.pt")
        for name in ("flat", "m", "v"):
            getattr(shared, name).copy_(loaded.pop(name))
        state = loaded
        if state.get("done"):
            return
    else:
        model.initialise(shared.flat, args.seed)
    context = mp.get_context("fork")
    others = [context.Process(target=work, args=(r, shared, state, args, args.run), daemon=True)
              for r in range(PROCESSES)]
    for process in others:
        process.start()
    for process in others:
        process.join()
    if any(process.exitcode for process in others):
        raise SystemExit("a process failed")


if __name__ == "__main__":
    main()
