"""What a process holds, as /proc tells it. Sizes in bytes, times in seconds."""
import os
import pathlib

# AddressSanitizer keeps what is freed for a while, and writes its own report of a fatal signal.
SANITIZED = bool(os.environ.get("BOTTEGA_SANITIZE"))


def _kib(path: str, field: str) -> int:
    for line in pathlib.Path(path).read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise ProcessLookupError(path)


def rss(pid: int) -> int:
    return _kib(f"/proc/{pid}/status", "VmRSS:") << 10


def pss(pid: int) -> int:
    """A page that n processes map counts 1/n: the sum over processes counts no page twice."""
    return _kib(f"/proc/{pid}/smaps_rollup", "Pss:") << 10


def pss_without_files(pid: int) -> int:
    """Heaps, stacks, shared memory. The kernel drops and shares pages of files as it likes."""
    path = f"/proc/{pid}/smaps_rollup"
    return (_kib(path, "Pss_Anon:") + _kib(path, "Pss_Shmem:")) << 10


def open_fds(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def cpu_seconds(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine_cpu_seconds() -> float:
    """Of all cores, whoever used them; time that a hypervisor took away counts as used."""
    with open("/proc/stat") as lines:
        fields = [int(field) for field in lines.readline().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")  # idle, iowait
