"""Runs of memory units: where they lie, in memory or in mapped files, and what may write there."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, Self
from weakref import ref

import torch
from torch import Tensor

from infllm.engine.units.staging import Staging
from infllm.engine.units.unit_index import UnitIndex
from infllm.kernels.quantize import PLAIN

_slab_numbers = itertools.count()


def by_unit(kv: Tensor) -> Tensor:
    """A view [n, B, 2, ...] of all keys and then all values [2, n, B, ...]."""
    return kv.permute(1, 2, 0, *range(3, kv.dim()))


def raw(x: Tensor) -> Tensor:
    """fp8 as bytes: torch picks no rows of it."""
    return x.view(torch.uint8) if x.dtype is torch.float8_e4m3fn else x


class MappedFile(Protocol):
    """A file that units lie in."""

    def release(self) -> None:
        """Give the memory of what was read back to the system."""


class Seal(Protocol):
    """What tells whether rows that lie in a file are as they were written.

    Checks raise MemoryFileError where they are not.
    """

    @property
    def file(self) -> MappedFile:
        """Where the rows lie."""

    def part(self, start: int, stop: int) -> Self:
        """The seal of rows `start` to `stop - 1`."""

    def check(self, row: int) -> None:
        """Check one row's keys and values."""

    def check_keys(self) -> None:
        """Check the keys of all rows."""

    def check_all(self) -> None:
        """Check all rows."""


@dataclass
class Run:
    """Neighbouring rows of a slab, in memory or in a mapped file."""

    first: int  # row of the slab
    kv: Tensor  # [rows, B, 2, Hkv, block_size, D]
    scale: Tensor | None  # float32 [rows, B, 2, Hkv, block_size, 1]
    seal: Seal | None = None  # checksums of the rows, where a file holds them

    @property
    def nbytes(self) -> int:
        """Of keys and values and their scales."""
        return self.kv.nbytes + (0 if self.scale is None else self.scale.nbytes)

    def part(self, start: int, stop: int) -> Run | None:
        """Rows `start` to `stop - 1` of the slab, as far as they are in this run."""
        a, z = max(start - self.first, 0), min(stop - self.first, self.kv.shape[0])
        if a >= z:
            return None
        scale = None if self.scale is None else self.scale[a:z]
        seal = None if self.seal is None else self.seal.part(a, z)
        return Run(self.first + a, self.kv[a:z], scale, seal)


class Slab:
    """A run of units. Only the store that opened it writes to it, behind what others may see."""

    def __init__(
        self, capacity: int, owner: object, staging: Staging, new_index: Callable[[int], UnitIndex]
    ) -> None:
        """`owner`: the store that writes to it; `new_index`: an index of so many units."""
        self.number = next(_slab_numbers)
        self.capacity = capacity
        self.used = 0
        self.owner: ref[object] | None = ref(owner)
        self.staging = staging
        self.runs: list[Run] = []
        self.in_files: list[Tensor] = []  # the index's first rows, until it is used
        self._index: UnitIndex | None = None
        self._new_index = partial(new_index, capacity)

    @property
    def index(self) -> UnitIndex:
        """Of `capacity` units."""
        if self._index is None:
            self._index = self._new_index()
            first = 0
            for rows in self.in_files:
                self._index.write_rows(first, rows)
                first += rows.shape[0]
            self.in_files = []
        return self._index

    @property
    def index_bytes(self) -> int:
        """Bytes of the index on the device, of the rows in use."""
        return 0 if self._index is None else self._index.nbytes(self.used)

    def append(
        self,
        kv: Tensor,
        scale: Tensor | None,
        index: Tensor,
        moments: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Write rows behind those in use: kv [n, B, 2, Hkv, block_size, D], index [n, B, R, D],
        moments of keys [B, Hkv, n, parts, D]."""
        run = self._open_run(kv)
        rows = slice(self.used - run.first, self.used - run.first + kv.shape[0])
        self.staging.download(kv, run.kv[rows], self)
        if run.scale is not None and scale is not None:
            self.staging.download(scale, run.scale[rows], self)
        self.index.write(self.used, index, moments)
        self.used += kv.shape[0]

    def _open_run(self, kv: Tensor) -> Run:
        if self.runs and self.runs[-1].seal is None:
            return self.runs[-1]
        # Untouched pages of these buffers cost address space, no memory. All keys, then all values:
        # a lookup by keys reads those alone.
        n, (b, _, *page) = self.capacity - self.used, kv.shape[1:]
        whole = self.staging.arena((2, n, b, *page), kv.dtype)
        scaled = kv.dtype not in PLAIN.values()
        scale = torch.empty(2, n, b, *page[:-1], 1) if scaled else None
        self.runs.append(Run(self.used, by_unit(whole), None if scale is None else by_unit(scale)))
        return self.runs[-1]

    def locate(self, row: int) -> tuple[Run, int]:
        """The run that holds a row, and the row's place in it; its keys and values are there."""
        self.staging.settle(self)
        run = next(run for run in reversed(self.runs) if row >= run.first)
        return run, row - run.first


@dataclass
class View:
    """What one store sees of a slab: units `first` to `first + count - 1` are its first rows."""

    slab: Slab
    first: int
    count: int

    def runs(self, start: int, stop: int) -> list[Run]:
        """Where units `start` to `stop - 1` lie, as far as they are in this view."""
        self.slab.staging.settle(self.slab)
        a, z = max(start - self.first, 0), min(stop - self.first, self.count)
        parts = [run.part(a, z) for run in self.slab.runs]
        return [part for part in parts if part is not None]
