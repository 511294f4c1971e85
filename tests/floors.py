"""The floors of the house and the arrows between its rooms, read from the imports.

`python tests/floors.py` prints them. A package stands on one floor and imports only from floors below it; no two
packages and no two files import each other.
"""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "kzoo"

# From the ground up. A package or a module at the top of kzoo/ has one floor.
FLOORS = [
    {"errors"},
    {"checks", "files", "progress", "hardware", "metrics", "plots"},
    {"catalog", "layers", "walk", "interrupt", "distribution"},
    {"data", "models", "weights"},
    {"builder", "tasks"},
    {"graph", "runs"},
    {"synthesis", "keras_files"},
    {"training", "source"},
    {"visualizing", "style"},
    {"exporting"},
    {"evaluating", "finetuning"},
    {"serving", "reproducing"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def name_of(path):
    """The module that a file is: "kzoo.data.images" of kzoo/data/images.py, "kzoo.data" of kzoo/data/__init__.py."""
    parts = ("kzoo", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module):
    """The package or top-level module that a module belongs to: "data" of "kzoo.data.images"."""
    return module.split(".")[1]


def modules():
    """{name: path} of all modules, kzoo/__init__.py left out: it imports nothing until it is asked."""
    return {name_of(p): p for p in sorted(PACKAGE.rglob("*.py")) if p != PACKAGE / "__init__.py"}


def imports(path, known):
    """The modules of kzoo that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: imports are absolute here"
            names = [
                f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in known else node.module
                for alias in node.names
            ]
        else:
            continue
        found.update(n for n in names if n in known)
    return found - {name_of(path)}


def arrows():
    """{module: modules that it imports}."""
    known = modules()
    return {name: imports(path, known) for name, path in known.items()}


def circles(graph):
    """Groups of two or more nodes that reach each other: {node: nodes} to a list of sets (Tarjan 1972)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = set(stack[stack.index(node) :])
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(group)

    for node in graph:
        if node not in index:
            visit(node)
    return found


def main():
    graph = arrows()
    lines = {name: path.read_text("utf-8").count("\n") for name, path in modules().items()}
    for number, rooms in reversed(list(enumerate(FLOORS))):
        for room in sorted(rooms):
            own = [name for name in graph if room_of(name) == room]
            below = sorted({room_of(o) for name in own for o in graph[name]} - {room}, key=lambda r: (-FLOOR[r], r))
            size = sum(lines[name] for name in own)
            print(f"{number:2}  {room:12} {len(own):3} files {size:6,} lines  -> {', '.join(below)}")
    between = [(a, b) for a in graph for b in graph[a] if room_of(a) != room_of(b)]
    wrong = [(a, b) for a, b in between if FLOOR[room_of(b)] >= FLOOR[room_of(a)]]
    print("\n".join(f"up or level: {a} -> {b}" for a, b in wrong) or "No arrow runs up or level.")
    print("\n".join(f"circle: {', '.join(sorted(g))}" for g in circles(graph)) or "No circle.")


if __name__ == "__main__":
    main()
