"""Scores of units for the execution blocks of one call, by representatives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from infllm.engine.config import ModelConfig
    from infllm.engine.units import UnitStore


@dataclass(frozen=True, eq=False)
class Lookup:
    """One lookup, as recorded for inspection: absolute span of the queries and what was chosen."""

    start: int
    stop: int
    n_units: int  # units that could be chosen
    chosen: Tensor  # int64 [B, G, <= topk], ascending


class LookupScores:
    """Products of each block's mean query with the units' representatives."""

    def __init__(
        self, config: ModelConfig, units: UnitStore, q: Tensor, n_kv_heads: int, *, ahead: bool
    ) -> None:
        """q [B, H, T, D] at the far position. `ahead`: score the units that stand for all blocks
        in one product."""
        self._config = config
        self._units = units
        self.query = _mean_queries(config, q, n_kv_heads)  # [B, E, R, D]
        self.n_old = units.n  # units that stand at the call's start
        self._ahead = ahead

    @cached_property
    def old(self) -> Tensor | None:
        """float32 [B, E, G, n_old or more]: of the units that stand at the call's start for all
        blocks; None where they are not scored ahead. Minus infinity behind them."""
        if not self._ahead:
            return None
        if not self._units.staging.ahead:
            return self._score(self.query, 0, self.n_old)
        per_head = self._config.perhead
        return self._units.scores_of_all(self.query, self.n_old, per_head=per_head)

    def of(self, block: int, n: int) -> Tensor:
        """float32 [B, G, n]: the first n units for one block."""
        old, scores = min(n, self.n_old), []
        if self.old is not None:
            scores.append(self.old[:, block, :, :old])
        else:
            old = 0
        if n > old:
            scores.append(self._score(self.query[:, block : block + 1], old, n)[:, 0])
        return scores[0] if len(scores) == 1 else torch.cat(scores, dim=-1)

    def _score(self, query: Tensor, start: int, stop: int) -> Tensor:
        return self._units.scores(query, start, stop, per_head=self._config.perhead)


class RecordedScores(LookupScores):
    """The same for a recorded step: how many units there are is known to the device alone, since it
    grows while a recording is replayed."""

    def __init__(
        self, config: ModelConfig, units: UnitStore, q: Tensor, n_kv_heads: int, n_units: Tensor
    ) -> None:
        """q [B, H, 1, D] at the far position; `n_units` int64 [1]."""
        super().__init__(config, units, q, n_kv_heads, ahead=False)
        self._n_units = n_units

    def of(self, block: int, n: int) -> Tensor:
        """float32 [B, G, N], N >= n: minus infinity from unit n on."""
        units, per_head = self._units, self._config.perhead
        rows = sum(units.rows)
        return units.scores_of_all(self.query, rows, limit=self._n_units, per_head=per_head)[:, 0]


def _mean_queries(config: ModelConfig, q: Tensor, n_kv_heads: int) -> Tensor:
    """[B, E, R, D]: q averaged over each execution block, in float32 where it is more than one."""
    size = config.exc_block_size
    b, _, t, d = q.shape
    if t == 1 and config.repr_heads != "group":
        return q.transpose(1, 2)
    whole = t // size
    means = q[:, :, : whole * size].unflatten(2, (whole, size)).mean(dim=3, dtype=torch.float32)
    if whole * size < t:
        rest = q[:, :, whole * size :].mean(dim=2, keepdim=True, dtype=torch.float32)
        means = torch.cat([means, rest], dim=2) if whole else rest
    if config.repr_heads == "group":
        means = means.view(b, n_kv_heads, -1, means.shape[2], d).sum(dim=2)
    return means.transpose(1, 2)
