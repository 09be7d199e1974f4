"""InfiniRetri (PyPI infini-retri 0.0.3): of each window, the sentences that the question attends.

document ─> windows of sentences ─> prompt(carried + window) ─> last layer's rows of the question
                                        ▲                          │
                                        └── kept sentences <── topk tokens
What is carried along are ranges of the document and not text that was decoded again: nothing is
lost on the way, and it can be cited.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from infllm.cli.readers.base import NOTHING, Excerpt, ReadByQuestion
from infllm.cli.readers.sentences import SHORT_IN_PROMPTS, sentences, windows

if TYPE_CHECKING:
    from torch import Tensor

    from infllm.engine import Engine
    from infllm.engine.config import Config, InfiniRetriSettings
    from infllm.engine.text import PromptText, Tokenizer


@dataclass(frozen=True)
class Asked:
    """A prompt around an excerpt, cut into sentences that are encoded each by itself.

    `spans`: characters of `whole`, of each sentence; `tokens`: how many each has; `context`:
    numbers (start, stop) of those that the excerpt is in; `asks`: of the one that the question
    begins in. `bos`: tokens before the first sentence.
    """

    whole: Excerpt
    ids: list[int]
    spans: list[tuple[int, int]]
    tokens: list[int]
    context: tuple[int, int]
    asks: int
    bos: int = 0

    def _before(self, sentence: int) -> int:
        return self.bos + sum(self.tokens[:sentence])

    @property
    def columns(self) -> tuple[int, int]:
        """Tokens (start, stop) of the excerpt."""
        return self._before(self.context[0]), self._before(self.context[1])

    @property
    def first_row(self) -> int:
        """The question's first token; its rows go to the prompt's end."""
        return self._before(self.asks)

    def holding(self, tokens: Sequence[int]) -> list[int]:
        """Numbers of the sentences that hold one of `tokens`, ascending."""
        ends = self.bos + np.cumsum(self.tokens)
        return sorted({int(n) for n in np.searchsorted(ends, tokens, side="right")})

    def excerpt(self, kept: Sequence[int]) -> Excerpt:
        """The text of some sentences, joined."""
        text = NOTHING
        for number in kept:
            text += self.whole[slice(*self.spans[number])]
        return text


def ask_about(
    tokenizer: "Tokenizer", prompt: "PromptText", excerpt: Excerpt, question: str
) -> Asked:
    """The prompt of `question` with `excerpt` in it."""
    parts = [*prompt.before, (excerpt.text, False), *prompt.after]
    text = "".join(part for part, _ in parts)
    start = sum(len(part) for part, _ in prompt.before)
    stop = start + len(excerpt.text)
    where = np.full(len(text), -1)
    where[start:stop] = excerpt.where
    # A blank line behind the excerpt belongs to its last sentence.
    end = stop + len(text[stop:]) - len(text[stop:].lstrip())
    spans = _cut_at(sentences(text, SHORT_IN_PROMPTS), (start, end))
    if spans and spans[-1][1] < len(text):  # blanks, which a template may end in
        spans[-1] = (spans[-1][0], len(text))
    ids, tokens = list(prompt.bos_ids), []
    for number, (a, b) in enumerate(spans):
        encoded = tokenizer.encode_parts(_parts(parts, a, b), inner=number > 0)
        ids += encoded
        tokens.append(len(encoded))
    inside = [number for number, (a, b) in enumerate(spans) if a < end and b > start]
    context = (inside[0], inside[-1] + 1) if inside else (0, 0)
    at = max(text.find(question, end), end)
    asks = next((number for number, (_, b) in enumerate(spans) if b > at), len(spans) - 1)
    return Asked(
        Excerpt(text, where), ids, spans, tokens, context, asks, len(prompt.bos_ids)
    )  # fmt: skip


def _cut_at(spans: list[tuple[int, int]], places: Sequence[int]) -> list[tuple[int, int]]:
    cut: list[tuple[int, int]] = []
    for start, stop in spans:
        bounds = [start, *(at for at in places if start < at < stop), stop]
        cut += [(a, b) for a, b in pairwise(bounds) if a < b]
    return cut


def _parts(parts: Sequence[tuple[str, bool]], start: int, stop: int) -> list[tuple[str, bool]]:
    """Characters `start` to `stop - 1` of parts joined."""
    found, at = [], 0
    for text, trusted in parts:
        piece = text[max(0, start - at) : max(0, stop - at)]
        if piece:
            found.append((piece, trusted))
        at += len(text)
    return found


def phrase_sums(attended: "Tensor", width: int) -> "Tensor":
    """float32 [R, N]: of each column of `attended` [R, N], the sum of it and its neighbours.

    width // 2 of them to the left, (width - 1) // 2 to the right; beside the edges is nothing.
    """
    left, right = width // 2, (width - 1) // 2
    padded = torch.nn.functional.pad(attended, (left, right))
    return padded.unfold(-1, width, 1).sum(-1)


@dataclass(frozen=True)
class Step:
    """What one window gave: the prompt, the question's rows float32 [R, N] on all of it, scores
    float32 [C] of the excerpt's tokens, and what is kept: tokens, sentences, and their text."""

    asked: Asked
    rows: "Tensor"
    scores: "Tensor"
    focus: list[int]
    kept: list[int]
    carried: Excerpt


class InfiniRetri:
    """Reads a document for one question.

    Args:
        prompt: around the document, with the question in it.
        question: as it stands in the prompt.
        settings: by default `infiniretri:` of the configuration.
    """

    def __init__(
        self,
        engine: "Engine",
        prompt: "PromptText",
        question: str,
        settings: "InfiniRetriSettings | None" = None,
    ) -> None:
        self.engine = engine
        self.prompt = prompt
        self.question = question
        self.settings = settings or engine.config.infiniretri
        self._weights: Tensor | None = None  # float32 [R], of the question's rows

    def windows(self, document: str) -> list[tuple[int, int]]:
        """Ranges of a text, one behind the other; blanks at its end are in none."""
        encode = self.engine.tokenizer.encode
        return windows(document, lambda text: len(encode(text, inner=True)), self.settings.window)

    def step(self, carried: Excerpt, window: Excerpt) -> Step:
        """One window behind what is carried along."""
        tokenizer, engine, settings = self.engine.tokenizer, self.engine, self.settings
        asked = ask_about(tokenizer, self.prompt, (carried + window).stripped(), self.question)
        rows = engine.attention_rows(asked.ids, asked.first_row)
        first, last = asked.columns
        weights = torch.ones(len(rows))
        if settings.question_weight == "first":
            if self._weights is None:
                self._weights = rows[:, asked.first_row :].sum(1)
            weights = self._weights**2
        sums = phrase_sums(rows[:, first:last], settings.phrase_tokens)
        scores = (weights.to(rows)[:, None] * sums).sum(0)
        best = scores.sort(descending=True, stable=True).indices[: settings.topk]
        focus = sorted(first + int(i) for i in best)
        kept = asked.holding(focus)
        return Step(asked, rows, scores, focus, kept, asked.excerpt(kept))

    def read(
        self, document: Excerpt, told: Callable[[int], None] = lambda characters: None
    ) -> tuple[Excerpt, int]:
        """What is left of the document, and how many tokens went through the model.

        `told` hears of the characters of each window.
        """
        carried, tokens = NOTHING, 0
        for start, stop in self.windows(document.text):
            step = self.step(carried, document[start:stop])
            carried = step.carried
            tokens += len(step.asked.ids)
            told(stop - start)
        return carried.stripped(), tokens

    def answer_ids(self, excerpt: Excerpt) -> list[int]:
        """The prompt that is answered from: the same, around what is left, in one piece."""
        parts = [*self.prompt.before, (excerpt.text, False), *self.prompt.after]
        return [*self.prompt.bos_ids, *self.engine.tokenizer.encode_parts(parts)]


def read_infiniretri(
    engine: "Engine",
    document: Excerpt,
    prompt: "PromptText",
    question: str,
    told: Callable[[int], None],
    config: "Config",
) -> ReadByQuestion:
    """What the windows left of a document, read for one question; see `Reader`."""
    reader = InfiniRetri(engine, prompt, question, config.infiniretri)
    left, tokens = reader.read(document, told)
    ids = reader.answer_ids(left)
    session = engine.session(overrides={"type": "origin"})
    session.read(ids)
    session.end()
    return ReadByQuestion(session, left.ranges(), tokens + len(ids))
