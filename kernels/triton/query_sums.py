"""Running sums of queries in tiles of rows, and the products of their differences with keys.

PyTorch's own running sum along time goes row by row in a thread: milliseconds a layer and chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor

import triton
import triton.language as tl

ROWS, DIMS = 256, 32  # of a tile of sums
KEYS = 64  # of a tile of scores


@triton.jit(do_not_specialize=["n_before", "n_queries"])
def query_sums_kernel(
    q, before, out, n_heads, n_before, n_queries, q_batch, q_head, q_row,
    DIM: tl.constexpr, ROWS: tl.constexpr, DIMS: tl.constexpr,
):  # fmt: skip
    """Program (b * n_heads + h, j): dimensions from j * DIMS on of one head."""
    row = tl.program_id(0).to(tl.int64)
    t = tl.arange(0, ROWS)
    d = tl.program_id(1) * DIMS + tl.arange(0, DIMS)
    inside = (d < DIM)[None, :]
    before += row * n_before * DIM
    out += row * (n_before + n_queries) * DIM
    q += row // n_heads * q_batch + row % n_heads * q_head
    for start in range(0, n_before, ROWS):
        place = (start + t).to(tl.int64)[:, None] * DIM + d[None, :]
        shown = (start + t < n_before)[:, None] & inside
        tl.store(out + place, tl.load(before + place, mask=shown, other=0.0), mask=shown)
    sum = tl.load(before + (n_before - 1).to(tl.int64) * DIM + d, mask=d < DIM, other=0.0)
    out += n_before.to(tl.int64) * DIM
    for start in range(0, n_queries, ROWS):
        token = (start + t).to(tl.int64)[:, None]
        shown = (start + t < n_queries)[:, None] & inside
        x = tl.load(q + token * q_row + d[None, :], mask=shown, other=0.0).to(tl.float32)
        tl.store(out + token * DIM + d[None, :], tl.cumsum(x, 0) + sum[None, :], mask=shown)
        sum += tl.sum(x, 0)


@triton.jit(do_not_specialize=["n_keys", "n_rows", "start", "window"])
def window_scores_kernel(
    sums, k, out, n_heads, n_keys, n_rows, start, window, k_batch, k_head, k_row,
    KV_GROUP: tl.constexpr, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Program (i, b * n_heads + h): keys from i * KEYS on, for one query head."""
    row = tl.program_id(1).to(tl.int64)
    b, h = row // n_heads, row % n_heads
    key = (tl.program_id(0) * KEYS + tl.arange(0, KEYS)).to(tl.int64)
    d = tl.arange(0, BLOCK_DIM)
    shown = (key < n_keys)[:, None] & (d < DIM)[None, :]
    place = (row * n_rows + start + key)[:, None] * DIM + d[None, :]
    queries = tl.load(sums + place + window.to(tl.int64) * DIM, mask=shown, other=0.0)
    queries -= tl.load(sums + place, mask=shown, other=0.0)
    k += b * k_batch + h // KV_GROUP * k_head
    keys = tl.load(k + key[:, None] * k_row + d[None, :], mask=shown, other=0.0).to(tl.float32)
    score = tl.sum(queries * keys, 1) / window.to(tl.float32)
    tl.store(out + row * n_keys + key, score, mask=key < n_keys)


def query_sums(q: Tensor, before: Tensor) -> Tensor:
    """The contract of `infllm.kernels.query_sums.query_sums`, on a GPU."""
    b, h, t, d = q.shape
    q = q if q.stride(-1) == 1 else q.contiguous()
    before = before.contiguous()
    n = before.shape[2]
    out = torch.empty(b, h, n + t, d, dtype=torch.float32, device=q.device)
    query_sums_kernel[b * h, triton.cdiv(d, DIMS)](
        q, before, out, h, n, t, *q.stride()[:3], d, ROWS, DIMS, num_warps=8
    )
    return out


def window_scores(sums: Tensor, k: Tensor, start: int, window: int) -> Tensor:
    """The contract of `infllm.kernels.query_sums.window_scores`, on a GPU."""
    b, h, rows, d = sums.shape
    n = k.shape[2]
    k = k if k.stride(-1) == 1 else k.contiguous()
    out = torch.empty(b, h, n, dtype=torch.float32, device=k.device)
    window_scores_kernel[triton.cdiv(n, KEYS), b * h](
        sums, k, out, h, n, rows, start, window, *k.stride()[:3],
        h // k.shape[1], d, triton.next_power_of_2(d), KEYS,
    )  # fmt: skip
    return out
