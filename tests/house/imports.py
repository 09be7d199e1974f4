"""What each module of a source tree imports, read from the text: nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Folder -> its import name, and the sub-packages of infllm that it may import besides itself.
HOUSE = {
    "infllm_cli": ("infllm.cli", {"engine", "presets"}),
    "engine": ("infllm.engine", {"kernels", "presets"}),
    "kernels": ("infllm.kernels", set()),
    "presets": ("infllm.presets", set()),
}


def modules(root: Path, names: Mapping[str, str]) -> dict[str, Path]:
    """Import name -> file of all modules under the folders `names` (folder -> import name)."""
    found = {}
    for folder, name in names.items():
        for path in sorted((root / folder).rglob("*.py")):
            inside = path.relative_to(root / folder).with_suffix("").parts
            parts = inside[:-1] if inside[-1] == "__init__" else inside
            found[".".join([name, *parts])] = path
    return found


def import_graph(found: Mapping[str, Path]) -> dict[str, set[str]]:
    """Module -> those of `found` that it imports: anywhere, in functions and for types alone.

    A package that is passed through on the way to a module of its own does not count; a name that
    a package hands on does.
    """
    graph: dict[str, set[str]] = {}
    for module, path in found.items():
        graph[module] = {
            name if name in found else name.rpartition(".")[0] for name in imported_names(path)
        } & set(found)
    return graph


def imported_names(path: Path) -> Iterator[str]:
    """Dotted names that a file imports: modules, and what it takes from them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or not; largest first."""
    reach = {module: _reachable(graph, module) for module in graph}
    groups = {
        frozenset(other for other in reach[module] if module in reach[other])
        for module in graph
        if module in reach[module]
    }
    return sorted((sorted(group) for group in groups), key=lambda group: (-len(group), group))


def _reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    open_ = [start]
    while open_:
        fresh = graph[open_.pop()] - seen
        seen |= fresh
        open_ += fresh
    return seen
