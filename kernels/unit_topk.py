"""Lookup of memory units: scores against their representatives, and the best of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from infllm.kernels.dispatch import triton_version


def unit_scores(query: Tensor, index: Tensor, *, per_head: bool = False) -> Tensor:
    """Scores of units for mean queries.

    Args:
        query: [B, E, R, D], one mean query per execution block; R is H, or Hkv when queries of a
            group have been added up (`repr_heads: group`).
        index: [B, N, R, D], one representative vector per unit, in any floating dtype.
        per_head: score every head alone instead of adding heads up.

    Returns:
        float32 [B, E, 1, N], or [B, E, R, N] with `per_head`. No 1/sqrt(D) (InfLLM, section 3.2).
    """
    if version := triton_version("unit_scores", query):
        return version(query, index, per_head=per_head)
    b, e, r, d = query.shape
    query = query.to(index.dtype)
    if per_head:
        return torch.einsum("berd,bnrd->bern", query, index).float()
    scores = query.reshape(b, e, r * d) @ index.reshape(b, -1, r * d).transpose(1, 2)
    return scores.float()[:, :, None]


SLAB_TILE = 64  # units that a program of the GPU's scores, at most


@dataclass(frozen=True, eq=False)
class Slabs:
    """The index of units that lie in several tensors, one behind the other."""

    runs: Sequence[Tensor]  # each [n, B, R, D], contiguous, of one dtype

    @property
    def n(self) -> int:
        """Units."""
        return sum(run.shape[0] for run in self.runs)

    @cached_property
    def tiles(self) -> Tensor:
        """int64 [tiles, 3], where the runs are: values from the first run's first to a tile's
        first, its first unit, and how many units it has."""
        base, size = self.runs[0].data_ptr(), self.runs[0].element_size()
        found, first = [], 0
        for run in self.runs:
            width = run.stride(0)
            for row in range(0, run.shape[0], SLAB_TILE):
                count = min(SLAB_TILE, run.shape[0] - row)
                away = (run.data_ptr() - base) // size + row * width
                found.append((away, first + row, count))
            first += run.shape[0]
        return torch.tensor(found, dtype=torch.int64).to(self.runs[0].device)


def slab_scores(
    query: Tensor, slabs: Slabs, visible: int, *, limit: Tensor | None = None, growth: int = 0,
    per_head: bool = False,
) -> Tensor:  # fmt: skip
    """`unit_scores` of all units of `slabs`, minus infinity for those that a block does not see.

    Execution block e sees the first `visible + e * growth` units; `limit` int64 [1], on the
    device: or no more than so many. float32 [B, E, 1 or R, N].
    """
    if version := triton_version("slab_scores", query):
        return version(query, slabs, visible, limit=limit, growth=growth, per_head=per_head)
    rows = [unit_scores(query, run.transpose(0, 1), per_head=per_head) for run in slabs.runs]
    scores = rows[0] if len(rows) == 1 else torch.cat(rows, dim=-1)
    unit = torch.arange(scores.shape[-1], device=query.device)
    seen = visible + growth * torch.arange(query.shape[1], device=query.device)[:, None, None]
    if limit is not None:
        seen = seen.minimum(limit)
    return scores.masked_fill_(unit >= seen, float("-inf"))


def top_units(scores: Tensor, k: int) -> Tensor:
    """Numbers of the k best units, ascending: int64 [..., min(k, N)] of scores [..., N]."""
    n = scores.shape[-1]
    if n <= k:
        return torch.arange(n, device=scores.device).expand(*scores.shape[:-1], n)
    if version := triton_version("top_units", scores):
        return version(scores, k)
    return scores.topk(k, dim=-1, sorted=False).indices.sort(dim=-1).values


def top_places(scores: Tensor, k: int, places: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
    """`top_units` of scores float32 [1, 1, N], N > k, and where those units are: int64 [1, 1, k].

    places: int64 [N], where each unit is; -1: nowhere.
    told: int64 [1 + k], which is written: whether any of them is nowhere, and which they are. One
        that is nowhere has place 0.
    """
    if version := triton_version("top_places", scores):
        return version(scores, k, places, told)
    chosen = top_units(scores, k)
    found = places[chosen]
    told[:1] = (found < 0).any()
    told[1:] = chosen.flatten()
    return chosen, found.clamp_(min=0)
