"""Tensor files of a memory: safetensors, written from runs of rows, mapped when read."""

from __future__ import annotations

import json
import math
import mmap
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from xxhash import xxh3_64

from infllm.engine.manifest import damaged

NAMES = {
    torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int8: "I8",
    torch.float8_e4m3fn: "F8_E4M3", torch.int64: "I64", torch.int32: "I32",
}  # fmt: skip
DTYPES = {name: dtype for dtype, name in NAMES.items()}
MASK = 2**64 - 1
ALIGNED = 64  # bytes: where the tensors of a file begin
SUMMED = 2**18  # bytes of keys under one checksum: a call for less costs more than the hashing


@dataclass
class Draft:
    """A tensor file to be written: its header and then the bytes of the runs of each tensor."""

    header: bytes
    runs: list[Tensor]

    @classmethod
    def of(cls, tensors: Mapping[str, Sequence[Tensor]], metadata: Mapping[str, Any]) -> Draft:
        """`tensors`: name -> runs on the host that follow each other in the first dimension."""
        # Large items first, so that each tensor is aligned without gaps, which the format forbids.
        names = sorted(tensors, key=lambda name: -tensors[name][0].itemsize)
        header: dict[str, Any] = {"__metadata__": {k: json.dumps(v) for k, v in metadata.items()}}
        offset = 0
        for name in names:
            runs = tensors[name]
            size = sum(run.nbytes for run in runs)
            header[name] = {
                "dtype": NAMES[runs[0].dtype],
                "shape": [sum(run.shape[0] for run in runs), *runs[0].shape[1:]],
                "data_offsets": [offset, offset + size],
            }
            offset += size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-(len(text) + 8) % ALIGNED)
        return cls(
            len(text).to_bytes(8, "little") + text, [run for name in names for run in tensors[name]]
        )

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.header) + sum(run.nbytes for run in self.runs)

    def blocks(self) -> Iterator[Any]:
        """What the file holds, as buffers."""
        yield self.header
        for run in self.runs:
            if run.numel():
                yield byte_rows(run, 1)[0]


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
        try:
            start = 8 + int.from_bytes(self._map[:8], "little")
            header = json.loads(self._map[8 : min(start, len(self._map))])
            self.metadata = {k: json.loads(v) for k, v in header.pop("__metadata__").items()}
            self._tensors = {name: self._tensor(start, at) for name, at in header.items()}
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise damaged(path, "it is no tensor file") from error

    def _tensor(self, start: int, at: dict[str, Any]) -> Tensor:
        dtype, shape = DTYPES[at["dtype"]], at["shape"]
        first, last = at["data_offsets"]
        count = math.prod(shape)
        if first + count * dtype.itemsize != last or start + last > len(self._map):
            raise ValueError("a tensor lies outside of the file")
        if count == 0:
            return torch.empty(shape, dtype=dtype)
        with warnings.catch_warnings():
            # The mapping is read-only on purpose: torch would rather have one that can be written.
            warnings.simplefilter("ignore", UserWarning)
            flat = torch.frombuffer(self._map, dtype=dtype, count=count, offset=start + first)
        return flat.view(shape)

    def release(self) -> None:
        """Give the memory of what was read back to the system; it is read again when used.

        The pages stay in the file cache as long as nobody else needs that memory.
        """
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    @property
    def names(self) -> list[str]:
        """The tensors, in the order of the file."""
        return list(self._tensors)

    def __getitem__(self, name: str) -> Tensor:
        try:
            return self._tensors[name]
        except KeyError as error:
            raise damaged(self.path, f"it has no tensor {name}") from error


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
        """Raises MemoryFileError where anything is not as written."""
        for number in self._numbers():
            self._check(number, 0)
            self._check(number, 1)

    def _numbers(self) -> range:
        """The sums that cover the rows."""
        last = self.first + self.count - 1
        return range(self.first // self.rows, last // self.rows + 1 if self.count else 0)

    def _check(self, number: int, half: int) -> None:
        if self.checked[number, half]:
            return
        if self.halves[half].sum(self.rows, number) != int(self.sums[number, half]) & MASK:
            raise damaged(self.file.path, "the checksum of a memory unit is of something else")
        self.checked[number, half] = True


def seal(file: TensorFile, kv: Tensor, scale: Tensor | None, rows: int, sums: np.ndarray) -> Seal:
    """The seal of mapped kv [n, 1, 2, ...] and scale, with sums int64 [sums, 2] of `rows` units."""
    n = kv.shape[0]
    if rows < 1 or len(sums) != -(-n // rows):
        raise damaged(file.path, "its checksums are of another number of units")
    halves = _halves([kv], [] if scale is None else [scale])
    return Seal(file, halves, rows, sums, np.zeros(sums.shape, dtype=bool), 0, n)


def rows_of_a_sum(key_bytes: int) -> int:
    """How many units share a checksum, where the keys of one take `key_bytes`."""
    return max(1, SUMMED // key_bytes)


def unit_checksums(kv: Sequence[Tensor], scale: Sequence[Tensor], rows: int) -> np.ndarray:
    """int64 [sums, 2]: XXH3-64 of the keys and of the values of each `rows` units.

    kv: runs [n, 1, 2, ...] that follow each other, scale likewise, if there is any.
    """
    halves = _halves(kv, scale)

    def both(number: int) -> list[int]:
        return [half.sum(rows, number) for half in halves]

    n = sum(run.shape[0] for run in kv)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(both, range(-(-n // rows))))
    return np.array(found, dtype=np.uint64).reshape(-1, 2).view(np.int64)


@dataclass
class Half:
    """The bytes of the keys, or of the values, of neighbouring units: uint8 [rows, bytes] each."""

    codes: list[np.ndarray]
    scales: list[np.ndarray]

    def sum(self, rows: int, number: int) -> int:
        """XXH3-64 of rows `number * rows` and so on, `rows` of them or what there is."""
        whole = xxh3_64()
        for parts in (self.codes, self.scales):
            first = number * rows
            for part in parts:
                whole.update(part[max(first, 0) : max(first + rows, 0)].data)
                first -= len(part)
        return whole.intdigest()


def _halves(kv: Sequence[Tensor], scale: Sequence[Tensor]) -> tuple[Half, Half]:
    keys, values = (
        Half(*([byte_rows(x[:, :, i], x.shape[0]) for x in runs] for runs in (kv, scale)))
        for i in (0, 1)
    )
    return keys, values


def checksum(*runs: Tensor) -> int:
    """XXH3-64 of the runs' bytes, one after the other."""
    whole = xxh3_64()
    for run in runs:
        if run.numel():
            whole.update(byte_rows(run, 1)[0])
    return whole.intdigest()


def byte_rows(x: Tensor, *lead: int) -> np.ndarray:
    """The bytes of a contiguous tensor on the host, uint8 [*lead, bytes]; not a copy."""
    return x.reshape(-1).view(torch.uint8).view(*lead, -1).numpy()
