"""Perplexity of one continuous stream of text, and how it changes with position."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infllm.cli.errors import Interrupted, UsageError
from infllm.cli.progress import Progress, peak_memory_bytes
from infllm.cli.tasks.policies import session_overrides
from infllm.cli.text import count

if TYPE_CHECKING:
    from infllm.cli.documents import Collection
    from infllm.engine import Engine

PROTOCOL = (
    "one continuous stream, BOS once at the start, every token predicted from all before it, "
    "no overlap and no reset; the text alone, without names of sources, a blank line between them"
)


@dataclass(frozen=True)
class Point:
    """Mean NLL in nats of the predicted tokens start to end - 1; `position` is their middle."""

    position: int
    start: int
    end: int
    nll: float


@dataclass(frozen=True)
class Perplexity:
    """What one policy makes of the stream. `bits_per_byte` is over the UTF-8 text scored."""

    policy: str
    tokens: int
    nll: float
    perplexity: float
    bits_per_byte: float
    curve: list[Point]
    seconds: float
    peak_memory_bytes: int


@dataclass(frozen=True)
class Stream:
    """Ids to score: `context` tokens at the front are given and not predicted.

    `n_bytes` is the UTF-8 length of the predicted tokens' text.
    """

    ids: list[int]
    context: int
    n_bytes: int
    tokens_given: int
    tokens_truncated: int


def plain_text(collection: "Collection") -> str:
    """The texts alone, a blank line between two: names and paths must not change the numbers."""
    return "\n\n".join(document.text for document in collection.documents)


def make_stream(engine: "Engine", text: str, max_tokens: int | None) -> Stream:
    """The text as ids after BOS, cut to its first `max_tokens` tokens where asked.

    Raises:
        UsageError: fewer than two tokens, so that there is nothing to predict.
    """
    tokenizer = engine.tokenizer
    ids = tokenizer.encode(text)
    given = len(ids)
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    if max_tokens is not None and given > max_tokens:
        text = tokenizer.decode(ids[:max_tokens])
        ids = ids[:max_tokens]
    n_bytes = len(text.encode("utf-8", "replace"))
    if not bos and ids:
        n_bytes -= len(tokenizer.decode(ids[:1]).encode("utf-8", "replace"))
    if len(bos) + len(ids) < 2:
        raise UsageError("the text has no token to predict", "give a longer text")
    return Stream([*bos, *ids], 1, n_bytes, given, given - len(ids))


def bin_edges(tokens: int, bins: int, spacing: str) -> list[int]:
    """Rising edges from 0 to `tokens`: at most `bins` bins, none empty.

    `even`: bins of equal length; `log`: each longer than the one before by the same factor.
    """
    bins = min(bins, tokens)
    if spacing == "even":
        return [round(tokens * i / bins) for i in range(bins + 1)]
    smallest = min(tokens, max(1, min(64, tokens // bins)))
    ratio = (tokens / smallest) ** (1 / max(1, bins - 1))
    edges = [0, *(round(smallest * ratio**i) for i in range(bins - 1)), tokens]
    return sorted(set(edges))


class Curve:
    """Sums of NLL by bin, fed in blocks: memory does not grow with the stream."""

    def __init__(self, edges: Sequence[int]):
        self.edges = list(edges)
        self.sums = [0.0] * (len(edges) - 1)
        self.done = 0
        self._bin = 0

    def add(self, losses: Sequence[float]) -> None:
        """NLL in nats of the next tokens."""
        start = 0
        while start < len(losses):
            room = self.edges[self._bin + 1] - self.done
            part = losses[start : start + room]
            self.sums[self._bin] += math.fsum(part)
            start += len(part)
            self.done += len(part)
            if self.done == self.edges[self._bin + 1]:
                self._bin += 1

    def points(self) -> list[Point]:
        """Of the bins reached so far, the last one possibly in part."""
        points = []
        for start, end, total in zip(self.edges, self.edges[1:], self.sums, strict=False):
            end = min(end, self.done)
            if end > start:
                points.append(Point((start + end) // 2, start, end, total / (end - start)))
        return points


def measure_perplexity(
    engine: "Engine", stream: Stream, policy: str, edges: Sequence[int], progress: Progress
) -> Perplexity:
    """Score the stream under one policy.

    Raises:
        Interrupted: Ctrl-C; says how far scoring came and what it had found.
    """
    session = engine.session(overrides=session_overrides(policy))
    curve = Curve(edges)
    progress.rename(policy)
    before = progress.elapsed
    try:
        for block in session.nll(stream.ids):
            curve.add(block.tolist())
            progress.advance(len(block))
    except KeyboardInterrupt:
        so_far = f", perplexity {_exp(sum(curve.sums) / curve.done):.2f}" if curve.done else ""
        raise Interrupted(
            f"interrupted after {count(curve.done)} of {count(edges[-1])} tokens "
            f"under {policy}{so_far}",
            "--max-tokens N scores the first N tokens",
        ) from None
    total = sum(curve.sums)
    nll = total / curve.done
    return Perplexity(
        policy,
        curve.done,
        nll,
        _exp(nll),
        total / math.log(2) / stream.n_bytes,
        curve.points(),
        round(progress.elapsed - before, 3),
        peak_memory_bytes(),
    )


def _exp(nll: float) -> float:
    """Perplexity, at most the largest that JSON can hold: a broken model may overflow exp."""
    return math.exp(min(nll, 700.0))
