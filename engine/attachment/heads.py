"""Heads that do not come as memories keep them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class HeadForm:
    """Heads whose rotated values do not come first, whose keys and values differ in size, or whose
    keys have a bias each.

    Memories keep heads of one size, the rotated values first: products of queries and keys are the
    same in any order of the values, and with zeros behind them. A bias is one more value of the
    key, times a one of the query.
    """

    first: int  # of the values that are rotated
    key_dim: int
    value_dim: int
    biased: bool = False

    @property
    def head_dim(self) -> int:
        """Of keys and values as memories keep them."""
        # Whole groups of eight, or kernels would not take them.
        return max(self.key_dim + (8 if self.biased else 0), self.value_dim)

    def query(self, x: Tensor, scale: float) -> Tensor:
        """Queries [..., key_dim] as memories take them, [..., head_dim]; `scale`: of products."""
        x = self._turned_first(x)
        if self.biased:
            x = torch.cat([x, x.new_full((*x.shape[:-1], 1), 1 / scale)], dim=-1)
        return self._padded(x)

    def key(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Keys [B, Hkv, T, key_dim] as memories keep them, [B, Hkv, T, head_dim]; `mask` [B, H, .,
        >= T] holds their biases."""
        x = self._turned_first(x)
        if self.biased:
            assert mask is not None
            bias = mask[:, :: mask.shape[1] // x.shape[1], -1, -x.shape[2] :, None]
            x = torch.cat([x, bias.to(x.dtype)], dim=-1)
        return self._padded(x)

    def _turned_first(self, x: Tensor) -> Tensor:
        return x.roll(-self.first, dims=-1) if self.first else x

    def value(self, x: Tensor) -> Tensor:
        """Values [..., value_dim] as memories keep them, [..., head_dim]."""
        return self._padded(x)

    def _padded(self, x: Tensor) -> Tensor:
        missing = self.head_dim - x.shape[-1]
        return torch.nn.functional.pad(x, (0, missing)) if missing else x
