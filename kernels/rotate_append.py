"""Rotation of new keys on their way into a ring of the most recent ones."""

from __future__ import annotations

import torch
from torch import Tensor

from infllm.kernels.dispatch import takes_triton
from infllm.kernels.rotate import Layout, rotate


def rotate_append(
    x: Tensor, cos: Tensor, sin: Tensor, ring: Tensor, first: Tensor, layout: Layout = "half"
) -> None:
    """Write x, rotated, into rows first, first + 1, ... of a ring, in place, wrapping at its end.

    Args:
        x: [B, heads, T, D], T at most the ring's room.
        cos, sin: tables broadcastable to [B, heads, T, R/2], as `rotate` takes them; R = 0 appends
            values as they are.
        ring: [B, heads, room, D], any strides but the last, 1.
        first: int64 [] on the ring's device, so that a captured graph may be replayed: tokens that
            went in before.
    """
    if takes_triton(x):
        from infllm.kernels.triton.rotate import rotate_append as rotate_append_triton

        return rotate_append_triton(x, cos, sin, ring, first, layout)
    row = (first + torch.arange(x.shape[2], device=x.device)) % ring.shape[2]
    ring.index_copy_(2, row, rotate(x, cos, sin, layout).to(ring.dtype))
