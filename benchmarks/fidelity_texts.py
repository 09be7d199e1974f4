"""Questions about stretches of books as they stand: where each is answered, and by what.

A document of a length is the stretch's beginning, so that it holds the questions whose answer has
come by then: the longer, the more.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from fidelity_facts import holds

if TYPE_CHECKING:
    from infllm.engine.text import Tokenizer

QUESTIONS = Path(__file__).with_suffix(".yaml")
LONGEST_TOKEN = 6  # characters that a token of a novel takes at most, over a long text


class TextsError(ValueError):
    """A book is not there, or not the one that its questions are about."""


@dataclass(frozen=True)
class Question:
    """`sentence` answers it, in words that stand once in the book; one of `accepts` is enough."""

    asks: str
    sentence: str
    accepts: tuple[str, ...]

    def is_right(self, answer: str) -> bool:
        return any(holds(answer, words) for words in self.accepts)


@dataclass(frozen=True)
class Stretch:
    """A book from some place on, with questions and the character behind each one's sentence."""

    book: str
    text: str
    questions: tuple[Question, ...]
    ends: tuple[int, ...]


@dataclass(frozen=True)
class Document:
    """The beginning of a stretch, and the questions that it answers."""

    text: str
    questions: tuple[Question, ...]


def read_stretches(corpus: Path, path: Path = QUESTIONS) -> list[Stretch]:
    """The stretches that a file names, from the books NAME.txt of a folder.

    Raises TextsError: a book is missing; it lacks a sentence, or has it twice; the sentence lies
    before the stretch, or does not hold what is accepted.
    """
    return [_stretch(corpus, about) for about in yaml.safe_load(path.read_text(encoding="utf-8"))]


def cut(stretch: Stretch, tokenizer: Tokenizer, length: int) -> Document:
    """The words of a stretch's beginning that take `length` tokens at most.

    Raises TextsError: the book ends before.
    """
    room = LONGEST_TOKEN * length
    ends = [gap.start() for gap in re.finditer(r"\s+", stretch.text[:room])]
    fitting = bisect_right(ends, length, key=lambda end: len(tokenizer.encode(stretch.text[:end])))
    if fitting == len(ends) and len(stretch.text) < room:
        raise TextsError(f"{stretch.book}: fewer than {length:,} tokens behind the stretch's start")
    stop = ends[fitting - 1] if fitting else 0
    inside = (q for q, end in zip(stretch.questions, stretch.ends, strict=True) if end <= stop)
    return Document(stretch.text[:stop], tuple(inside))


def _stretch(corpus: Path, about: dict[str, Any]) -> Stretch:
    name = about["book"]
    path = corpus / f"{name}.txt"
    if not path.exists():
        raise TextsError(f"no {path}: the questions about {name} need it")
    text = _paragraphs(path.read_text(encoding="utf-8"))
    start = _place(name, text, about["starts"])
    questions = tuple(
        Question(one["asks"], one["sentence"], tuple(one["accepts"])) for one in about["questions"]
    )
    for question in questions:
        if _place(name, text, question.sentence) < start:
            raise TextsError(f"{name}: before the stretch's start: {question.sentence!r}")
        if not question.is_right(question.sentence):
            raise TextsError(f"{name}: answers nothing that is accepted: {question.sentence!r}")
    ends = (text.index(q.sentence) + len(q.sentence) - start for q in questions)
    return Stretch(name, text[start:], questions, tuple(ends))


def _paragraphs(text: str) -> str:
    """The text with one blank between words, and one empty line between paragraphs."""
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text))


def _place(book: str, text: str, words: str) -> int:
    times = text.count(words)
    if times != 1:
        raise TextsError(f"{book}: stands {times} times in it, not once: {words!r}")
    return text.index(words)
