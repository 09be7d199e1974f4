"""Tensor files of a memory: safetensors, mapped when read. Free of torch, but for tensors."""

from __future__ import annotations

import json
import math
import mmap
import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from xxhash import xxh3_64

from infllm.engine.files.manifest import damaged

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = {  # name in a file: torch's, and bytes of an item
    "F32": ("float32", 4), "BF16": ("bfloat16", 2), "F16": ("float16", 2), "I8": ("int8", 1),
    "F8_E4M3": ("float8_e4m3fn", 1), "I64": ("int64", 8), "I32": ("int32", 4),
}  # fmt: skip
MASK = 2**64 - 1
SUMMED = 2**18  # bytes of keys under one checksum: a call for less costs more than the hashing
HELD = 2**24  # bytes of mapped units that a check of many keeps in memory


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in its file."""

    dtype: str  # a name of `DTYPES`
    shape: list[int]
    start: int  # byte of the file
    stop: int


class TensorFile:
    """A mapped tensor file. Reading a tensor reads only the pages that are used.

    Raises MemoryFileError (`damaged`) for what is no such file, FileNotFoundError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        descriptor = os.open(path, os.O_RDONLY)
        try:
            self._map = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        except ValueError as error:  # an empty file cannot be mapped
            raise damaged(path, "it is empty") from error
        finally:
            os.close(descriptor)
        self._bytes = np.frombuffer(self._map, dtype=np.uint8)
        try:
            start = 8 + int.from_bytes(self._map[:8], "little")
            header = json.loads(self._map[8 : min(start, len(self._map))])
            self.metadata = {k: json.loads(v) for k, v in header.pop("__metadata__").items()}
            self._places = {name: self._place(start, at) for name, at in header.items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise damaged(path, "it is no tensor file") from error

    def _place(self, start: int, at: dict[str, Any]) -> Place:
        (_, itemsize), shape = DTYPES[at["dtype"]], at["shape"]
        first, last = at["data_offsets"]
        if first + math.prod(shape) * itemsize != last or start + last > len(self._map):
            raise ValueError("a tensor lies outside of the file")
        return Place(at["dtype"], shape, start + first, start + last)

    def release(self) -> None:
        """Give the memory of what was read back to the system; it is read again when used.

        The pages stay in the file cache as long as nobody else needs that memory.
        """
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    @property
    def names(self) -> list[str]:
        """The tensors, in the order of the file."""
        return list(self._places)

    def place(self, name: str) -> Place:
        """Raises MemoryFileError (`damaged`) where there is no such tensor."""
        try:
            return self._places[name]
        except KeyError as error:
            raise damaged(self.path, f"it has no tensor {name}") from error

    def raw(self, name: str) -> np.ndarray:
        """uint8 [bytes] of a tensor; not a copy."""
        place = self.place(name)
        return self._bytes[place.start : place.stop]

    def checksum(self, name: str) -> int:
        """XXH3-64 of a tensor's bytes."""
        return xxh3_64(self.raw(name).data).intdigest()

    def __getitem__(self, name: str) -> Tensor:
        import torch  # here: a memory is checked while torch is imported

        place = self.place(name)
        dtype, itemsize = DTYPES[place.dtype]
        count = (place.stop - place.start) // itemsize
        if count == 0:
            return torch.empty(place.shape, dtype=getattr(torch, dtype))
        with warnings.catch_warnings():
            # The mapping is read-only on purpose: torch would rather have one that can be written.
            warnings.simplefilter("ignore", UserWarning)
            flat = torch.frombuffer(
                self._map, dtype=getattr(torch, dtype), count=count, offset=place.start
            )
        return flat.view(place.shape)


@dataclass
class Seal:
    """Checksums of units in a file: what is damaged is never used, and checked only once.

    One sum is of some neighbouring units, so that all keys are checked as fast as they are read.
    """

    file: TensorFile
    halves: tuple[Half, Half]  # of keys and of values
    rows: int  # that have a sum together
    sums: np.ndarray  # int64 [sums, 2]
    checked: np.ndarray  # bool [sums, 2]
    first: int  # row of the file that is row 0 here
    count: int

    def part(self, start: int, stop: int) -> Seal:
        """The seal of rows `start` to `stop - 1`."""
        return replace(self, first=self.first + start, count=stop - start)

    def check(self, row: int) -> None:
        """Raises MemoryFileError where the row's keys or values are not as written."""
        self._check((self.first + row) // self.rows, 0)
        self._check((self.first + row) // self.rows, 1)

    def check_keys(self) -> None:
        """Raises MemoryFileError where some row's keys are not as written."""
        for number in self._numbers():
            self._check(number, 0)

    def check_all(self) -> None:
        """Raises MemoryFileError where anything is not as written.

        What it reads does not stay in memory: see `TensorFile.release`.
        """
        held = 0
        for half in (0, 1):
            for number in self._numbers():
                held += self._check(number, half)
                if held >= HELD:
                    self.file.release()
                    held = 0
        if held:
            self.file.release()

    def _numbers(self) -> range:
        """The sums that cover the rows."""
        last = self.first + self.count - 1
        return range(self.first // self.rows, last // self.rows + 1 if self.count else 0)

    def _check(self, number: int, half: int) -> int:
        """Bytes that were read to compare a sum; none where that was done before."""
        if self.checked[number, half]:
            return 0
        total, size = self.halves[half].sum(self.rows, number)
        if total != int(self.sums[number, half]) & MASK:
            raise damaged(self.file.path, "the checksum of a memory unit is of something else")
        self.checked[number, half] = True
        return size


def seal(file: TensorFile, layer: int, rows: int, sums: np.ndarray) -> Seal:
    """The seal of a layer's units in a file, with sums int64 [sums, 2] of `rows` units each."""
    n = file.place(f"{layer}.kv").shape[0] // 2
    if rows < 1 or len(sums) != -(-n // rows):
        raise damaged(file.path, "its checksums are of another number of units")
    codes = file.raw(f"{layer}.kv").reshape(2, n, -1)  # all keys, then all values
    scales: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    if f"{layer}.scale" in file.names:
        keys, values = file.raw(f"{layer}.scale").reshape(2, n, -1)
        scales = [keys], [values]
    halves = Half([codes[0]], scales[0]), Half([codes[1]], scales[1])
    return Seal(file, halves, rows, sums, np.zeros(sums.shape, dtype=bool), 0, n)


def rows_of_a_sum(key_bytes: int) -> int:
    """How many units share a checksum, where the keys of one take `key_bytes`."""
    return max(1, SUMMED // key_bytes)


@dataclass
class Half:
    """The bytes of the keys, or of the values, of neighbouring units: uint8 [rows, bytes] each."""

    codes: list[np.ndarray]
    scales: list[np.ndarray]

    def sum(self, rows: int, number: int) -> tuple[int, int]:
        """XXH3-64 of rows `number * rows` and so on, `rows` of them or what there is; its bytes."""
        whole, size = xxh3_64(), 0
        for parts in (self.codes, self.scales):
            first = number * rows
            for part in parts:
                some = part[max(first, 0) : max(first + rows, 0)]
                whole.update(some.data)
                size += some.nbytes
                first -= len(part)
        return whole.intdigest(), size
