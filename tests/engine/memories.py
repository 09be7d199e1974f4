"""Sessions that are read, saved and compared by the tests of memory files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from infllm.engine import Engine, MemoryWriter, Session
from infllm.engine.errors import MemoryFileError
from tests.engine.served import CHUNK, Served, assert_same_state
from tests.engine.tiny_models import ids

TEXT = ids(150)  # nine chunks and six tokens that wait
MORE = ids(70, seed=1)
QUESTIONS = [ids(9, seed=2), ids(5, seed=3), ids(17, seed=4)]


def read(served: Served, text: list[int] = TEXT, **overrides: Any) -> Session:
    session = served.session(**overrides)
    session.read(text)
    return session


def answer(session: Session, question: list[int]) -> tuple[Tensor, list[int]]:
    """Logits of the question and some generated ids; the session stays as it is."""
    own = session.fork()
    rows = own.score(question)
    return rows, [token.id for token in own.generate(4, stop_ids=())]


def assert_same_answers(a: Session, b: Session) -> None:
    """Bit for bit, in any order of questions, and after reading on."""
    assert_same_state(a.fork(), b.fork())
    mine = [answer(a, question) for question in QUESTIONS]
    theirs = [answer(b, question) for question in reversed(QUESTIONS)]
    for (rows, tokens), (others, other_tokens) in zip(mine, reversed(theirs), strict=True):
        assert torch.equal(rows, others)
        assert tokens == other_tokens
    on = a.fork(), b.fork()
    for session in on:
        session.read(MORE)
    assert torch.equal(on[0].score(QUESTIONS[0]), on[1].score(QUESTIONS[0]))
    assert_same_state(*on)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def reason(error: pytest.ExceptionInfo[MemoryFileError]) -> str:
    return error.value.reason


class Reading:
    """Sessions after each chunk of one reading: a killed run goes on without forward passes."""

    def __init__(self, engine: Engine, text: list[int]) -> None:
        self.engine = engine
        session = engine.session()
        self.steps = [session.fork()]
        for start in range(0, len(text), CHUNK):
            session.read(text[start : start + CHUNK])
            self.steps.append(session.fork())

    def save(self, folder: Path, start: Session, step: int) -> None:
        """Checkpoints every second chunk from `step` on, then the whole."""
        session = start
        with MemoryWriter(session, folder, extra_files={"text": b"words"}) as writer:
            for i in range(step + 1, len(self.steps)):
                then = self.steps[i].fork()
                then.manifest = writer.session.manifest
                writer.session = then
                if i % 2 == 0:
                    writer.checkpoint()
            writer.finish()
