"""Attention of a block of queries over one group of keys: the contract that every policy shares.

A policy describes what a block of queries attends as a short list of `Part`s. Each part yields a
partial state `(o, lse)`; states are joined by `merge_state`, so that all parts share one softmax.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from infllm.kernels.quantize import dequantize
from infllm.kernels.rotate import Rope, rotate


@dataclass(frozen=True)
class Band:
    """Key s is visible to query t when `low <= offset + t - s < high` (high None: no bound).

    `offset` is the position of the first query less that of the first key. Distances are in tokens:
    a window of n tokens is `Band(offset, 0, n)`, everything beyond it `Band(offset, n, None)`.
    """

    offset: int
    low: int
    high: int | None = None

    def visible(
        self, n_queries: int, n_keys: int, device: torch.device, shift: Tensor | None = None
    ) -> Tensor:
        """bool [n_queries, n_keys]; `shift` int64 [] or [1] is added to all distances."""
        t = torch.arange(n_queries, device=device)[:, None]
        s = torch.arange(n_keys, device=device)[None, :]
        distance = self.offset + t - s
        if shift is not None:
            distance = distance + shift
        seen = distance >= self.low
        return seen if self.high is None else seen & (distance < self.high)

    def clear(self, n_queries: int, n_keys: int) -> tuple[int, int]:
        """Keys start to stop - 1 are visible to every query; only those outside need a mask."""
        stop = min(n_keys, max(0, self.offset - self.low + 1))
        start = 0 if self.high is None else self.offset + n_queries - self.high
        return min(max(0, start), stop), stop

    def edges(self, n_queries: int, n_keys: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Keys (start, stop) before and behind the clear ones that some query sees."""
        start, stop = self.clear(n_queries, n_keys)
        first = 0 if self.high is None else min(max(0, self.offset - self.high + 1), start)
        last = max(min(n_keys, self.offset + n_queries - self.low), stop)
        return (first, start), (stop, last)


@dataclass(frozen=True, eq=False)
class Part:
    """One group of keys and values, with the queries rotated for it.

    Dense: k, v [B, Hkv, S, D]. Paged: k, v [P, Hkv, page, D] and a block table [B, G, n] of page
    numbers, where G is 1 (all heads attend the same pages) or H (every query head its own); the
    keys of a row are then its pages in order, S = n * page.

    `rope` and `first` (position of a page's first key, or of the first dense key, relative to the
    same origin that rotated q) make the kernel rotate keys as it loads them; without, keys are used
    as stored. `band` hides keys by distance; paged keys have none. `shift` is added to the band's
    distances and read when the kernel runs: a recorded launch follows it.
    Keys and values may be codes of `quantize`: they are worth `codes * scale`, in q's dtype, with
    `k_scale` and `v_scale` shaped as k and v but for the last dimension, 1.
    `mass` asks for the softmax weight that the keys receive, summed over the queries: `column` per
    key [B, H, S], `page` per page [B, H, n].
    `logits` float32 [B, H, 1, S], scaled and capped, may be told where they are known: of a dense
    part on a CPU, without a band (`row_logits`).
    """

    q: Tensor  # [B, H, T, D]
    k: Tensor
    v: Tensor
    table: Tensor | None = None  # int64 [B, G, n]
    band: Band | None = None
    shift: Tensor | None = None  # int64 [1]
    rope: Rope | None = None
    first: Tensor | None = None  # int64 [B, G, n], or [] for dense keys
    mass: Literal["column", "page"] | None = None
    k_scale: Tensor | None = None  # float32
    v_scale: Tensor | None = None
    logits: Tensor | None = None  # of one query

    @property
    def n_keys(self) -> int:
        """Keys that a query of this part may see, S."""
        if self.table is None:
            return self.k.shape[2]
        return self.table.shape[2] * self.k.shape[2]

    def hidden(self) -> Tensor | None:
        """bool [T, S] of what the band hides, or None when it hides nothing."""
        n_queries, n_keys = self.q.shape[2], self.n_keys
        if self.band is None:
            return None
        if self.shift is None and self.band.clear(n_queries, n_keys) == (0, n_keys):
            return None
        return ~self.band.visible(n_queries, n_keys, self.q.device, self.shift)


@dataclass(frozen=True, eq=False)
class State:
    """What queries have of keys that they attended already, as `merge_state` joins it."""

    o: Tensor  # float32 [B, H, T, Dv], contiguous
    lse: Tensor  # float32 [B, H, T], contiguous


def parts_behind(
    q: Tensor, k: Tensor, v: Tensor, tokens: Tensor, position: int, window: int
) -> list[Part]:
    """Parts of keys k, v [B, Hkv, n, D] of `tokens`, int64 [n], ascending with gaps, on the host:
    those at least `window` tokens behind a query of q [B, H, T, D], the first at `position`.

    Tokens that only some queries see are a part for each run without a gap: a band counts on.
    """
    clear = int((tokens <= position - window).sum())
    stop = int((tokens < position + q.shape[2] - window).sum())
    gaps = (tokens[clear + 1 : stop] - tokens[clear : stop - 1] > 1).nonzero()[:, 0]
    cuts = [clear, *(gaps + clear + 1).tolist(), stop]
    parts = [Part(q, k[:, :, :clear], v[:, :, :clear])] if clear else []
    return parts + [
        Part(q, k[:, :, a:z], v[:, :, a:z], band=Band(position - int(tokens[a]), window))
        for a, z in pairwise(cuts)
        if a < z
    ]


def gather_keys(part: Part) -> tuple[Tensor, Tensor]:
    """Dense keys and values of a part, rotated: [B, Hkv, S, D], or [B, H, S, D] where G is H."""
    if part.table is None:
        k = _values(part, part.k, part.k_scale)
        v = _values(part, part.v, part.v_scale)
        if part.rope is not None:
            start = part.first if part.first is not None else torch.zeros((), dtype=torch.int64)
            position = start.to(k.device) + torch.arange(k.shape[2], device=k.device)
            k = rotate(k, *part.rope.cos_sin(position), part.rope.layout)
        return k, v
    b, g, n = part.table.shape
    _, n_kv, page, _ = part.k.shape
    h = part.q.shape[1]
    head = torch.arange(h, device=part.k.device) // (h // n_kv)

    def pages(x: Tensor) -> Tensor:  # [B, Hkv or H, n, page, D]
        assert part.table is not None
        if g == 1:
            return x[part.table[:, 0]].transpose(1, 2)
        return x[part.table, head[None, :, None]]

    k = _values(part, pages(part.k), None if part.k_scale is None else pages(part.k_scale))
    v = _values(part, pages(part.v), None if part.v_scale is None else pages(part.v_scale))
    if part.rope is not None and part.first is not None:
        position = part.first[..., None] + torch.arange(page, device=k.device)  # [B, G, n, page]
        k = rotate(k, *part.rope.cos_sin(position), part.rope.layout)
    return k.reshape(b, -1, n * page, k.shape[-1]), v.reshape(b, -1, n * page, v.shape[-1])


def _values(part: Part, codes: Tensor, scale: Tensor | None) -> Tensor:
    return codes if scale is None else dequantize(codes, scale, part.q.dtype)


def partial_logits(part: Part, k: Tensor, scale: float, softcap: float | None) -> Tensor:
    """float32 [B, H, T, S] logits over gathered keys, hidden ones at minus infinity."""
    b, h, t, d = part.q.shape
    heads = k.shape[1]
    q = part.q.float().reshape(b, heads, (h // heads) * t, d)
    logits = (q @ k.float().transpose(-1, -2)).mul_(scale).view(b, h, t, -1)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    hidden = part.hidden()
    return logits if hidden is None else logits.masked_fill_(hidden, float("-inf"))


def partial_attention(
    part: Part, scale: float, softcap: float | None = None
) -> tuple[Tensor, Tensor]:
    """The reference: output and logsumexp of one part, computed in float32.

    Returns o float32 [B, H, T, Dv], normalised within the part, and lse float32 [B, H, T]. A query
    that sees no key of the part has o = 0 and lse = -inf.
    """
    k, v = gather_keys(part)
    logits = partial_logits(part, k, scale, softcap)
    lse = torch.logsumexp(logits, dim=-1)  # [B, H, T]
    weight = torch.exp(logits - lse.masked_fill(lse.isneginf(), 0.0)[..., None])
    b, h, t, s = weight.shape
    heads = v.shape[1]
    o = weight.view(b, heads, (h // heads) * t, s) @ v.float()
    return o.view(b, h, t, v.shape[-1]), lse


def part_mass(part: Part, lse: Tensor, scale: float, softcap: float | None = None) -> Tensor:
    """Softmax weight that a part's keys receive, given the joint lse [B, H, T] of all parts.

    float32 [B, H, S] for `mass="column"`, [B, H, n] for `mass="page"`: the second pass over the
    keys that the published representative scores need.
    """
    k, _ = gather_keys(part)
    weight = torch.exp(partial_logits(part, k, scale, softcap) - lse[..., None])
    return fold_mass(part, weight.sum(dim=2))


def fold_mass(part: Part, column: Tensor) -> Tensor:
    """Column mass [B, H, S] in the form that the part asks for."""
    if part.mass == "page" and part.table is not None:
        b, h, _ = column.shape
        return column.view(b, h, part.table.shape[2], -1).sum(dim=-1)
    return column
