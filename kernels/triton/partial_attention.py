"""Partial attention of packed queries over tiles of keys, with an online softmax in float32.

FlashAttention-2 (arXiv 2307.08691, algorithm 1) over the parts of this project: a band of
distances, or pages by a block table. The queries of a KV group are packed as rows t * GROUP + g, so
that a tile of keys and values is loaded once for the group. Few rows are spread over the keys: each
program then leaves a state of its own, which `merge_state` joins with those of the other parts.
"""

from __future__ import annotations

import torch
from torch import Tensor

import triton
import triton.language as tl
from infllm.kernels.partial_attention import Part
from infllm.kernels.triton.arguments import arguments_of, group_of, rotary_dim, shares
from infllm.kernels.triton.load_keys import key_places, load_keys, load_rows
from infllm.kernels.triton.merge_state import merge_states
from infllm.kernels.triton.tiles import Tile, block_m, padded, tile_of

SPLIT = 256  # keys: what one program takes at least, a multiple of every tile


@triton.jit
def band_ranges(
    t_first, t_last, begin, end, offset, low, high,
    BANDED: tl.constexpr, BOUNDED: tl.constexpr, BLOCK_N: tl.constexpr, EDGE_N: tl.constexpr,
):  # fmt: skip
    """Keys [first, last) that some query of the tile sees, and among them [clear, dim) that all do.

    Queries are t_first to t_last, keys begin to end - 1. The clear ones are whole tiles of BLOCK_N;
    they and `first` begin at multiples of EDGE_N, which divides it.
    """
    first, last, clear, dim = begin, end, begin, end
    if BANDED:
        last = tl.minimum(end, offset + t_last - low + 1)
        dim = tl.minimum(end, offset + t_first - low + 1)
        if BOUNDED:
            first = tl.maximum(begin, offset + t_first - high + 1) // EDGE_N * EDGE_N
            clear = tl.maximum(first, offset + t_last - high + 1)
    clear = tl.minimum(tl.cdiv(clear, EDGE_N), tl.cdiv(tl.maximum(last, 0), EDGE_N)) * EDGE_N
    dim = clear + tl.maximum(0, dim - clear) // BLOCK_N * BLOCK_N
    return first, last, clear, dim


@triton.jit
def _tile(
    q, o, top, total, start, t, n_keys, offset, low, high, scale, softcap,
    k, v, table, k_scale, v_scale, page_cos, page_sin, place_cos, place_sin,
    k_page, k_row, v_page, v_row, ks_page, ks_row, vs_page, vs_row,
    MASKED: tl.constexpr, BANDED: tl.constexpr, BOUNDED: tl.constexpr, SOFTCAP: tl.constexpr,
    SCALED: tl.constexpr, ROTARY: tl.constexpr, INTERLEAVED: tl.constexpr, PAGE: tl.constexpr,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_N: tl.constexpr,
):  # fmt: skip
    """One step of the online softmax: o [BLOCK_M, BLOCK_DV], top and total [BLOCK_M], base 2."""
    key = start + tl.arange(0, BLOCK_N)
    seen = key < n_keys
    page, entry, place = key_places(table, start, n_keys, PAGE, BLOCK_N)
    keys = load_keys(
        k, page, entry, place, seen, k_scale, k_page, k_row, ks_page, ks_row,
        page_cos, page_sin, place_cos, place_sin,
        D, BLOCK_D, MASKED, SCALED, ROTARY, INTERLEAVED,
    )  # fmt: skip
    x = tl.dot(q, tl.trans(keys.to(q.dtype)), input_precision="ieee")
    if SOFTCAP:
        x = 2 * softcap * tl.sigmoid(x * (2 * scale / softcap)) - softcap
        x = x * 1.4426950408889634
    else:
        x = x * (scale * 1.4426950408889634)
    if MASKED:
        shown = seen[None, :]
        if BANDED:
            distance = offset + t[:, None] - key[None, :]
            shown = shown & (distance >= low)
            if BOUNDED:
                shown = shown & (distance < high)
        x = tl.where(shown, x, float("-inf"))
    new = tl.maximum(top, tl.max(x, 1))
    if MASKED:
        safe = tl.where(new == float("-inf"), 0.0, new)  # a row that has seen no key yet
    else:
        safe = new
    fade = tl.exp2(top - safe)
    weight = tl.exp2(x - safe[:, None])
    values = load_rows(
        v, page, place, seen, v_scale, v_page, v_row, vs_page, vs_row,
        DV, BLOCK_DV, MASKED, SCALED, 0, False,
    )  # fmt: skip
    o = o * fade[:, None]
    o = tl.dot(weight.to(q.dtype), values.to(q.dtype), o, input_precision="ieee")
    return o, new, total * fade + tl.sum(weight, 1)


@triton.jit(do_not_specialize=["n_queries", "n_keys", "split", "offset", "low", "high"])
def partial_attention_kernel(
    q, k, v, o, lse, table, k_scale, v_scale, page_cos, page_sin, place_cos, place_sin,
    n_heads, n_queries, n_keys, split, shift, offset, low, high, scale, softcap,
    q_batch, q_head, q_row, k_page, k_head, k_row, v_page, v_head, v_row,
    ks_page, ks_head, ks_row, vs_page, vs_head, vs_row,
    table_batch, table_group, o_split, lse_split,
    GROUP: tl.constexpr, KV_GROUP: tl.constexpr, PAGE: tl.constexpr,
    BANDED: tl.constexpr, BOUNDED: tl.constexpr, SOFTCAP: tl.constexpr, SCALED: tl.constexpr,
    ROTARY: tl.constexpr, INTERLEAVED: tl.constexpr,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Program (i, b * n_heads / GROUP + p, z): rows from i * BLOCK_M on, of query heads
    p * GROUP to p * GROUP + GROUP - 1, over keys from z * split on."""
    programs = n_heads // GROUP
    b = (tl.program_id(1) // programs).to(tl.int64)
    p = tl.program_id(1) % programs
    kv = (p * GROUP // KV_GROUP).to(tl.int64)
    z = tl.program_id(2)

    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    real = row < n_queries * GROUP
    t = row // GROUP
    head = p * GROUP + row % GROUP
    d = tl.arange(0, BLOCK_D)
    q_at = b * q_batch + head.to(tl.int64) * q_head + t.to(tl.int64) * q_row
    queries = tl.load(
        q + q_at[:, None] + d[None, :], mask=real[:, None] & (d < D)[None, :], other=0.0
    )

    k += kv * k_head
    v += kv * v_head
    if SCALED:
        k_scale += kv * ks_head
        v_scale += kv * vs_head
    if PAGE == 0:
        k += b * k_page
        v += b * v_page
        if SCALED:
            k_scale += b * ks_page
            v_scale += b * vs_page
    else:
        place_in_table = b * table_batch + p * table_group
        table += place_in_table
        if ROTARY > 0:
            page_cos += place_in_table * (ROTARY // 2)
            page_sin += place_in_table * (ROTARY // 2)

    t_first = tl.program_id(0) * BLOCK_M // GROUP
    t_last = tl.minimum(n_queries - 1, (tl.program_id(0) * BLOCK_M + BLOCK_M - 1) // GROUP)
    begin = z * split
    end = tl.minimum(n_keys, begin + split)
    if shift is not None:
        offset += tl.load(shift).to(tl.int32)
    first, last, clear, dim = band_ranges(
        t_first, t_last, begin, end, offset, low, high, BANDED, BOUNDED, BLOCK_N, BLOCK_N
    )
    acc = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    for start in tl.range(clear, dim, BLOCK_N):
        acc, top, total = _tile(
            queries, acc, top, total, start, t, end, offset, low, high, scale, softcap,
            k, v, table, k_scale, v_scale, page_cos, page_sin, place_cos, place_sin,
            k_page, k_row, v_page, v_row, ks_page, ks_row, vs_page, vs_row,
            False, BANDED, BOUNDED, SOFTCAP, SCALED, ROTARY, INTERLEAVED, PAGE,
            D, DV, BLOCK_D, BLOCK_DV, BLOCK_N,
        )  # fmt: skip
    # The edges, where some query must not see some key: before the clear tiles and behind them.
    before = tl.maximum(0, (clear - first) // BLOCK_N)
    behind = tl.maximum(0, tl.cdiv(last - dim, BLOCK_N))
    for i in tl.range(0, before + behind):
        start = tl.where(i < before, first + i * BLOCK_N, dim + (i - before) * BLOCK_N)
        acc, top, total = _tile(
            queries, acc, top, total, start, t, end, offset, low, high, scale, softcap,
            k, v, table, k_scale, v_scale, page_cos, page_sin, place_cos, place_sin,
            k_page, k_row, v_page, v_row, ks_page, ks_row, vs_page, vs_row,
            True, BANDED, BOUNDED, SOFTCAP, SCALED, ROTARY, INTERLEAVED, PAGE,
            D, DV, BLOCK_D, BLOCK_DV, BLOCK_N,
        )  # fmt: skip

    none = total == 0
    total = tl.where(none, 1.0, total)
    acc = acc / total[:, None]
    joint = tl.where(none, float("-inf"), (top + tl.log2(total)) * 0.6931471805599453)
    place = (b * n_heads + head) * n_queries + t  # int64, of [B, H, T]
    tl.store(lse + z * lse_split + place, joint, mask=real)
    dv = tl.arange(0, BLOCK_DV)
    tl.store(
        o + z * o_split + place[:, None] * DV + dv[None, :], acc,
        mask=real[:, None] & (dv < DV)[None, :],
    )  # fmt: skip


def _rows(part: Part) -> int:
    """Rows of a tile of packed queries."""
    _, _, t, d = part.q.shape
    changed = part.k_scale is not None or rotary_dim(part) > 0
    return block_m(t * group_of(part), max(d, part.v.shape[-1]), part.q.dtype, changed)


def n_states(part: Part) -> int:
    """States that `partial_states` leaves for a part: more than one where few queries meet many
    keys, so that all of the device's processors have work."""
    b, h, t, _ = part.q.shape
    group = group_of(part)
    programs = triton.cdiv(t * group, _rows(part)) * b * (h // group)
    return shares(programs, part.q.device, triton.cdiv(part.n_keys, SPLIT))


def partial_states(
    part: Part, scale: float, softcap: float | None, o: Tensor, lse: Tensor,
    tile: Tile | None = None,
) -> None:  # fmt: skip
    """Write a part's states to o float32 [N, B, H, T, Dv] and lse float32 [N, B, H, T].

    N is `n_states(part)`, or any other number: the keys are spread over as many. `tile`: keys,
    warps and stages, by default those of `tile_of`.
    """
    args = arguments_of(part)
    q = args.q
    b, h, t, d = q.shape
    dv = part.v.shape[-1]
    n = o.shape[0]
    split = triton.cdiv(triton.cdiv(part.n_keys, n), SPLIT) * SPLIT
    rows = _rows(part)
    changed = args.rotary > 0 or part.k_scale is not None
    dims = max(padded(d), padded(dv))
    keys, warps, stages = tile or tile_of(rows, dims, q.dtype, q.device, changed)
    partial_attention_kernel[triton.cdiv(t * args.group, rows), b * (h // args.group), n](
        q, part.k, part.v, o, lse, *args.tensors,
        h, t, part.n_keys, split, *args.band, scale, softcap or 1.0,
        *q.stride()[:3], *args.key_strides, *args.table_strides, o.stride(0), lse.stride(0),
        args.group, h // part.k.shape[1], args.page,
        part.band is not None, part.band is not None and part.band.high is not None,
        softcap is not None, part.k_scale is not None, args.rotary, args.interleaved,
        d, dv, padded(d), padded(dv), rows, keys, num_warps=warps, num_stages=stages,
    )  # fmt: skip


def partial_attention(
    part: Part, scale: float, softcap: float | None = None, splits: int | None = None
) -> tuple[Tensor, Tensor]:
    """The contract of `infllm.kernels.partial_attention.partial_attention`, on a GPU.

    `splits`: programs that share the keys; by default as many as the device can use.
    """
    b, h, t, _ = part.q.shape
    n = n_states(part) if splits is None else splits
    o = part.q.new_empty(n, b, h, t, part.v.shape[-1], dtype=torch.float32)
    lse = part.q.new_empty(n, b, h, t, dtype=torch.float32)
    partial_states(part, scale, softcap, o, lse)
    return (o[0], lse[0]) if n == 1 else merge_states(o, lse)
