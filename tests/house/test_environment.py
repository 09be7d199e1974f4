"""constraints.txt names what the suite runs with; pyproject.toml gives every package a floor."""

from __future__ import annotations

import pytest

from tests.house.environment import FLOOR, ROOT, installed, oldest, pinned, requirements

CONSTRAINTS = ROOT / "constraints.txt"


@pytest.mark.pinned
def test_constraints_name_every_package_of_the_environment() -> None:
    """If it fails: `make constraints`, or install by it (`pip install -c constraints.txt ...`)."""
    named = pinned(CONSTRAINTS.read_text(encoding="utf-8"))
    here = installed()
    assert "torch" in here
    assert {name: version for name, version in here.items() if named.get(name) != version} == {}


def test_constraints_are_names_and_versions_only() -> None:
    """No addresses: they would send everybody to one index."""
    text = CONSTRAINTS.read_text(encoding="utf-8")
    assert "://" not in text
    assert "@" not in text
    assert "+" not in "".join(pinned(text).values())
    assert len(pinned(text)) > 50


def test_a_package_that_is_not_named_is_found() -> None:
    """What the first test compares is not empty, and differs when a line is missing."""
    text = "".join(f"{name}=={version}\n" for name, version in installed().items())
    assert pinned(text) == installed()
    first, rest = text.split("\n", 1)
    assert set(installed()) - set(pinned(rest)) == {first.split("==")[0]}


def test_every_direct_dependency_has_a_floor_and_no_ceiling() -> None:
    for extra, lines in requirements().items():
        for line in lines:
            if line.startswith("infllm[") or extra == "dev":
                continue
            assert FLOOR.match(line), f"{line} has no floor"
            assert "<" not in line, line
    every = [line for lines in requirements().values() for line in lines]
    assert {"torch", "transformers"} <= set(oldest(every))
