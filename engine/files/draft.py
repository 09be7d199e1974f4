"""Tensor files to be written: safetensors of runs of rows, and the checksums that go with them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from xxhash import xxh3_64

from infllm.engine.files.tensor_file import DTYPES, Half

NAMES = {getattr(torch, dtype): name for name, (dtype, _) in DTYPES.items()}
ALIGNED = 64  # bytes: where the tensors of a file begin


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


def unit_checksums(kv: Sequence[Tensor], scale: Sequence[Tensor], rows: int) -> np.ndarray:
    """int64 [sums, 2]: XXH3-64 of the keys and of the values of each `rows` units.

    kv: runs [n, 1, 2, ...] that follow each other, scale likewise, if there is any.
    """
    halves = _halves(kv, scale)

    def both(number: int) -> list[int]:
        return [half.sum(rows, number)[0] for half in halves]

    n = sum(run.shape[0] for run in kv)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(both, range(-(-n // rows))))
    return np.array(found, dtype=np.uint64).reshape(-1, 2).view(np.int64)


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
