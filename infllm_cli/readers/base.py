"""What every reader is given, and what it gives back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from infllm.engine import Engine, Session
    from infllm.engine.config import Config
    from infllm.engine.text import PromptText


@dataclass(frozen=True)
class Excerpt:
    """Text, and of each character where in the document it stands: int64, -1 where it is none."""

    text: str
    where: np.ndarray

    @classmethod
    def of(cls, document: str, start: int, stop: int) -> "Excerpt":
        return cls(document[start:stop], np.arange(start, stop))

    def __getitem__(self, part: slice) -> "Excerpt":
        return Excerpt(self.text[part], self.where[part])

    def __add__(self, other: "Excerpt") -> "Excerpt":
        return Excerpt(self.text + other.text, np.concatenate([self.where, other.where]))

    def stripped(self) -> "Excerpt":
        start = len(self.text) - len(self.text.lstrip())
        return self[start : start + len(self.text.strip())]

    def ranges(self) -> list[tuple[int, int]]:
        """Ranges (start, stop) of the document, in order, that the text is made of."""
        where = self.where[self.where >= 0]
        if not len(where):
            return []
        breaks = np.flatnonzero(np.diff(where) != 1) + 1
        return [(int(run[0]), int(run[-1]) + 1) for run in np.split(where, breaks)]


NOTHING = Excerpt("", np.empty(0, dtype=np.int64))


@dataclass(frozen=True)
class ReadByQuestion:
    """A document that was read for one question.

    `session` goes on with the answer. `ranges` (start, stop) of the document are what it answers
    from; `tokens` went through the model, again and again where text was carried along.
    """

    session: "Session"
    ranges: list[tuple[int, int]]
    tokens: int


class Reader(Protocol):
    """Reads `document` with `prompt` around it, in which `question` stands.

    `told` hears of the document's characters as they are done. `config`: the reader's settings are
    the section of its name. KeyboardInterrupt passes.
    """

    def __call__(
        self,
        engine: "Engine",
        document: Excerpt,
        prompt: "PromptText",
        question: str,
        told: Callable[[int], None],
        config: "Config",
    ) -> ReadByQuestion: ...
