"""The peer: llama.cpp, built for this machine, on a model of random weights."""
import json
import pathlib
import shutil
import subprocess
import sys

import shapes
from work import Failure, Work, output

HERE = pathlib.Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build/peers"
PIN = HERE / "llama_cpp.txt"
TOOLS = ("llama-bench", "llama-batched-bench")
FLAGS = ("-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_OPENSSL=OFF",
         "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_SERVER=OFF",
         "-DLLAMA_BUILD_APP=OFF",
         # Else it asks git, and is told the commit of Bottega.
         "-DLLAMA_BUILD_NUMBER=0", "-DLLAMA_BUILD_COMMIT=pypi")
PROMPT = 16  # tokens before a decode
STEPS = 32  # of a decode that are timed
SLACK_BYTES = 1 << 30  # of disk, left free


def pinned() -> str:
    return next(line.split()[0] for line in PIN.read_text().splitlines() if line[0] != "#")


def logged(command: list, what: str):
    """Runs a long command; what it says goes to a file."""
    log = BUILD / f"{what.split()[0]}.log"
    with open(log, "w") as file:
        done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL,
                              stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        raise Failure(f"{what} failed; {log} says why")


def setup_python() -> pathlib.Path:
    """A Python with what write_gguf.py needs, and a pip."""
    python, pins = BUILD / "venv/bin/python", HERE / "requirements.txt"
    stamp = BUILD / "venv/installed"
    if not stamp.exists() or stamp.read_text() != pins.read_text():
        BUILD.mkdir(parents=True, exist_ok=True)
        logged([sys.executable, "-m", "venv", "--clear", BUILD / "venv"], "venv")
        logged([python, "-m", "pip", "install", "--disable-pip-version-check", "-r", pins],
               "requirements of write_gguf.py")
        stamp.write_text(pins.read_text())
    return python


def build(jobs: int):
    """Fetches and builds the tools, unless this version of them is there."""
    source, made = BUILD / "source", BUILD / "llama.cpp"
    stamp, wanted = made / "built", "\n".join((PIN.read_text(), *FLAGS))
    if stamp.exists() and stamp.read_text() == wanted:
        return
    python = setup_python()
    print(f"building llama.cpp of {pinned()}, some 20 minutes on 2 cores", flush=True)
    for old in (source, made):
        shutil.rmtree(old, ignore_errors=True)
    source.mkdir(parents=True)
    logged([python, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps",
            "--no-binary", "llama-cpp-python", "-r", PIN, "-d", source], "download of llama.cpp")
    (archive,) = source.glob("*.tar.gz")
    logged(["tar", "-xzf", archive, "-C", source, "--strip-components=1", "--wildcards",
            "*/vendor/llama.cpp"], "tar")
    archive.unlink()
    logged(["cmake", "-G", "Ninja", "-S", source / "vendor/llama.cpp", "-B", made, *FLAGS], "cmake of llama.cpp")
    logged(["cmake", "--build", made, "-j", jobs, "--target", *TOOLS], "build of llama.cpp")
    stamp.write_text(wanted)


def room_for(needed: int, folder: pathlib.Path):
    free = shutil.disk_usage(folder).free
    if free < needed + SLACK_BYTES:
        raise Failure(f"{folder} has {free / 1e9:.1f} GB free; "
                      f"the model needs {(needed + SLACK_BYTES) / 1e9:.1f}")


class LlamaCpp:
    def __init__(self, shape_name: str, layers: int, quant: str, threads: int):
        self.name = f"llama.cpp {quant}"
        self.shape_name, self.layers, self.quant, self.threads = shape_name, layers, quant, threads
        self.shape = shapes.checked(shape_name, layers)
        self.model = BUILD / f"models/{shape_name}-{layers}-{quant}.gguf"

    def prepare(self):
        build(self.threads)
        if self.model.exists():
            return
        python = setup_python()
        self.model.parent.mkdir(parents=True, exist_ok=True)
        needed = sum(t.bytes for t in shapes.tensors(self.shape, self.layers, self.quant))
        room_for(needed, self.model.parent)
        print(f"writing {self.model.name}, {needed / 1e9:.1f} GB", flush=True)
        part = self.model.with_suffix(".part")
        output([python, "-B", HERE / "write_gguf.py", self.shape_name, self.layers, self.quant,
                part], "write_gguf.py")
        part.rename(self.model)

    def run(self, work: Work) -> float:
        if work.kind == "prefill":
            return parse_prefill(output(self.command("llama-bench", "-p", work.tokens, "-n", 0,
                                                     "-r", 1, "-o", "json"), "llama-bench"), work)
        # It prints from a thread that its end does not wait for, so on a busy machine the last line can
        # be lost: a measurement of one step comes last.
        return parse_decode(output(self.command(
            "llama-batched-bench", "-npp", PROMPT, "-ntg", f"{STEPS},1", "-npl", work.tokens, "-pps",
            "-c", work.tokens * (PROMPT + STEPS), "--output-format", "jsonl"),
            "llama-batched-bench"), work)

    def command(self, tool: str, *options) -> list:
        return [BUILD / "llama.cpp/bin" / tool, "-m", self.model, "-t", self.threads, *options]

    def step_bytes(self, work: Work) -> int:
        return shapes.step_bytes(self.shape, self.layers, self.quant, work.tokens)

    def depth_scale(self, work: Work) -> float:
        return shapes.depth_scale(self.shape, self.layers, self.quant, work)


def parse_prefill(text: str, work: Work) -> float:
    """Tokens a second, from llama-bench's `-o json`: a list of tests."""
    for test in json.loads(text):
        if (test["n_prompt"], test["n_gen"]) == (work.tokens, 0):
            return test["avg_ts"]
    raise Failure(f"llama-bench measured no {work.name}")


def parse_decode(text: str, work: Work) -> float:
    """Tokens a second of all sequences, from llama-batched-bench's lines, some of them JSON objects."""
    for line in text.splitlines():
        if line.startswith("{"):
            test = json.loads(line)
            if (test["pl"], test["tg"]) == (work.tokens, STEPS):
                return test["speed_tg"]
    raise Failure(f"llama-batched-bench measured no {work.name}")
