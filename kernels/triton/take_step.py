"""The tokens of a decode step go to their rows, all of it in one launch."""

from __future__ import annotations

import torch
from torch import Tensor

import triton
import triton.language as tl
from infllm.kernels.rotate import Layout
from infllm.kernels.take_step import StepRows


@triton.jit
def _turned(value, other, cos, sin, row, turned, angle, ahead, ROTARY: tl.constexpr):
    """float32 vectors rotated by a row of the tables, as they are behind ROTARY dimensions."""
    if ROTARY > 0:
        c = tl.load(cos + row * (ROTARY // 2) + angle, mask=turned, other=1.0)
        s = tl.load(sin + row * (ROTARY // 2) + angle, mask=turned, other=0.0)
        value = value * c + other * tl.where(ahead, -s, s)
    return value


@triton.jit(do_not_specialize=["far", "n_tokens"])
def take_step_kernel(
    q, k, v, at, cos, sin, rows_k, rows_v, rows_near, rows_far, sums, q_near, q_far,
    n_heads, n_kv_heads, n_tokens, far, q_batch, q_head, q_row, k_batch, k_head, k_row,
    v_batch, v_head, v_row, rows_batch, rows_head, rows_row, sums_batch, sums_head, sums_row,
    ROTARY: tl.constexpr, INTERLEAVED: tl.constexpr, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    """Program (h, b): query head h, or key-value head h - n_heads."""
    h = tl.program_id(0).to(tl.int64)
    b = tl.program_id(1).to(tl.int64)
    first = tl.load(at)
    d = tl.arange(0, BLOCK_DIM)
    shown = d < DIM
    turned = d < ROTARY
    if INTERLEAVED:
        partner = tl.where(turned, d ^ 1, d)
        angle = d // 2
        ahead = d % 2 == 0
    else:
        partner = tl.where(d < ROTARY // 2, d + ROTARY // 2, tl.where(turned, d - ROTARY // 2, d))
        angle = d % (ROTARY // 2) if ROTARY > 0 else d
        ahead = d < ROTARY // 2
    if h < n_heads:
        q += b * q_batch + h * q_head
        place = (b * n_heads + h) * n_tokens * DIM
        if sums is not None:
            sums += b * sums_batch + h * sums_head + first * sums_row
            sum = tl.load(sums + d, mask=shown, other=0.0)
        for t in range(n_tokens):
            value = tl.load(q + t * q_row + d, mask=shown, other=0.0).to(tl.float32)
            other = tl.load(q + t * q_row + partner, mask=shown, other=0.0).to(tl.float32)
            near = _turned(value, other, cos, sin, first + t, turned, angle, ahead, ROTARY)
            away = _turned(value, other, cos, sin, far, turned, angle, ahead, ROTARY)
            away = away.to(q_far.dtype.element_ty)
            tl.store(q_near + place + t * DIM + d, near.to(q_near.dtype.element_ty), mask=shown)
            tl.store(q_far + place + t * DIM + d, away, mask=shown)
            if sums is not None:
                sum += away.to(tl.float32)
                tl.store(sums + (t + 1) * sums_row + d, sum, mask=shown)
    else:
        h -= n_heads
        k += b * k_batch + h * k_head
        v += b * v_batch + h * v_head
        place = b * rows_batch + h * rows_head + first * rows_row
        for t in range(n_tokens):
            raw = tl.load(k + t * k_row + d, mask=shown, other=0.0)
            values = tl.load(v + t * v_row + d, mask=shown, other=0.0)
            tl.store(rows_k + place + t * rows_row + d, raw, mask=shown)
            tl.store(rows_v + place + t * rows_row + d, values, mask=shown)
            value = raw.to(tl.float32)
            other = tl.load(k + t * k_row + partner, mask=shown, other=0.0).to(tl.float32)
            near = _turned(value, other, cos, sin, first + t, turned, angle, ahead, ROTARY)
            near = near.to(rows_near.dtype.element_ty)
            tl.store(rows_near + place + t * rows_row + d, near, mask=shown)
            if rows_far is not None:
                away = _turned(value, other, cos, sin, 0, turned, angle, ahead, ROTARY)
                away = away.to(rows_far.dtype.element_ty)
                tl.store(rows_far + place + t * rows_row + d, away, mask=shown)


def take_step(
    q: Tensor, k: Tensor, v: Tensor, at: Tensor, cos: Tensor, sin: Tensor, far: int,
    rows: StepRows, layout: Layout = "half",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The contract of `infllm.kernels.take_step.take_step`, on a GPU.

    Raises ValueError where rows lie in different strides.
    """
    b, h, t, d = q.shape
    kept = [x for x in (rows.k, rows.v, rows.near, rows.far) if x is not None]
    if any(x.stride() != kept[0].stride() for x in kept):
        raise ValueError("the rows of a step lie in different strides")
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    near, away = (torch.empty(b, h, t, d, dtype=q.dtype, device=q.device) for _ in range(2))
    sums = rows.sums
    take_step_kernel[h + k.shape[1], b](
        q, k, v, at, cos, sin, rows.k, rows.v, rows.near, rows.far, sums, near, away,
        h, k.shape[1], t, far, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
        *rows.k.stride()[:3], *((0, 0, 0) if sums is None else sums.stride()[:3]),
        2 * cos.shape[-1], layout == "interleaved", d, max(16, triton.next_power_of_2(d)),
        num_warps=1,
    )  # fmt: skip
    return near, away
