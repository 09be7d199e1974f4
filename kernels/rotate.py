"""Rotary position embedding (RoFormer, arXiv 2104.09864, eq. 34) of queries and keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from infllm.kernels.dispatch import triton_version

Layout = Literal["half", "interleaved"]


@dataclass(frozen=True, eq=False)
class Rope:
    """How one layer rotates: angle i of position p is `p * freq[i]`.

    Only the first `2 * len(freq)` dimensions of a head are rotated (partial rotary); an empty
    `freq` is a layer without positions.
    """

    freq: Tensor  # float64 [R/2], radians per token
    scale: float = 1.0  # multiplies cos and sin (YaRN's attention factor)
    layout: Layout = "half"  # pairs (i, i + R/2) or (2i, 2i + 1)

    def cos_sin(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Tables of integer `positions` [...]: two float32 tensors [..., R/2].

        The angle is formed in float64: float32 products of a position near 10 million are off by
        whole tenths of a radian.
        """
        angle = positions.to(torch.float64)[..., None] * self.freq
        cos, sin = angle.cos(), angle.sin()
        return (cos * self.scale).float(), (sin * self.scale).float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor, layout: Layout = "half") -> Tensor:
    """Rotate `x` [..., T, D] by tables broadcastable to [..., T, R/2]; returns x's shape and dtype.

    The arithmetic is float32, or x's dtype where that is wider.
    """
    r = 2 * cos.shape[-1]
    if r == 0:
        return x
    version = triton_version("rotate", x)
    if version is not None and x.dim() == 4 and x.dtype != torch.float64:
        return version(x, cos, sin, layout)
    wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
    out = torch.empty_like(wide)
    if layout == "half":
        a, b = wide[..., : r // 2], wide[..., r // 2 : r]
        out_a, out_b = out[..., : r // 2], out[..., r // 2 : r]
    else:
        a, b = wide[..., 0:r:2], wide[..., 1:r:2]
        out_a, out_b = out[..., 0:r:2], out[..., 1:r:2]
    out_a.copy_(a * cos).addcmul_(b, sin, value=-1)
    out_b.copy_(b * cos).addcmul_(a, sin)
    if r < x.shape[-1]:
        out[..., r:] = wide[..., r:]
    return out.to(x.dtype)
