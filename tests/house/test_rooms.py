"""The rooms of the engine: which may import which, and what each hands on to others."""

from __future__ import annotations

import ast
from functools import cache

import pytest

from tests.house.imports import HOUSE, ROOT, imported_names, modules

ENGINE = "infllm.engine"

# From the ground up: a room imports from rooms below it, and from no other on its own floor.
FLOORS = (
    ("lazy", "errors", "byte_level"),
    ("sources",),
    ("config",),
    ("text",),
    ("prune",),
    ("attachment",),
    ("units", "decode", "drafts"),
    ("policies",),
    ("session",),
    ("readers",),
    ("files",),
    ("guide",),
    ("engine",),
    ("support",),
)
ROOMS = [room for floor in FLOORS for room in floor if (ROOT / "engine" / room).is_dir()]
# Modules that others may use as they are: plain operations, and errors, of no room in particular.
OPEN = {f"{ENGINE}.files.storage"}

MODULES = modules(ROOT, {folder: name for folder, (name, _) in HOUSE.items()})


def room_of(module: str) -> str | None:
    """The room, or the file on a floor of its own, that a module of the engine is in."""
    parts = module.split(".")
    return parts[2] if parts[:2] == ["infllm", "engine"] and len(parts) > 2 else None


def below(room: str) -> set[str]:
    floor = next(i for i, rooms in enumerate(FLOORS) if room in rooms)
    return {other for rooms in FLOORS[:floor] for other in rooms}


@cache
def handed_on(room: str) -> set[str]:
    """The names in a room's `__all__`."""
    tree = ast.parse((ROOT / "engine" / room / "__init__.py").read_text(encoding="utf-8"))
    (value,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    return set(ast.literal_eval(value))


def test_every_module_of_the_engine_is_on_a_floor() -> None:
    rooms = {room_of(module) for module in MODULES} - {None}
    assert rooms == {room for floor in FLOORS for room in floor}


@pytest.mark.parametrize("room", [room for floor in FLOORS for room in floor])
def test_a_room_imports_from_rooms_below(room: str) -> None:
    for module, path in MODULES.items():
        if room_of(module) == room:
            used = {room_of(name) for name in imported_names(path)} - {None, room}
            assert used <= below(room), f"{path} imports {used - below(room)}"


def test_what_is_of_another_room_is_taken_from_the_room() -> None:
    """So that a room's files may change as long as the few names of its `__init__` stay."""
    for module, path in MODULES.items():
        if module == ENGINE:
            continue
        for name in imported_names(path):
            room, (home, _, taken) = room_of(name), name.rpartition(".")
            if room not in ROOMS or room == room_of(module) or {home, name} & OPEN:
                continue
            assert home == f"{ENGINE}.{room}", f"{module} reaches into {home}"
            assert taken in handed_on(room), f"{ENGINE}.{room} does not hand on {taken}"


@pytest.mark.parametrize("room", ["", *ROOMS])
def test_a_room_says_what_it_is_for_and_hands_on_what_it_says(room: str) -> None:
    """One sentence; names for type checkers, for `*` and those that are found are the same."""
    path = ROOT / "engine" / room / "__init__.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    said = ast.get_docstring(tree) or ""
    assert said.split("\n")[0].endswith("."), path
    typed = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{ENGINE}.")
        for alias in node.names
    } - {"lazily"}
    assert handed_on(room) == typed | defined(tree)
    package = __import__(f"{ENGINE}.{room}".rstrip("."), fromlist=["*"])
    assert all(hasattr(package, name) for name in handed_on(room))
    # An imported module is an attribute of its package: it would hide a name like its own.
    inside = {path.stem for path in (ROOT / "engine" / room).iterdir()}
    assert not handed_on(room) & inside


def defined(tree: ast.Module) -> set[str]:
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_files_are_short() -> None:
    for path in MODULES.values():
        assert path.read_text(encoding="utf-8").count("\n") <= 400, path
