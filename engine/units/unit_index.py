"""What units of a slab are looked up by: representatives, and moments of their keys."""

from __future__ import annotations

import torch
from torch import Tensor

from infllm.kernels.quantize import dequantize


class UnitIndex:
    """Of so many units: `vectors` [units, B, R, D]; `means` and `variances` [B, Hkv, units * parts,
    D], each head's in one piece, where units have parts.

    In files a unit's are in one row, [n, B, R + Hkv * parts * 2, D].
    """

    def __init__(
        self, units: int, batch: int, heads: tuple[int, int], dim: int, parts: int,
        dtypes: tuple[torch.dtype, torch.dtype], device: torch.device,
    ) -> None:  # fmt: skip
        """`heads`: R and Hkv; `dtypes`: of vectors and of moments."""
        n_vectors, self._n_kv = heads
        self._parts = parts
        vector, moment = dtypes
        self.vectors = torch.empty(units, batch, n_vectors, dim, dtype=vector, device=device)
        rows = (batch, self._n_kv, units * parts, dim)
        self.means = torch.empty(rows, dtype=moment, device=device)
        self.variances = torch.empty(rows, dtype=moment, device=device)

    def write(
        self, first: int, vectors: Tensor, moments: tuple[Tensor, Tensor] | None = None
    ) -> None:
        """Units `first` on: vectors [n, B, R, D], means and variances [B, Hkv, n, parts, D]."""
        n = vectors.shape[0]
        self.vectors[first : first + n].copy_(vectors)
        if moments is not None:
            rows = slice(first * self._parts, (first + n) * self._parts)
            for whole, some in zip((self.means, self.variances), moments, strict=True):
                whole[:, :, rows].copy_(some.flatten(2, 3))

    def write_rows(self, first: int, rows: Tensor) -> None:
        """Units `first` on, as files have them."""
        n_vectors = self.vectors.shape[2]
        if self._parts == 0:
            self.write(first, rows)
            return
        moments = rows[:, :, n_vectors:].unflatten(2, (self._n_kv, self._parts, 2))
        mean, variance = moments.permute(4, 1, 2, 0, 3, 5)
        self.write(first, rows[:, :, :n_vectors], (mean, variance))

    def rows(self, start: int, stop: int) -> Tensor:
        """Units `start` to `stop - 1`, as files have them, in the vectors' dtype."""
        vectors = self.vectors[start:stop]
        if self._parts == 0:
            return vectors
        some = slice(start * self._parts, stop * self._parts)
        moments = torch.stack([self.means[:, :, some], self.variances[:, :, some]], dim=3)
        by_unit = moments.unflatten(2, (-1, self._parts)).permute(2, 0, 1, 3, 4, 5)
        return torch.cat([vectors, by_unit.flatten(2, 4).to(vectors.dtype)], dim=2)

    def nbytes(self, used: int) -> int:
        """Bytes of the first `used` units."""
        moments = self.means[:, :, : used * self._parts].nbytes
        return self.vectors[:used].nbytes + 2 * moments


def centre_of(codes: Tensor, scale: Tensor | None) -> Tensor:
    """float32 [B, Hkv, D]: mean of the keys of one unit as stored, [B, 2, Hkv, block_size, D].

    Moments are of keys less that of the first unit: what all keys share would cost them digits.
    """
    keys = dequantize(codes[:, 0], None if scale is None else scale[:, 0], torch.float32)
    return keys.contiguous().mean(dim=2)
