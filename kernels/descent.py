"""Descent into intervals of tokens (InfiniteHiP, arXiv 2502.08910, section 3.1).

Each interval is halved until one token is left, towards the half whose middle key looks better to
some query of the block; what was seen on the way says what the interval is worth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from infllm.kernels.dispatch import triton_version
from infllm.kernels.rotate import Layout, rotate
from infllm.kernels.unit_topk import top_units

INACTIVE = float("-inf")  # score of an interval that the block may not choose
ABSENT = 2**40  # start of an interval that is not there: behind every token
PROBED_VALUES = 2**22  # key values that the reference gathers at once


@dataclass(frozen=True, eq=False)
class KeyRows:
    """Keys of a text, not rotated, in pages of `page` tokens: token t lies in row
    `table[t // page] * page + t % page`."""

    keys: Tensor  # [R, Hkv, D], or codes of `quantize`
    scale: Tensor | None  # float32 [R, Hkv, 1] of codes
    table: Tensor  # int64 [P]
    page: int

    def rows(self, tokens: Tensor) -> Tensor:
        """Where `tokens`, int64 of any shape, lie."""
        return self.table[tokens // self.page] * self.page + tokens % self.page


@dataclass(frozen=True, eq=False)
class Intervals:
    """Intervals [left, left + size) of each block of queries, ascending.

    One is active, and its descent goes on, while `left <= last_left`. No key behind `last_key` is
    looked at.
    """

    left: Tensor  # int64 [E, n]
    size: int  # tokens
    last_left: Tensor  # int64 [E]
    last_key: Tensor  # int64 [E]

    @property
    def rounds(self) -> int:
        """Halvings until one token is left, and one round there."""
        return self.size.bit_length()


def descend(
    query: Tensor,
    keys: KeyRows,
    intervals: Intervals,
    turn: Tensor | None = None,
    layout: Layout = "half",
) -> tuple[Tensor, Tensor]:
    """Scores of intervals, and the token where each descent ends.

    Args:
        query: [2, E, H, G, D], for the probe of the left half and for that of the right one: rows
            of E blocks, rotated and scaled.
        keys: what is probed.
        intervals: of each block, the same for all heads.
        turn: [2, n, R/2], cos and sin by which keys of a block's n-th interval are rotated.
        layout: of that rotation.

    In each round the probes are the middles of both halves, the score of a half is the largest
    product of its probe with a row of the block, and the left half wins if its score is larger.

    Returns:
        float32 [E, H, n], the largest score that won a round, `INACTIVE` of inactive intervals;
        int64 [E, H, n], where the descent ended.
    """
    if version := triton_version("descend", query):
        return version(query, keys, intervals, turn, layout)
    _, e, h, _, d = query.shape
    n = intervals.left.shape[1]
    score = query.new_empty(e, h, n, dtype=torch.float32)
    token = intervals.left.new_empty(e, h, n)
    size = max(1, PROBED_VALUES // max(1, h * n * d))
    for a in range(0, e, size):
        some = slice(a, a + size)
        _descend(query[:, some], keys, intervals, some, turn, layout, score[some], token[some])
    return score, token


def _descend(
    query: Tensor, keys: KeyRows, intervals: Intervals, blocks: slice,
    turn: Tensor | None, layout: Layout, score: Tensor, token: Tensor,
) -> None:  # fmt: skip
    """`descend` for some of the blocks, into score and token [E, H, n]."""
    _, _, h, _, _ = query.shape
    last = intervals.last_key[blocks, None, None]
    head = torch.arange(h, device=query.device)[:, None] // (h // keys.keys.shape[1])
    last_left = intervals.last_left[blocks, None, None]
    active = intervals.left[blocks, None] <= last_left  # [E, 1, n]
    left = torch.where(active, intervals.left[blocks, None], 0).expand(score.shape)
    right = left + intervals.size

    def look(q: Tensor, probe: Tensor) -> Tensor:
        """float32 [E, H, n]: the best product of queries [E, H, G, D] with keys at `probe`."""
        rows = keys.rows(probe.minimum(last))
        k = keys.keys[rows, head]  # [E, H, n, D]
        if keys.scale is not None:
            k = k.float() * keys.scale[rows, head]
        if turn is not None:
            k = rotate(k.float(), turn[0], turn[1], layout)
        return (q.float() @ k.float().transpose(-1, -2)).amax(dim=-2)

    best = torch.full_like(score, INACTIVE)
    for _ in range(intervals.rounds):
        middle = (left + right) // 2
        of_left = look(query[0], (left + middle) // 2)
        of_right = look(query[1], (middle + right) // 2)
        going = active & (left <= last_left)
        wins = of_left > of_right
        right = torch.where(going & wins, middle, right)
        left = torch.where(going & ~wins, middle, left)
        best = torch.where(going, best.maximum(of_left).maximum(of_right), best)
    score.copy_(best)
    token.copy_(left)


def mean_queries(q: Tensor, block: int, group: int) -> tuple[Tensor, Tensor]:
    """Means of `group` neighbouring queries of q [H, T, D], in blocks of `block` queries.

    Returns float32 [E, H, G, D], and int64 [E, G] on the host, the first query of each mean. Where
    the last block has fewer, its last one is there again, which changes no maximum.
    """
    t = q.shape[1]
    n = -(-t // group)
    size = [min(group, t - i * group) for i in range(n)]
    whole = torch.nn.functional.pad(q.float(), (0, 0, 0, n * group - t))
    mean = whole.unflatten(1, (n, group)).sum(dim=2) / whole.new_tensor(size)[:, None]
    n_blocks, rows = -(-t // block), min(block // group, n)
    index = torch.arange(n_blocks * rows).clamp_max_(n - 1).view(n_blocks, rows)
    return mean[:, index.to(q.device)].transpose(0, 1), index * group


def first_intervals(
    start: int, size: int, last_left: Tensor, end: int | None = None
) -> tuple[Tensor, Tensor]:
    """Intervals of `size` tokens from `start` on: left [E, n], and how many a block has, int64 [E].

    The active ones (`last_left` [E]), or for all blocks those before token `end`.
    """
    n = (last_left - start).div(size, rounding_mode="floor").add_(1).clamp_min_(0)
    if end is not None:
        n.fill_(max(0, -(-(end - start) // size)))
    number = torch.arange(int(n.max()), device=n.device)
    left = (start + number * size).expand(len(n), -1)
    return left.masked_fill(number >= n[:, None], ABSENT), n


def best_intervals(score: Tensor, left: Tensor, keep: int) -> Tensor:
    """Starts of the `keep` intervals that are best to any head: int64 [E, k], ascending.

    score [E, H, n] of intervals at left [E, n], ascending. Where fewer are active, `ABSENT`.
    """
    of_any = score.amax(dim=1)
    top = top_units(of_any, keep)
    return left.gather(1, top).masked_fill_(of_any.gather(1, top) == INACTIVE, ABSENT)
