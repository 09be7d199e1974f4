"""The tokens of a decode step go to their rows, rotated in each way that they are attended."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from infllm.kernels.dispatch import triton_version
from infllm.kernels.rotate import Layout, rotate
from infllm.kernels.rotate_append import rotate_append


@dataclass(frozen=True, eq=False)
class StepRows:
    """Where a step's tokens go; each [B, heads, rows, ...], with room for all of them."""

    k: Tensor  # not rotated
    v: Tensor
    near: Tensor  # k, rotated to its row
    far: Tensor | None = None  # k, rotated to position 0, where that is not k itself
    # float32 [B, H, rows + 1, D]: row i is the sum of the far queries of rows before i.
    sums: Tensor | None = None


def take_step(
    q: Tensor, k: Tensor, v: Tensor, at: Tensor, cos: Tensor, sin: Tensor, far: int,
    rows: StepRows, layout: Layout = "half",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Write a step's keys and values into `rows`, in place, from row `at` on.

    Args:
        q, k, v: [B, H, T, D] and [B, Hkv, T, D], not rotated.
        at: int64 [1], on the device, so that a captured graph may be replayed.
        cos, sin: float32 [n, R/2] of positions 0 to n - 1: those of the rows, and `far`.

    Returns q rotated to its rows, and q rotated to position `far`.
    """
    if version := triton_version("take_step", q):
        return version(q, k, v, at, cos, sin, far, rows, layout)
    row = at + torch.arange(q.shape[2], device=q.device)
    at_rows = cos.index_select(0, row), sin.index_select(0, row)
    as_is, first = (cos[:1, :0], sin[:1, :0]), at[0]
    rotate_append(k, *as_is, rows.k, first, layout)
    rotate_append(v, *as_is, rows.v, first, layout)
    rotate_append(k, *at_rows, rows.near, first, layout)
    if rows.far is not None:
        rotate_append(k, cos[:1], sin[:1], rows.far, first, layout)
    q_far = rotate(q, cos[far : far + 1], sin[far : far + 1], layout)
    if rows.sums is not None:
        before = rows.sums.index_select(2, at)
        rows.sums.index_copy_(2, row + 1, before + q_far.float().cumsum(dim=2))
    return rotate(q, *at_rows, layout), q_far
