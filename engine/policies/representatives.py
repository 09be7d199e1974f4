"""Representatives of units: the tokens' scores while they wait, and the vector of the best."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from infllm.kernels.query_sums import query_sums, window_scores

if TYPE_CHECKING:
    from infllm.engine.config import ModelConfig


@dataclass(frozen=True, eq=False)
class Cut:
    """Units made at one cut, as recorded for inspection."""

    first: int  # position of the first unit's first token, from the session's start
    score: Tensor  # float32 [B, R, n, block_size]
    representatives: Tensor  # int64 [B, R, n, repr_topk], offsets within the unit
    vector: Tensor  # [B, R, n, D]


class ReprScores(abc.ABC):
    """How much the window's queries wanted each token: of the remainder and of one call.

    Tokens count from the remainder's first at the call's start.
    """

    mass: ClassVar[Literal["column"] | None] = None  # what attention must tell of near keys

    def add(self, near: slice, mass: Tensor) -> None:  # noqa: B027
        """Take in the masses [B, H, n] that tokens `near` received from one block."""

    @abc.abstractmethod
    def of(self, start: int, stop: int, k: Tensor) -> Tensor:
        """float32 [B, H, n]: tokens `start` to `stop - 1`, whose far keys are k [B, Hkv, n, D]."""

    @abc.abstractmethod
    def rest(self, start: int) -> Tensor:
        """What the next call needs of tokens `start` on."""


class MassScores(ReprScores):
    """Softmax weight received while near (published code)."""

    mass = "column"

    def __init__(self, before: Tensor | None, q: Tensor) -> None:
        """`before`: [B, H, R], what the last call's `rest` gave; q [B, H, T, D]."""
        fresh = q.new_zeros(q.shape[:3], dtype=torch.float32)
        self._sums = fresh if before is None else torch.cat([before, fresh], dim=2)

    def add(self, near: slice, mass: Tensor) -> None:
        self._sums[:, :, near] += mass

    def of(self, start: int, stop: int, k: Tensor) -> Tensor:
        return self._sums[:, :, start:stop]

    def rest(self, start: int) -> Tensor:
        return self._sums[:, :, start:].clone()


class DotScores(ReprScores):
    """Mean of q.k over the n_local queries that had the token near, at the far position (InfLLM,
    eq. 2)."""

    def __init__(self, before: Tensor | None, q: Tensor, n_local: int) -> None:
        """`before`: [B, H, R + 1, D], what the last call's `rest` gave; q [B, H, T, D], far."""
        if before is None:
            before = q.new_zeros(*q.shape[:2], 1, q.shape[3], dtype=torch.float32)
        self._sums = query_sums(q, before)  # of the queries before each token
        self._n_local = n_local

    def of(self, start: int, stop: int, k: Tensor) -> Tensor:
        return window_scores(self._sums, k, start, self._n_local)

    def rest(self, start: int) -> Tensor:
        # Rebased, so that the sums of a long document never lose precision.
        return self._sums[:, :, start:] - self._sums[:, :, start : start + 1]


class StepScores(ReprScores):
    """Scores for calls of one token, in rooms of fixed size, see `StepTokens`."""

    @property
    def sums_of_queries(self) -> Tensor | None:
        """float32 [B, H, rows + 1, D], which a step's far query is added to, see `StepRows`."""
        return None

    def settle(self) -> None:
        """The step was the last of its kind: what it added counts."""

    @abc.abstractmethod
    def mark(self) -> Callable[[], None]:
        """What takes the scores back, and forward again, to what they are now; good as long as no
        row leaves."""

    @abc.abstractmethod
    def leave(self, first: int, past: int) -> None:
        """Rows before `first` leave; `past` rows stay."""


class StepMassScores(StepScores, MassScores):
    """`MassScores`; what a step adds waits until it is settled, since it may be replayed."""

    def __init__(self, before: Tensor, rows: int) -> None:
        """`before`: [B, H, R]."""
        self._sums = before.new_zeros(*before.shape[:2], rows)
        self._sums[:, :, : before.shape[2]] = before
        self._added = torch.zeros_like(self._sums)
        self._past = before.shape[2]

    def add(self, near: slice, mass: Tensor) -> None:
        if near.stop - near.start < self._added.shape[2]:
            self._added.zero_()
        self._added[:, :, near].copy_(mass)

    def of(self, start: int, stop: int, k: Tensor) -> Tensor:
        return super().of(start, stop, k).clone()

    def settle(self) -> None:
        self._sums += self._added
        self._past += 1

    def mark(self) -> Callable[[], None]:
        sums, past = self._sums.clone(), self._past

        def back() -> None:
            self._sums.copy_(sums)
            self._past = past

        return back

    def leave(self, first: int, past: int) -> None:
        self._sums[:, :, :past] = self._sums[:, :, first : first + past].clone()
        self._sums[:, :, past:] = 0
        self._past = past

    def rest(self, start: int) -> Tensor:
        return self._sums[:, :, start : self._past]


class StepDotScores(StepScores, DotScores):
    """`DotScores`."""

    def __init__(self, before: Tensor, rows: int, n_local: int) -> None:
        """`before`: [B, H, R + 1, D]."""
        b, h, past, d = before.shape
        self._sums = before.new_zeros(b, h, rows + 1, d)
        self._sums[:, :, :past] = before
        self._past = past - 1
        self._n_local = n_local

    @property
    def sums_of_queries(self) -> Tensor | None:
        return self._sums

    def settle(self) -> None:
        self._past += 1

    def mark(self) -> Callable[[], None]:
        past = self._past

        def back() -> None:  # rows behind it are written anew before they are read
            self._past = past

        return back

    def leave(self, first: int, past: int) -> None:
        # Rebased, so that the sums of a long answer never lose precision.
        sums = self._sums[:, :, first : first + past + 1]
        self._sums[:, :, : past + 1] = sums - sums[:, :, :1]
        self._past = past

    def rest(self, start: int) -> Tensor:
        return self._sums[:, :, start : self._past + 1]


def open_step_scores(config: ModelConfig, before: Tensor, rows: int) -> StepScores:
    """Scores for steps over `rows` rows, `before` by `rest`."""
    if config.repr_score == "mass":
        return StepMassScores(before, rows)
    return StepDotScores(before, rows, config.n_local)


def open_scores(config: ModelConfig, before: Tensor | None, q: Tensor) -> ReprScores:
    """Scores for a call with queries q [B, H, T, D] at the far position, `before` by `rest`."""
    if config.repr_score == "mass":
        return MassScores(before, q)
    return DotScores(before, q, config.n_local)


def represent(config: ModelConfig, first: int, score: Tensor, k: Tensor) -> Cut:
    """Units of whole runs of tokens from position `first` on.

    score [B, H, n * block_size] by `ReprScores.of`; far keys k [B, Hkv, n * block_size, D].
    """
    score = score.unflatten(2, (-1, config.block_size))  # [B, H, n, block_size]
    keys = k.unflatten(2, (-1, config.block_size))  # [B, Hkv, n, block_size, D]
    b = score.shape[0]
    if config.repr_heads == "group":
        score = score.view(b, k.shape[1], -1, *score.shape[2:]).sum(dim=2)
    best = score.topk(config.repr_topk, dim=-1).indices  # [B, R, n, repr_topk]
    r, n, d = score.shape[1], score.shape[2], keys.shape[-1]
    # The heads of a group choose among the same keys: [B, Hkv, n, R / Hkv * repr_topk].
    at = best.unflatten(1, (k.shape[1], -1)).transpose(2, 3).flatten(3)
    chosen = keys.gather(3, at[..., None].expand(*at.shape, d)).unflatten(3, (-1, best.shape[3]))
    vector = chosen.mean(dim=4, dtype=torch.float32).transpose(2, 3).reshape(b, r, n, d)
    return Cut(first, score, best, vector)
