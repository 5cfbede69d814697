"""Memory cgroups: what a process allocates from now on is bounded, and whoever needs more is ended by the kernel."""
import os
import pathlib

V1, V2 = pathlib.Path("/sys/fs/cgroup/memory"), pathlib.Path("/sys/fs/cgroup")


def _root() -> tuple[pathlib.Path, str]:
    """Where cgroups with memory limits are made, and the file of the limit."""
    if (V1 / "memory.limit_in_bytes").exists():
        return V1, "memory.limit_in_bytes"
    return V2, "memory.max"


class MemoryLimit:
    """For one process. What it holds already stays charged where it was and does not count."""

    def __init__(self, pid: int, limit: int):
        root, file = _root()
        self.path = root / f"bottega-{os.getpid()}-{pid}"
        self.path.mkdir()
        (self.path / file).write_text(str(limit))
        (self.path / "cgroup.procs").write_text(str(pid))

    def end(self):
        """Once the process is gone."""
        self.path.rmdir()


def lacking() -> str:
    """Why this machine cannot do it; "" if it can."""
    root, file = _root()
    probe = root / f"bottega-probe-{os.getpid()}"
    try:
        probe.mkdir()
    except OSError as error:
        return f"no memory cgroup can be made: {error.strerror}"
    try:
        return "" if (probe / file).exists() else "memory cgroups are not delegated here"
    finally:
        probe.rmdir()
