"""Descent into intervals on a GPU: a program for some intervals of one block and one query head."""

from __future__ import annotations

import torch
from torch import Tensor

import triton
import triton.language as tl
from infllm.kernels.descent import Intervals, KeyRows
from infllm.kernels.rotate import Layout
from infllm.kernels.triton.load_keys import load_rows, load_table
from infllm.kernels.triton.tiles import descent_tile, padded

# Of a thread. Told no limit, ptxas 13.4 spills some to fit more programs, on one card or another.
REGISTERS = 255


@triton.jit
def _look(
    query, keys, scale, table, probe, active, interval, n_rows, key_row, query_row,
    cos, sin,
    PAGE: tl.constexpr, ROTARY: tl.constexpr, INTERLEAVED: tl.constexpr, SCALED: tl.constexpr,
    DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_N: tl.constexpr,
    scale_row,
):  # fmt: skip
    """float32 [BLOCK_N]: the best product of a block's rows with the keys at `probe`."""
    d = tl.arange(0, BLOCK_DIM)
    page = tl.load(table + probe // PAGE, mask=active, other=0)
    row = page * PAGE + probe % PAGE
    zero = tl.zeros([], tl.int64)
    k = load_rows(
        keys, zero, row, active, scale, 0, key_row, 0, scale_row,
        DIM, BLOCK_DIM, True, False, 0, ROTARY > 0,
    )  # fmt: skip
    if ROTARY > 0:
        COLUMN: tl.constexpr = -ROTARY if INTERLEAVED else ROTARY
        partner = load_rows(
            keys, zero, row, active, scale, 0, key_row, 0, scale_row,
            DIM, BLOCK_DIM, True, False, COLUMN, True,
        )  # fmt: skip
        turn = tl.where(active, interval, 0)  # behind the last interval there are no tables
        c = load_table(cos, turn, ROTARY, INTERLEAVED, BLOCK_DIM, 1.0)
        s = load_table(sin, turn, ROTARY, INTERLEAVED, BLOCK_DIM, 0.0)
        first = d % 2 == 0 if INTERLEAVED else d < ROTARY // 2
        k = k * c + partner * tl.where(first[None, :], -s, s)
    k = tl.trans(k.to(query.dtype.element_ty))
    best = tl.full([BLOCK_N], float("-inf"), tl.float32)
    for start in range(0, n_rows, BLOCK_G):
        g = start + tl.arange(0, BLOCK_G)
        q = tl.load(
            query + g[:, None].to(tl.int64) * query_row + d[None, :],
            mask=(g < n_rows)[:, None] & (d < DIM)[None, :], other=0.0,
        )  # fmt: skip
        product = tl.dot(q, k, input_precision="ieee")
        product = tl.where((g < n_rows)[:, None], product, float("-inf"))
        if SCALED:
            # Codes are small whole numbers, exact in any float: their scale waits for the sum.
            product = product * tl.load(scale + row * scale_row, mask=active, other=1.0)[None, :]
        best = tl.maximum(best, tl.max(product, 0))
    return best


@triton.jit(do_not_specialize=["n_intervals", "n_rows"])
def descend_kernel(
    query, keys, scale, table, left, last_left, last_key, cos, sin, score, token,
    n_heads, n_intervals, n_rows,
    query_side, query_batch, query_head, query_row, key_row, key_head, scale_row, scale_head,
    GROUP: tl.constexpr, SIZE: tl.constexpr, ROUNDS: tl.constexpr, PAGE: tl.constexpr,
    ROTARY: tl.constexpr, INTERLEAVED: tl.constexpr, SCALED: tl.constexpr,
    DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Program (i, e * n_heads + h): intervals from i * BLOCK_N on of block e, for query head h."""
    e = (tl.program_id(1) // n_heads).to(tl.int64)
    h = (tl.program_id(1) % n_heads).to(tl.int64)
    interval = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    real = interval < n_intervals
    low = tl.load(left + e * n_intervals + interval, mask=real, other=0)
    limit = tl.load(last_left + e)
    active = real & (low <= limit)
    low = tl.where(active, low, 0)
    high = low + SIZE
    end = tl.load(last_key + e)
    query += e * query_batch + h * query_head
    keys += (h // GROUP) * key_head
    if SCALED:
        scale += (h // GROUP) * scale_head
    best = tl.full([BLOCK_N], float("-inf"), tl.float32)
    for _ in range(ROUNDS):
        middle = (low + high) // 2
        of_left = _look(
            query, keys, scale, table, tl.minimum((low + middle) // 2, end), active, interval,
            n_rows, key_row, query_row, cos, sin,
            PAGE, ROTARY, INTERLEAVED, SCALED, DIM, BLOCK_DIM, BLOCK_G, BLOCK_N, scale_row,
        )  # fmt: skip
        of_right = _look(
            query + query_side, keys, scale, table, tl.minimum((middle + high) // 2, end), active,
            interval, n_rows, key_row, query_row, cos, sin,
            PAGE, ROTARY, INTERLEAVED, SCALED, DIM, BLOCK_DIM, BLOCK_G, BLOCK_N, scale_row,
        )  # fmt: skip
        going = low <= limit
        wins = of_left > of_right
        high = tl.where(going & wins, middle, high)
        best = tl.where(going, tl.maximum(best, tl.maximum(of_left, of_right)), best)
        low = tl.where(going & (wins == 0), middle, low)
    place = (e * n_heads + h) * n_intervals + interval
    tl.store(score + place, tl.where(active, best, float("-inf")), mask=real)
    tl.store(token + place, low, mask=real)


def descend(
    query: Tensor,
    keys: KeyRows,
    intervals: Intervals,
    turn: Tensor | None = None,
    layout: Layout = "half",
) -> tuple[Tensor, Tensor]:
    """The contract of `infllm.kernels.descent.descend`, on a GPU."""
    _, e, h, rows, d = query.shape
    n = intervals.left.shape[1]
    score = torch.empty(e, h, n, dtype=torch.float32, device=query.device)
    token = torch.empty(e, h, n, dtype=torch.int64, device=query.device)
    if n == 0:
        return score, token
    if query.stride(-1) != 1:
        query = query.contiguous()
    k, scale = keys.keys, keys.scale
    rotary = 0 if turn is None else 2 * turn.shape[-1]
    cos, sin = (None, None) if turn is None or rotary == 0 else (x.contiguous() for x in turn)
    block_g, block_n, warps, stages = descent_tile(rows, padded(d), query.dtype)
    descend_kernel[triton.cdiv(n, block_n), e * h](
        query, k, scale, keys.table, intervals.left.contiguous(), intervals.last_left,
        intervals.last_key, cos, sin, score, token,
        h, n, rows,
        *query.stride()[:4], *k.stride()[:2], *((0, 0) if scale is None else scale.stride()[:2]),
        h // k.shape[1], intervals.size, intervals.rounds, keys.page,
        rotary, layout == "interleaved", scale is not None,
        d, padded(d), block_g, block_n, num_warps=warps, num_stages=stages, maxnreg=REGISTERS,
    )  # fmt: skip
    return score, token
