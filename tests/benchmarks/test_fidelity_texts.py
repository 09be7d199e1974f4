"""Questions about texts as they stand, of books made for the purpose; methods that read back."""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from infllm.engine.text import Tokenizer

FOLDER = Path(__file__).parents[2] / "benchmarks"
FILLER = "The morning was as grey as the one before it, and nobody came up the road. " * 9
ABOUT = {
    "book": "hills",
    "starts": "It was a long road",
    "questions": [
        {"asks": "Who kept the inn?", "sentence": "Ada kept the inn", "accepts": ["ada"]},
        {"asks": "How many came?", "sentence": "half a dozen came", "accepts": ["half a dozen"]},
    ],
}
BOOK = (
    f"A preface.\n\n{FILLER}\n\nIt was a long\nroad. {FILLER} Ada kept\nthe inn. {FILLER}\n\n"
    + (f"Then about half a dozen\ncame. {FILLER}")
)


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("fidelity_texts")


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Beside the book that they are about."""
    (tmp_path / "hills.txt").write_text(BOOK, encoding="utf-8")
    path = tmp_path / "questions.yaml"
    path.write_text(yaml.safe_dump([ABOUT]), encoding="utf-8")
    return path


def test_a_document_asks_what_it_answers(
    texts: ModuleType, tokenizer: Tokenizer, questions: Path
) -> None:
    (stretch,) = texts.read_stretches(questions.parent, questions)
    assert stretch.text.startswith("It was a long road. The morning")
    first, second = stretch.questions
    assert first.is_right("Ada did.")
    assert not first.is_right("Adam did.")
    assert second.is_right("Half a dozen!")
    lengths = [len(tokenizer.encode(stretch.text[:end])) for end in stretch.ends]
    for length, asked in zip(
        (lengths[0] - 1, lengths[0] + 1, lengths[1] + 1),
        ((), (first,), (first, second)),
        strict=True,
    ):
        document = texts.cut(stretch, tokenizer, length)
        assert document.questions == asked
        assert stretch.text.startswith(document.text)
        assert length - 8 <= len(tokenizer.encode(document.text)) <= length
    with pytest.raises(texts.TextsError, match=r"hills: fewer than 9,000 tokens"):
        texts.cut(stretch, tokenizer, 9000)


@pytest.mark.parametrize(
    ("book", "what"),
    [
        (None, "no .*hills.txt: the questions about hills need it"),
        (BOOK.replace("Ada", "Eda"), "hills: stands 0 times in it, not once: 'Ada kept the inn'"),
        (BOOK + " Ada kept the inn.", "hills: stands 2 times in it"),
        (f"Ada kept the inn. {BOOK.replace('Ada', 'Eda')}", "hills: before the stretch's start"),
    ],
)
def test_a_book_that_is_another_is_refused(
    texts: ModuleType, questions: Path, book: str | None, what: str
) -> None:
    path = questions.parent / "hills.txt"
    path.unlink() if book is None else path.write_text(book, encoding="utf-8")
    with pytest.raises(texts.TextsError, match=what):
        texts.read_stretches(questions.parent, questions)


def test_an_answer_that_the_sentence_does_not_give_is_refused(
    texts: ModuleType, questions: Path
) -> None:
    questions.write_text(questions.read_text().replace("- ada", "- eve"), encoding="utf-8")
    with pytest.raises(texts.TextsError, match="hills: answers nothing that is accepted"):
        texts.read_stretches(questions.parent, questions)


@pytest.fixture
def corpus(texts: ModuleType, tmp_path: Path) -> Path:
    """Books of the names and sentences that the benchmark's questions are about."""
    for about in yaml.safe_load(texts.QUESTIONS.read_text(encoding="utf-8")):
        sentences = [about["starts"], *(one["sentence"] for one in about["questions"])]
        text = "\n\n".join(f"{sentence}. {FILLER}" for sentence in sentences)
        (tmp_path / f"{about['book']}.txt").write_text(text + FILLER * 9, encoding="utf-8")
    return tmp_path


def test_each_stretch_has_eight_questions_with_short_sentences(
    texts: ModuleType, corpus: Path
) -> None:
    stretches = texts.read_stretches(corpus)
    assert [len(stretch.questions) for stretch in stretches] == [8] * 5
    questions = [question for stretch in stretches for question in stretch.questions]
    assert all(len(question.sentence.split()) <= 12 for question in questions)
    assert all(question.asks.endswith("?") for question in questions)
    assert not any(question.is_right(question.asks) for question in questions)


def test_passages_are_read_back_after_the_same_reading(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = corpus / "rows.jsonl"
    base = "n_init=16,n_local=128,block_size=32,topk=2,exc_block_size=64,chunk_size=256"
    arguments = [
        str(FOLDER / "fidelity.py"), "--model", "pocket", "--corpus", str(corpus), "--output",
        str(out), "--tasks", "texts", "--len", "1K", "--documents", "1", "--base", base,
        "--methods",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [*arguments, "default default+read-back"])
    runpy.run_path(arguments[0], run_name="__main__")
    head, plain, back = capsys.readouterr().out.splitlines()
    assert head.split()[-1] == "back"
    rows = [json.loads(line) for line in out.read_text().splitlines()][1:]
    assert [row["method"] for row in rows] == ["default", "default+read-back"]
    assert rows[0]["seconds_reading"] == rows[1]["seconds_reading"]
    kinds = [f"emma {i}" for i in range(len(rows[0]["scores"]))]
    assert rows[0]["kinds"] == rows[1]["kinds"] == kinds
    assert "tokens_read_back" not in rows[0]
    read_back = rows[1]["tokens_read_back"]
    assert len(read_back) == len(rows[1]["answers"]) > 1
    assert all(0 < tokens < 128 for tokens in read_back)
    assert len(plain.split()) == len(back.split()) - 1
    assert back.split()[-1] == f"{sum(read_back) / len(read_back):.0f}"


@pytest.mark.parametrize("name", ["origin+read-back", "own:type=stream-lm+read-back"])
def test_what_has_no_units_reads_nothing_back(texts: ModuleType, name: str) -> None:
    fidelity = importlib.import_module("fidelity")
    assert fidelity.method("own:topk=4+read-back").reading == {"topk": 4}
    with pytest.raises(SystemExit, match=r"only inf-llm tells which passages to read back"):
        fidelity.method(name)
