#!/usr/bin/env python3
"""Fails on an include that goes up the layer order, to a sibling of the same layer, or round a cycle.

The order is design's (docs/architecture.md): a folder may include itself and folders of lower layers.
There is no exceptions list on purpose.
"""
import pathlib
import re
import sys

ORDER = [  # lowest first; folders on one line are siblings and do not see each other
    ["core/base"],
    ["core/text", "core/tensor", "observability"],
    ["core/kernels", "core/transport"],
    ["core/model", "core/cluster"],
    ["core/exchange"],
    ["proto"],
    ["core/service"],
    ["gateway", "router", "attention-worker", "expert-worker"],
    ["cli", "sdk", "tests", "bench"],
]
SEES_ALL = {"tests", "bench"}
LAYER = {folder: level for level, folders in enumerate(ORDER) for folder in folders}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def folder_of(path: str) -> str | None:
    """The layer folder that owns a path or an include; None for a header of a library."""
    if path.startswith("bottega/") and path.endswith(".pb.h"):
        return "proto"
    parts = path.split("/")
    for name in ("/".join(parts[:2]), parts[0]):
        if name in LAYER:
            return name
    return None


def main() -> int:
    root = pathlib.Path(__file__).resolve().parent.parent
    problems, edges = [], {}
    for path in sorted(p for ext in ("*.h", "*.cc", "*.cu", "*.cuh") for p in root.rglob(ext)):
        name = path.relative_to(root).as_posix()
        owner = folder_of(name)
        if name.startswith("build/") or owner is None:
            continue
        edges[name] = []
        for included in INCLUDE.findall(path.read_text()):
            target = folder_of(included)
            if target is None:  # a library's header, unless it is a neighbour's by a relative path
                if (path.parent / included).exists():
                    problems.append(f'{name}: write "{included}" from the repository\'s root')
                continue
            if target != owner and LAYER[target] >= LAYER[owner] and owner not in SEES_ALL:
                problems.append(f"{name} ({owner}) may not include {included} ({target})")
            if (root / included).exists():
                edges[name].append(included)
            elif target != "proto":
                problems.append(f'{name}: "{included}" does not exist')
    problems += [f"include cycle: {' -> '.join(cycle)}" for cycle in cycles(edges)]
    print("\n".join(problems) or f"layers: {len(edges)} files, no include goes up, no cycle")
    return 1 if problems else 0


def cycles(edges):
    """Cycles of the file graph, each found once (depth-first search, grey nodes on the stack)."""
    state, stack = {}, []

    def visit(node):
        state[node] = "grey"
        stack.append(node)
        for target in edges.get(node, []):
            if state.get(target) == "grey":
                yield stack[stack.index(target):] + [target]
            elif target not in state:
                yield from visit(target)
        stack.pop()
        state[node] = "black"

    sys.setrecursionlimit(10_000)
    for node in edges:
        if node not in state:
            yield from visit(node)


if __name__ == "__main__":
    sys.exit(main())
