"""The picture of the data's way in engine/README.md is made of names that exist, where it says."""

from __future__ import annotations

import importlib
import re
from types import ModuleType
from typing import Any

import pytest

from tests.house.imports import ROOT, modules

TEXT = (ROOT / "engine" / "README.md").read_text(encoding="utf-8")
_, PICTURE, AFTER = TEXT.split("```")


@pytest.fixture(scope="module")
def places() -> dict[str, list[ModuleType]]:
    """Room -> its modules; the kernels are one, and so is `engine.py`."""
    found: dict[str, list[ModuleType]] = {}
    for name in modules(ROOT, {"engine": "infllm.engine", "kernels": "infllm.kernels"}):
        if ".triton" not in name and not name.endswith(".report"):
            place = "kernels" if name.startswith("infllm.kernels") else name.split(".")[2:3]
            key = place if isinstance(place, str) else "".join(place)
            found.setdefault(key, []).append(importlib.import_module(name))
    return found


def find(name: str, among: list[ModuleType]) -> Any:
    """What is called `name` or `Class.name` in one of the modules, else None."""
    first, *rest = name.split(".")
    for module in among:
        found = getattr(module, first, None)
        for leaf in rest:
            found = getattr(found, leaf, None)
        if found is not None:
            return found
    return None


def test_every_word_of_the_picture_is_a_name_of_its_room(
    places: dict[str, list[ModuleType]],
) -> None:
    room, seen = "", 0
    for line in PICTURE.splitlines():
        names = re.findall(r"[A-Za-z_][\w.]*", line)
        if names and not line.startswith(" "):
            room, *names = names
            assert room in places, line
        for name in names:
            assert find(name, places[room]) is not None, f"{room} has no {name}"
            seen += 1
    assert seen > 25


def test_a_word_that_is_no_name_would_be_found(places: dict[str, list[ModuleType]]) -> None:
    assert find("InfLLM.parts", places["policies"]) is not None
    assert find("InfLLM.nothing", places["policies"]) is None
    assert find("UnitStore.fetch", places["session"]) is None


def test_names_beside_the_picture_exist(places: dict[str, list[ModuleType]]) -> None:
    every = [module for room in places.values() for module in room]
    for name in re.findall(r"`([A-Za-z_.]+)`", AFTER):
        assert find(name, every) is not None or (ROOT / name).exists(), name


def test_every_room_is_in_the_table(places: dict[str, list[ModuleType]]) -> None:
    table = TEXT.split("|---|---|---|")[1].split("\n\n")[0]
    named = {re.sub(r"/$|\.py$", "", name) for name in re.findall(r"`([\w./]+)`", table)}
    assert named == {room for room in places if room not in ("kernels", "")}
