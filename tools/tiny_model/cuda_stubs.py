"""PyPI's torch for x86-64 is the CUDA build. Its import wants CUDA's libraries (3 GB), although a
CPU run calls nothing in them. Libraries of the same names whose functions are all empty satisfy it.

Usage: cuda_stubs.py <folder torch/lib>
"""
import pathlib
import re
import subprocess
import sys
import tempfile

CUDA = re.compile(r"(__)?(lib)?(cu|nccl|nvrtc|nvshmem|nvJitLink)")


def readelf(flags, path):
    return subprocess.run(["readelf", "-W", flags, path], capture_output=True, text=True).stdout


def wanted_of(folder):
    """The CUDA libraries wanted: name -> {version name: functions}."""
    wanted, functions = {}, {}
    for path in sorted(folder.glob("*.so*")):
        for soname in re.findall(r"\(NEEDED\).*\[(.*)\]", readelf("-d", path)):
            if CUDA.match(soname) and not (folder / soname).exists():
                wanted.setdefault(soname, {})
        soname = None
        for line in readelf("-V", path).splitlines():
            if match := re.search(r"File: (\S+)", line):
                soname = match[1]
            elif (match := re.search(r"Name: (\S+)", line)) and soname in wanted:
                wanted[soname].setdefault(match[1], set())
        for line in readelf("--dyn-syms", path).splitlines():
            field = line.split()
            if len(field) >= 8 and field[6] == "UND" and CUDA.match(field[7]):
                name, _, version = field[7].partition("@")
                functions.setdefault(version, set()).add(name)
    for versions in wanted.values():
        for version in versions:
            versions[version] = functions.get(version, set())
    # Functions without a version may live in any one library.
    wanted["libnccl.so.2"] = {"": functions.get("", set())}
    return wanted


def body(name):
    if re.search("Error(String|Name)", name):
        return f'const char* {name}(void) {{ return "no device"; }}\n'
    return f"int {name}(void) {{ return 100; }}\n"  # 100: cudaErrorNoDevice


def main(folder):
    for soname, versions in sorted(wanted_of(folder).items()):
        with tempfile.TemporaryDirectory() as tmp:
            source, script = pathlib.Path(tmp, "stub.c"), pathlib.Path(tmp, "stub.map")
            names = sorted(set().union(*versions.values()))
            source.write_text("".join(body(n) for n in names))
            command = ["gcc", "-w", "-fno-builtin", "-shared", "-nostdlib", f"-Wl,-soname,{soname}"]
            if "" not in versions and versions:
                script.write_text("".join(
                    f"{v} {{ global: {' '.join(n + ';' for n in sorted(f))} }};\n"
                    for v, f in sorted(versions.items())))
                command.append(f"-Wl,--version-script={script}")
            subprocess.run(command + ["-o", folder / soname, source], check=True)


main(pathlib.Path(sys.argv[1]))
