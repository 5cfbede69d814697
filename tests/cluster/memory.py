"""A memory cgroup with no room: whoever is put there is ended by the kernel at its next allocation."""
import os
import pathlib

V1, V2 = pathlib.Path("/sys/fs/cgroup/memory"), pathlib.Path("/sys/fs/cgroup")
LIMIT_BYTES = "4096"


def _root() -> tuple[pathlib.Path, str]:
    """Where cgroups with memory limits are made, and the file of the limit."""
    if (V1 / "memory.limit_in_bytes").exists():
        return V1, "memory.limit_in_bytes"
    return V2, "memory.max"


class Starved:
    def __init__(self, pid: int):
        root, limit = _root()
        self.path = root / f"bottega-{os.getpid()}-{pid}"
        self.path.mkdir()
        (self.path / limit).write_text(LIMIT_BYTES)
        (self.path / "cgroup.procs").write_text(str(pid))

    def end(self):
        """Once the process is gone."""
        self.path.rmdir()


def lacking() -> str:
    """Why this machine cannot do it; "" if it can."""
    root, limit = _root()
    probe = root / f"bottega-probe-{os.getpid()}"
    try:
        probe.mkdir()
    except OSError as error:
        return f"no memory cgroup can be made: {error.strerror}"
    try:
        return "" if (probe / limit).exists() else "memory cgroups are not delegated here"
    finally:
        probe.rmdir()
