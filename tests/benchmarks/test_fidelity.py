"""Planted facts: where they stand, what answers them; a run at toy size that goes on."""

from __future__ import annotations

import importlib.util
import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from infllm.engine.text import Tokenizer

FOLDER = Path(__file__).parents[2] / "benchmarks"
BOOK = " ".join(f"The {n}th morning was as grey as the one before it, and nobody came." for n in
                range(4000))  # fmt: skip


@pytest.fixture(scope="module")
def facts() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fidelity_facts", FOLDER / "fidelity_facts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text(BOOK, encoding="utf-8")
    return path


def test_facts_stand_where_it_is_said(facts: ModuleType, tokenizer: Tokenizer, book: Path) -> None:
    planted = facts.plant(tokenizer, book, 3000, 0, 8)
    assert 2900 < len(planted.ids) <= 3010
    assert sorted(f.kind for f in planted.facts) == sorted(
        ["number", "name", "place", "cause", "colour", "list", "negation", "change"]
    )
    text = tokenizer.decode(planted.ids)
    for fact, (start, stop) in zip(planted.facts, planted.places, strict=True):
        assert tokenizer.decode(planted.ids[start:stop]).strip() == fact.statements[-1]
        assert all(text.count(statement) == 1 for statement in fact.statements)
        assert fact.is_right(" ".join(fact.answer))
        assert not fact.is_right("nobody came")
    places = [start for start, _ in planted.places]
    assert places == sorted(places)
    assert places[0] < 500
    assert places[-1] > 2500
    again = facts.plant(tokenizer, book, 3000, 0, 8)
    assert again.ids == planted.ids
    assert facts.plant(tokenizer, book, 3000, 1, 8).ids != planted.ids


def test_a_book_that_is_too_short_is_refused(
    facts: ModuleType, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    (tmp_path / "short.txt").write_text("Too short. " * 9)
    with pytest.raises(ValueError, match=r"short\.txt is too short"):
        facts.plant(tokenizer, tmp_path / "short.txt", 3000, 0, 5)


def test_what_makes_an_answer_right(facts: ModuleType) -> None:
    fact = facts.Fact("change", ("...",), "?", ("Petra Falk",), ("ivo vell",))
    assert fact.is_right("It was sold to Petra Falk.")
    assert not fact.is_right("It was Ivo Vell, then Petra Falk.")
    assert not fact.is_right("To Petra.")
    number = facts.Fact("number", ("...",), "?", ("1234",))
    assert number.is_right("1,234 envelopes")
    assert not number.is_right("12345")


def test_a_run_goes_on_where_it_stopped(
    book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a script, and once more in this process."""
    out = tmp_path / "rows.jsonl"
    base = "n_init=16,n_local=128,block_size=32,topk=2,exc_block_size=64,chunk_size=256"
    arguments = [
        str(FOLDER / "fidelity.py"), "--model", "pocket", "--corpus", str(book.parent), "--books",
        "book", "--output", str(out), "--len", "1K", "--facts", "2", "--documents", "1", "--base",
        base, "--methods",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, *arguments, "published capped"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "published" in done.stdout
    before = out.read_text()
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(sys, "argv", [*arguments, "published capped origin"])
    runpy.run_path(arguments[0], run_name="__main__")
    table = capsys.readouterr().out
    assert out.read_text().startswith(before)
    rows = [json.loads(line) for line in out.read_text().splitlines()][1:]
    assert [row["method"] for row in rows] == ["published", "capped", "origin"]
    assert all(len(row["scores"]) == len(row["answers"]) == 2 for row in rows)
    assert rows[0]["attended"] < rows[2]["attended"]
    assert all(name in table for name in ("published", "capped", "origin"))
