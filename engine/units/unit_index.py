"""What units of a slab are looked up by: representatives, and moments of their keys."""

from __future__ import annotations

import torch
from torch import Tensor

from infllm.kernels.quantize import dequantize
from infllm.kernels.unit_moments import whole_moments


class UnitIndex:
    """Of so many units: `vectors` [units, B, R, D]; and, where units have parts, `moments`: means
    and variances [2, B, Hkv, units * parts, D], each head's in one piece.

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
        rows = (2, batch, self._n_kv, units * parts, dim)
        self.moments = torch.empty(rows, dtype=moment, device=device)
        rows = (2, batch, self._n_kv, units if parts > 1 else 0, dim)
        self._whole = torch.empty(rows, dtype=moment, device=device)

    @property
    def whole(self) -> Tensor:
        """Moments of whole units [2, B, Hkv, units, D], which follow from those of their parts."""
        return self._whole if self._parts > 1 else self.moments

    def write(
        self, first: int, vectors: Tensor, moments: tuple[Tensor, Tensor] | None = None
    ) -> None:
        """Units `first` on: vectors [n, B, R, D], means and variances [B, Hkv, n, parts, D]."""
        n = vectors.shape[0]
        self.vectors[first : first + n].copy_(vectors)
        if moments is not None:
            some = self.moments[:, :, :, first * self._parts : (first + n) * self._parts]
            for stored, given in zip(some, moments, strict=True):
                stored.copy_(given.flatten(2, 3))
            if self._parts > 1:  # of what is stored: files then tell the same
                units = self._whole[:, :, :, first : first + n]
                of_units = whole_moments(*some.unflatten(3, (n, self._parts)))
                for stored, given in zip(units, of_units, strict=True):
                    stored.copy_(given)

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
        some = self.moments[:, :, :, start * self._parts : stop * self._parts]
        by_unit = some.unflatten(3, (-1, self._parts)).permute(3, 1, 2, 4, 0, 5)
        return torch.cat([vectors, by_unit.flatten(2, 4).to(vectors.dtype)], dim=2)

    def nbytes(self, used: int) -> int:
        """Bytes of the first `used` units."""
        moments = self.moments[:, :, :, : used * self._parts].nbytes
        return self.vectors[:used].nbytes + moments + self._whole[:, :, :, :used].nbytes


def centre_of(codes: Tensor, scale: Tensor | None) -> Tensor:
    """float32 [B, Hkv, D]: mean of the keys of one unit as stored, [B, 2, Hkv, block_size, D].

    Moments are of keys less that of the first unit: what all keys share would cost them digits.
    """
    keys = dequantize(codes[:, 0], None if scale is None else scale[:, 0], torch.float32)
    return keys.contiguous().mean(dim=2)
