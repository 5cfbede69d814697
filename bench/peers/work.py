"""What is measured, and how a program that measures it is run. A contestant is an object with

    name               what its rows are called
    prepare()          builds and checks what run() needs; not measured
    run(work)          -> tokens a second
    step_bytes(work)   -> bytes one step must read; None: not known
    depth_scale(work)  -> factor from the measured number of layers to the whole model; None: not known
"""
import dataclasses
import subprocess


class Failure(Exception):
    """Ends the program; the message is one line for its user."""


@dataclasses.dataclass(frozen=True)
class Work:
    kind: str  # "prefill": one prompt; "decode": one token each of several sequences
    tokens: int  # of a step: of the prompt, or sequences at once

    @property
    def name(self) -> str:
        return f"{self.kind} {self.tokens}"


def output(command: list, tool: str) -> str:
    """What `command` prints; a Failure with its last complaint if it fails."""
    try:
        done = subprocess.run([str(word) for word in command], text=True, capture_output=True,
                              stdin=subprocess.DEVNULL, check=False)
    except OSError as error:
        raise Failure(f"{tool}: {command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["(said nothing)"]
        raise Failure(f"{tool} ended with {done.returncode}: {said[-1].strip()}")
    return done.stdout
