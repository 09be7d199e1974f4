"""Scores of memory units and the best of them, without a word to the host."""

from __future__ import annotations

import torch
from torch import Tensor

import triton
import triton.language as tl
from infllm.kernels.triton.tiles import padded, score_tile
from infllm.kernels.unit_topk import SLAB_TILE, Slabs

BINS = 256  # eight bits of a score at a time
TOP_TILES = (512, 4096)
WARPS = 16  # with 8, what Triton 3.7 makes of a tile of 4096 spills on sm_120


@triton.jit(do_not_specialize=["n_blocks", "n_units"])
def unit_scores_kernel(
    query, index, out, n_blocks, n_units, n_heads,
    query_batch, query_block, query_head, index_batch, index_unit, index_head,
    PER_HEAD: tl.constexpr, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Program (i, j, b * heads + r): units from i * BLOCK_N on, execution blocks from j * BLOCK_E
    on; all heads added up (heads = 1), or the one head r with PER_HEAD."""
    heads = n_heads if PER_HEAD else 1
    b = (tl.program_id(2) // heads).to(tl.int64)
    r = tl.program_id(2) % heads
    unit = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    block = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    d = tl.arange(0, BLOCK_DIM)
    query += b * query_batch + r * query_head
    index += b * index_batch + r.to(tl.int64) * index_head
    score = tl.zeros([BLOCK_E, BLOCK_N], tl.float32)
    for _ in range(1 if PER_HEAD else n_heads):
        q = tl.load(
            query + block[:, None].to(tl.int64) * query_block + d[None, :],
            mask=(block < n_blocks)[:, None] & (d < DIM)[None, :], other=0.0,
        )  # fmt: skip
        k = tl.load(
            index + unit[:, None].to(tl.int64) * index_unit + d[None, :],
            mask=(unit < n_units)[:, None] & (d < DIM)[None, :], other=0.0,
        )  # fmt: skip
        score = tl.dot(q.to(k.dtype), tl.trans(k), score, input_precision="ieee")
        query += query_head
        index += index_head
    place = ((b * n_blocks + block) * heads + r) * n_units  # of [B, E, heads, N]
    tl.store(
        out + place[:, None] + unit[None, :], score,
        mask=(block < n_blocks)[:, None] & (unit < n_units)[None, :],
    )  # fmt: skip


def unit_scores(query: Tensor, index: Tensor, *, per_head: bool = False) -> Tensor:
    """The contract of `infllm.kernels.unit_topk.unit_scores`, on a GPU.

    Sums are float32 whatever the index holds, and stay so: scores of a bfloat16 index are finer
    than bfloat16.
    """
    b, e, r, d = query.shape
    n = index.shape[1]
    query = query if query.stride(-1) == 1 else query.contiguous()
    index = index if index.stride(-1) == 1 else index.contiguous()
    heads = r if per_head else 1
    out = torch.empty(b, e, heads, n, dtype=torch.float32, device=query.device)
    if n == 0:
        return out
    block_e, block_n, warps, stages = score_tile(padded(d), index.dtype)
    unit_scores_kernel[triton.cdiv(n, block_n), triton.cdiv(e, block_e), b * heads](
        query, index, out, e, n, r,
        *query.stride()[:3], *index.stride()[:3],
        per_head, d, padded(d), block_e, block_n, num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return out


@triton.jit(do_not_specialize=["n_blocks", "n_units", "visible", "growth"])
def slab_scores_kernel(
    query, index, tiles, limit, out, n_blocks, n_units, visible, growth, n_heads,
    query_batch, query_block, query_head, index_batch, index_unit, index_head,
    PER_HEAD: tl.constexpr, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_N: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """Program (i * SPLIT + s, j, b * heads + r): units of tile i from s * BLOCK_N on, execution
    blocks from j * BLOCK_E on; heads as in `unit_scores_kernel`."""
    heads = n_heads if PER_HEAD else 1
    b = (tl.program_id(2) // heads).to(tl.int64)
    r = tl.program_id(2) % heads
    tiles += tl.program_id(0) // SPLIT * 3
    in_tile = tl.program_id(0) % SPLIT * BLOCK_N + tl.arange(0, BLOCK_N)
    real = in_tile < tl.load(tiles + 2)
    unit = tl.load(tiles + 1) + in_tile
    block = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    d = tl.arange(0, BLOCK_DIM)
    query += b * query_batch + r * query_head
    seen = visible + block * growth
    most = visible + (n_blocks - 1) * growth
    if limit is not None:
        seen = tl.minimum(seen, tl.load(limit).to(tl.int32))
        most = tl.minimum(most, tl.load(limit).to(tl.int32))
    made = real & (unit < most)  # behind them rows may hold anything
    index += tl.multiple_of(tl.load(tiles), 8) + b * index_batch + r.to(tl.int64) * index_head
    score = tl.zeros([BLOCK_E, BLOCK_N], tl.float32)
    for _ in range(1 if PER_HEAD else n_heads):
        q = tl.load(
            query + block[:, None].to(tl.int64) * query_block + d[None, :],
            mask=(block < n_blocks)[:, None] & (d < DIM)[None, :], other=0.0,
        )  # fmt: skip
        k = tl.load(
            index + (in_tile * index_unit)[:, None] + d[None, :],
            mask=made[:, None] & (d < DIM)[None, :], other=0.0,
        )  # fmt: skip
        score = tl.dot(q.to(k.dtype), tl.trans(k), score, input_precision="ieee")
        query += query_head
        index += index_head
    score = tl.where(unit[None, :] < seen[:, None], score, float("-inf"))
    place = ((b * n_blocks + block) * heads + r) * n_units  # of [B, E, heads, N]
    tl.store(
        out + place[:, None] + unit[None, :], score,
        mask=(block < n_blocks)[:, None] & real[None, :],
    )  # fmt: skip


def slab_scores(
    query: Tensor, slabs: Slabs, visible: int, *, limit: Tensor | None = None, growth: int = 0,
    per_head: bool = False,
) -> Tensor:  # fmt: skip
    """The contract of `infllm.kernels.unit_topk.slab_scores`, on a GPU: one launch."""
    b, e, r, d = query.shape
    n, index, tiles = slabs.n, slabs.runs[0], slabs.tiles
    query = query if query.stride(-1) == 1 else query.contiguous()
    heads = r if per_head else 1
    out = torch.empty(b, e, heads, n, dtype=torch.float32, device=query.device)
    block_e, block_n, warps, stages = score_tile(padded(d), index.dtype)
    split = SLAB_TILE // block_n
    slab_scores_kernel[tiles.shape[0] * split, triton.cdiv(e, block_e), b * heads](
        query, index, tiles, limit, out, e, n, visible, growth, r,
        *query.stride()[:3], index.stride(1), index.stride(0), index.stride(2),
        per_head, d, padded(d), block_e, block_n, split, num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return out


@triton.jit
def _order(score):
    """Unsigned integers in the order of float32 scores."""
    bits = score.to(tl.uint32, bitcast=True)
    return tl.where(bits >> 31 == 1, bits ^ 0xFFFFFFFF, bits | 0x80000000)


@triton.jit(do_not_specialize=["n_units", "k", "score_row"])
def top_units_kernel(
    scores, out, places, found, n_units, k, score_row,
    BLOCK: tl.constexpr, BINS: tl.constexpr,
):  # fmt: skip
    """Program i: the k best of row i, by radix selection, written in ascending order; with
    `places`, also where they are, and before the k whether any is nowhere, as `top_places` tells.

    Eight bits of the score at a time: count the units of each value, find the value where the k
    best end, go on among the units that have it. Of units with one score the first are taken.
    """
    scores += tl.program_id(0).to(tl.int64) * score_row
    out += tl.program_id(0).to(tl.int64) * k
    unit = tl.arange(0, BLOCK)
    bins = tl.arange(0, BINS)
    prefix = tl.zeros([], tl.uint32)  # the leading bits of the k-th best score
    wanted = k + tl.zeros([], tl.int32)  # units still to be found among those with this prefix
    for step in tl.static_range(4):
        shift = 24 - 8 * step
        count = tl.zeros([BINS], tl.int32)
        for start in range(0, n_units, BLOCK):
            real = start + unit < n_units
            x = _order(tl.load(scores + start + unit, mask=real, other=0.0))
            if step > 0:
                real = real & (x >> (shift + 8) == prefix)
            count += tl.histogram(((x >> shift) & 255).to(tl.int32), BINS, mask=real)
        above = tl.sum(count, 0) - tl.cumsum(count, 0)  # units with a larger value of these bits
        value = tl.min(tl.where(above < wanted, bins, BINS), 0)
        wanted -= tl.sum(tl.where(bins == value, above, 0), 0)
        prefix = (prefix << 8) | value.to(tl.uint32)
    taken = tl.zeros([], tl.int32)
    equals = tl.zeros([], tl.int32)
    lacking = tl.zeros([], tl.int32)
    for start in range(0, n_units, BLOCK):
        real = start + unit < n_units
        x = _order(tl.load(scores + start + unit, mask=real, other=0.0))
        equal = (real & (x == prefix)).to(tl.int32)
        rank = equals + tl.cumsum(equal, 0)  # counted from 1
        chosen = (real & ((x > prefix) | ((equal == 1) & (rank <= wanted)))).to(tl.int32)
        place = taken + tl.cumsum(chosen, 0) - 1
        tl.store(out + place, (start + unit).to(tl.int64), mask=chosen == 1)
        if places is not None:
            slot = tl.load(places + start + unit, mask=chosen == 1, other=0)
            tl.store(found + place, tl.maximum(slot, 0), mask=chosen == 1)
            lacking += tl.sum((slot < 0).to(tl.int32), 0)
        equals += tl.sum(equal, 0)
        taken += tl.sum(chosen, 0)
    if places is not None:
        tl.store(out - 1, (lacking > 0).to(tl.int64))


def top_units(scores: Tensor, k: int) -> Tensor:
    """The contract of `infllm.kernels.unit_topk.top_units`, on a GPU; ties go to the first."""
    n = scores.shape[-1]
    if n <= k:
        return torch.arange(n, device=scores.device).expand(*scores.shape[:-1], n)
    rows = scores.float().contiguous().view(-1, n)
    out = torch.empty(rows.shape[0], k, dtype=torch.int64, device=scores.device)
    top_units_kernel[(rows.shape[0],)](
        rows, out, None, None, n, k, n, top_tile(n), BINS, num_warps=WARPS
    )
    return out.view(*scores.shape[:-1], k)


def top_places(scores: Tensor, k: int, places: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
    """The contract of `infllm.kernels.unit_topk.top_places`, on a GPU: one launch."""
    n = scores.shape[-1]
    scores = scores.float().contiguous()
    chosen = told[1 : 1 + k]
    found = torch.empty(1, 1, k, dtype=torch.int64, device=scores.device)
    top_units_kernel[(1,)](
        scores, chosen, places, found, n, k, n, top_tile(n), BINS, num_warps=WARPS
    )
    return chosen.view(1, 1, k), found


def top_tile(n: int) -> int:
    """Units of a tile of the selection: few sizes, so that little is compiled on the way."""
    return next((size for size in TOP_TILES if n <= size), TOP_TILES[-1])
