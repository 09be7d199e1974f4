"""Rotation of new keys on their way into a ring of the most recent ones."""

from __future__ import annotations

import torch
from torch import Tensor

from infllm.kernels.dispatch import triton_version
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
    if version := triton_version("rotate_append", x):
        version(x, cos, sin, ring, first, layout)
        return
    row = (first + torch.arange(x.shape[2], device=x.device)) % ring.shape[2]
    ring.index_copy_(2, row, rotate(x, cos, sin, layout).to(ring.dtype))
