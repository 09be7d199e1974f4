"""Joining of partial attention states (FlashInfer, arXiv 2501.01005, section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["n_states", "n_rows", "n_queries"])
def merge_state_kernel(
    o, lse, sink, out, joint, n_states, n_rows, n_heads, n_queries, state_stride,
    SINK: tl.constexpr, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_ROWS: tl.constexpr,
):  # fmt: skip
    """Program i: rows from i * BLOCK_ROWS on, of B * H * T."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    real = row < n_rows
    d = tl.arange(0, BLOCK_DIM)
    shown = real[:, None] & (d < DIM)[None, :]
    top = tl.full([BLOCK_ROWS], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_ROWS], tl.float32)
    acc = tl.zeros([BLOCK_ROWS, BLOCK_DIM], tl.float32)
    if SINK:
        top = tl.load(sink + row // n_queries % n_heads, mask=real, other=0.0).to(tl.float32)
        total += 1.0
        total = tl.where(top == float("-inf"), 0.0, total)
    place = row[:, None] * DIM + d[None, :]
    for _ in range(n_states):
        one = tl.load(lse + row, mask=real, other=float("-inf"))
        new = tl.maximum(top, one)
        safe = tl.where(new == float("-inf"), 0.0, new)
        fade = tl.exp(top - safe)
        weight = tl.exp(one - safe)
        acc = acc * fade[:, None] + tl.load(o + place, mask=shown, other=0.0) * weight[:, None]
        total = total * fade + weight
        top = new
        lse += n_rows
        o += state_stride
    none = total == 0
    total = tl.where(none, 1.0, total)
    acc = acc / total[:, None]
    tl.store(out + place, acc.to(out.dtype.element_ty), mask=shown)
    tl.store(joint + row, tl.where(none, float("-inf"), top + tl.log(total)), mask=real)


def merge_states(
    o: Tensor, lse: Tensor, sink: Tensor | None = None, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Join states o float32 [N, B, H, T, D], lse float32 [N, B, H, T], and a sink's logits [H].

    Returns o [B, H, T, D] in `dtype` and lse float32 [B, H, T].
    """
    n, b, h, t, d = o.shape
    out = o.new_empty(b, h, t, d, dtype=dtype)
    joint = torch.empty_like(lse[0])
    rows = b * h * t
    block_dim = triton.next_power_of_2(d)
    block_rows = max(1, 2048 // block_dim)
    merge_state_kernel[(triton.cdiv(rows, block_rows),)](
        o, lse, sink, out, joint, n, rows, h, t, rows * d,
        sink is not None, d, block_dim, block_rows,
    )  # fmt: skip
    return out, joint


def merge_state(states: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The contract of `infllm.kernels.merge_state.merge_state`, on a GPU."""
    if len(states) == 1:
        return states[0]
    o, lse = (torch.stack([state[i] for state in states]).contiguous() for i in (0, 1))
    return merge_states(o, lse)
