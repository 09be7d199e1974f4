"""CONTRIBUTING.md names files and names that exist."""

from __future__ import annotations

import re

import pytest

from tests.house.imports import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TEXT, flags=re.M | re.S))


def test_what_may_be_added() -> None:
    assert list(SECTIONS) == [
        "A memory policy", "A kernel", "A document format", "A benchmark suite", "A preset",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", SECTIONS)
def test_files_to_write_to_extend_and_to_look_at(kind: str) -> None:
    named = re.findall(r"`([\w.-]+/[\w./-]*)`", SECTIONS[kind])
    new = [path for path in named if "NAME" in path]
    assert 1 <= len(new) <= 2
    for path in named:
        place = ROOT / path.partition("/NAME")[0]
        assert place.exists(), path
    assert any(path.startswith("tests/") for path in named)
    _, _, example = SECTIONS[kind].partition("Smallest example: ")
    assert any(f"`{path}`" in example for path in named)


def test_names_of_the_code_stand_in_the_files_named_with_them() -> None:
    for kind, text in SECTIONS.items():
        files = [path for path in re.findall(r"`([\w.-]+/[\w./-]*)`", text) if "NAME" not in path]
        content = "\n".join((ROOT / f).read_text("utf-8") for f in files if (ROOT / f).is_file())
        for name in re.findall(r"`([A-Za-z_]+)`", text):
            assert re.search(rf"\b{name}", content), f"{kind}: {name}"
