"""What the benches say of the machine they ran on."""
import pathlib
import re


def processor() -> str:
    found = re.search(r"^model name\s*: (.+)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    return found.group(1) if found else "unknown"
