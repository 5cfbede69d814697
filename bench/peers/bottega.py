"""Ours: `bottega bench DIR --threads N --json FILE`, which measures every work in one process."""
import json
import pathlib
import tempfile

from work import Failure, Work, output


class Bottega:
    name = "bottega"

    def __init__(self, binary: pathlib.Path, model: pathlib.Path, threads: int):
        self.binary, self.model, self.threads = binary, model, threads
        self.unused = {}  # tokens a second by name of work, of the latest process
        self.read = {}  # bytes of weights that a step of a work had to read, likewise

    def prepare(self):
        if not self.model.is_dir():
            raise Failure(f"--bottega {self.model}: no such folder")
        output([self.binary, "bench", "--help"], "bottega bench")

    def run(self, work: Work) -> float:
        """Each figure is used once, so that the next round measures again."""
        if work.name not in self.unused:
            self.unused = self.measured()
        if work.name not in self.unused:
            raise Failure(f"bottega bench measured no {work.name}")
        return self.unused.pop(work.name)

    def measured(self) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "bench.json")
            output([self.binary, "bench", self.model, "--threads", self.threads, "--json", file,
                    "--rounds", 1, "--mixed", "0s"], "bottega bench")
            figures = json.loads(file.read_text())
        for work in figures["works"]:
            cost = work["prompt_cost" if work["kind"] == "prefill" else "step_cost"]
            self.read[work["name"]] = cost["weight_bytes"]
        return figures["tokens_per_s"]

    def step_bytes(self, work: Work) -> float:
        """Asked after run: the experts that its tokens have hit are counted, not expected."""
        return self.read[work.name]

    def depth_scale(self, work: Work) -> None:
        return None
