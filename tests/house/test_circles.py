"""No module needs itself: not at import, not in a function, and not for a type alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house.imports import HOUSE, ROOT, circles, import_graph, modules


def circles_of(root: Path, names: dict[str, str]) -> list[list[str]]:
    return circles(import_graph(modules(root, names)))


def test_the_house_has_no_circles() -> None:
    found = circles_of(ROOT, {folder: name for folder, (name, _) in HOUSE.items()})
    assert found == []


PLANTED = {
    "at import": "from toy.b import make",
    "of a module": "import toy.b",
    "of a module by its package": "from toy import b",
    "in a function": "def late():\n    from toy.b import make",
    "for a type": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from toy.b import make",
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_circle_is_found(planted: str, tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "a.py").write_text(PLANTED[planted])
    (folder / "b.py").write_text("from toy.c import need")
    (folder / "c.py").write_text("from toy.a import late")
    (folder / "d.py").write_text("from toy.a import late\nimport json")
    assert circles_of(tmp_path, {"toy": "toy"}) == [["toy.a", "toy.b", "toy.c"]]
    (folder / "a.py").write_text("late = None")
    assert circles_of(tmp_path, {"toy": "toy"}) == []


def test_a_room_that_hands_on_what_needs_it_is_found(tmp_path: Path) -> None:
    """A module must take its neighbours' names from where they are, not from their room."""
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "__init__.py").write_text("from toy.a import make")
    (folder / "a.py").write_text("from toy import make")
    assert circles_of(tmp_path, {"toy": "toy"}) == [["toy", "toy.a"]]
