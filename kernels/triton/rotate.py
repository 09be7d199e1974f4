"""Rotation of queries and keys, written out of place or into a ring of recent tokens."""

from __future__ import annotations

import torch
from torch import Tensor

import triton
import triton.language as tl
from infllm.kernels.rotate import Layout


@triton.jit(do_not_specialize=["n_tokens", "room"])
def rotate_kernel(
    x, cos, sin, out, first, n_heads, n_tokens, room,
    x_batch, x_head, x_row, table_batch, table_head, table_row, out_batch, out_head, out_row,
    ROTARY: tl.constexpr, INTERLEAVED: tl.constexpr, RING: tl.constexpr,
    DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_ROWS: tl.constexpr,
):  # fmt: skip
    """Program (i, b * n_heads + h): tokens from i * BLOCK_ROWS on of one head.

    RING: token t goes to row (first + t) % room, `first` read from the device; else to row t.
    """
    b = (tl.program_id(1) // n_heads).to(tl.int64)
    h = (tl.program_id(1) % n_heads).to(tl.int64)
    t = (tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)).to(tl.int64)
    real = t < n_tokens
    d = tl.arange(0, BLOCK_DIM)
    x += b * x_batch + h * x_head
    shown = real[:, None] & (d < DIM)[None, :]
    value = tl.load(x + t[:, None] * x_row + d[None, :], mask=shown, other=0.0).to(tl.float32)
    if ROTARY > 0:
        half: tl.constexpr = ROTARY // 2
        if INTERLEAVED:
            partner = tl.where(d < ROTARY, d ^ 1, d)
            angle = d // 2
            ahead = d % 2 == 0
        else:
            partner = tl.where(d < half, d + half, tl.where(d < ROTARY, d - half, d))
            angle = d % half
            ahead = d < half
        other = tl.load(x + t[:, None] * x_row + partner[None, :], mask=shown, other=0.0)
        table = (b * table_batch + h * table_head + t * table_row)[:, None] + angle[None, :]
        turned = real[:, None] & (d < ROTARY)[None, :]
        c = tl.load(cos + table, mask=turned, other=1.0)
        s = tl.load(sin + table, mask=turned, other=0.0)
        value = value * c + other.to(tl.float32) * tl.where(ahead[None, :], -s, s)
    row = (tl.load(first) + t) % room if RING else t
    place = b * out_batch + h * out_head + row[:, None] * out_row + d[None, :]
    tl.store(out + place, value.to(out.dtype.element_ty), mask=shown)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, layout: Layout = "half") -> Tensor:
    """The contract of `infllm.kernels.rotate.rotate` for x [B, heads, T, D], on a GPU."""
    if cos.shape[-1] == 0:
        return x
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _launch(x, cos, sin, out, None, layout)
    return out


def rotate_append(
    x: Tensor, cos: Tensor, sin: Tensor, ring: Tensor, first: Tensor, layout: Layout = "half"
) -> None:
    """The contract of `infllm.kernels.rotate_append.rotate_append`, on a GPU."""
    _launch(x, cos, sin, ring, first, layout)


def _launch(
    x: Tensor, cos: Tensor, sin: Tensor, out: Tensor, first: Tensor | None, layout: Layout
) -> None:
    b, h, t, d = x.shape
    x = x if x.stride(-1) == 1 else x.contiguous()
    rotary = 2 * cos.shape[-1]
    cos, sin = (table.contiguous().expand(b, h, t, -1) for table in (cos, sin))
    block_dim = max(16, triton.next_power_of_2(d))
    rows = max(1, 4096 // block_dim)
    rotate_kernel[triton.cdiv(t, rows), b * h](
        x, cos, sin, out, first, h, t, out.shape[2],
        *x.stride()[:3], *cos.stride()[:3], *out.stride()[:3],
        rotary, layout == "interleaved", first is not None, d, block_dim, rows,
    )  # fmt: skip
