"""Unit lookup by FAISS instead of a matrix product: the `faiss` extra."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from infllm.engine.errors import ConfigError


class FaissIndex:
    """Exact inner-product search over unit representatives; float32, on the host.

    Forks share one index until one of them adds to it.
    """

    def __init__(self, batch: int, width: int) -> None:
        try:
            import faiss
        except ImportError as error:
            raise ConfigError(
                "model.faiss needs the package faiss", "pip install 'infllm[faiss]'"
            ) from error
        self._faiss: Any = faiss
        self._rows: list[Any] = [faiss.IndexFlatIP(width) for _ in range(batch)]
        self._shared = False

    def fork(self) -> FaissIndex:
        """An index with the same units."""
        other = object.__new__(FaissIndex)
        other.__dict__.update(self.__dict__)
        self._shared = other._shared = True
        return other

    def add(self, vector: Tensor) -> None:
        """Add n units: representatives [B, R, n, D]."""
        if self._shared:
            self._rows = [self._faiss.clone_index(row) for row in self._rows]
            self._shared = False
        b, _, n, _ = vector.shape
        flat = vector.transpose(1, 2).reshape(b, n, -1).float().cpu().contiguous().numpy()
        for row, vectors in zip(self._rows, flat, strict=True):
            row.add(vectors)

    def search(self, query: Tensor, k: int, n: int) -> Tensor:
        """The k best of the first n units, ascending: query [B, R, D] to int64 [B, 1, k]."""
        flat = query.flatten(1).float().cpu().contiguous().numpy()
        chosen = []
        for row, vector in zip(self._rows, flat, strict=True):
            only = self._faiss.SearchParameters(sel=self._faiss.IDSelectorRange(0, n))
            _, ids = row.search(vector[None], k, params=only)
            chosen.append(torch.from_numpy(ids).long())
        return torch.stack(chosen).sort(dim=-1).values.to(query.device)
