"""Sizes of the tiles that the attention kernels work on.

The launcher chooses the rows by what there is to do; keys per tile, warps and pipeline stages are
tuned among a few that fit the card's shared memory. float32 has one choice, so that its results
are the same, bit for bit, in every process.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import torch

import triton
from triton import knobs

# Shared memory that one program may use, KiB by compute capability (CUDA C++ programming guide,
# table of technical specifications).
SHARED_KIB = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}

CLASSES = (227, 163, 99)

Tile = tuple[int, int, int]  # keys, warps, stages

# (rows, padded head_dim) -> tiles for cards with at least 227, 163 and 99 KiB.
HALF: dict[tuple[int, int], dict[int, list[Tile]]] = {
    (128, 64): {
        227: [(64, 4, 3), (128, 8, 3), (64, 8, 3)], 163: [(64, 4, 3), (64, 8, 3)],
        99: [(64, 4, 3), (64, 8, 3)],
    },
    (128, 128): {
        227: [(64, 8, 3), (128, 8, 2), (64, 8, 2)], 163: [(64, 8, 3), (64, 8, 2)],
        99: [(64, 8, 2), (32, 8, 3)],
    },
    (64, 256): {227: [(64, 8, 2), (32, 8, 3)], 163: [(64, 8, 2), (32, 8, 3)], 99: [(32, 8, 2)]},
    (16, 64): {
        227: [(64, 4, 3), (128, 4, 3)], 163: [(64, 4, 3), (128, 4, 3)], 99: [(64, 4, 3)],
    },
    (16, 128): {
        227: [(64, 4, 3), (128, 4, 2)], 163: [(64, 4, 3), (128, 4, 2)],
        99: [(64, 4, 2), (32, 4, 3)],
    },
    (16, 256): {227: [(64, 4, 2), (32, 4, 3)], 163: [(64, 4, 2), (32, 4, 3)], 99: [(32, 4, 2)]},
}  # fmt: skip
# The same where keys change on their way, rotated or dequantised: in registers, that is.
CHANGED: dict[tuple[int, int], dict[int, list[Tile]]] = {
    (128, 64): {227: [(32, 8, 2)], 163: [(32, 8, 2)], 99: [(32, 8, 2)]},
    (128, 128): {227: [(32, 8, 2), (16, 8, 2)], 163: [(32, 8, 2)], 99: [(32, 8, 2)]},
    (32, 256): {227: [(16, 8, 1)], 163: [(16, 8, 1)], 99: [(16, 8, 1)]},
    (16, 64): {227: [(32, 4, 2)], 163: [(32, 4, 2)], 99: [(32, 4, 2)]},
    (16, 128): {227: [(32, 4, 3)], 163: [(32, 4, 2)], 99: [(32, 4, 2)]},
    (16, 256): {227: [(16, 4, 1)], 163: [(16, 4, 1)], 99: [(16, 4, 1)]},
}  # fmt: skip
FULL: dict[tuple[int, int], Tile] = {
    (64, 64): (32, 4, 2), (32, 128): (32, 4, 2), (32, 256): (16, 8, 1),
    (16, 64): (32, 4, 2), (16, 128): (32, 4, 2), (16, 256): (16, 4, 1),
}  # fmt: skip


def padded(dim: int) -> int:
    """Dimensions of a tile that holds vectors of `dim`: a power of two, at least 64."""
    return max(64, triton.next_power_of_2(dim))


def block_m(rows: int, dim: int, dtype: torch.dtype, changed: bool) -> int:
    """Rows of a tile of queries, for `rows` in all and head dimension `dim`.

    `changed`: keys are rotated or dequantised on load, which takes registers.
    """
    if rows <= 16:
        return 16
    if dtype == torch.float32:
        return 64 if padded(dim) == 64 else 32
    if padded(dim) <= 128:
        return 128
    return 32 if changed else 64


def tiles(rows: int, dim: int, dtype: torch.dtype, kib: int, changed: bool) -> list[Tile]:
    """Tiles that fit into `kib` of shared memory, for rows as `block_m` gives them and a padded
    head dimension; `changed` as there."""
    if dim > 256:
        raise ValueError(f"head dimension {dim}: the kernels go to 256")
    if dtype == torch.float32:
        return [FULL[rows, dim]]
    return (CHANGED if changed else HALF)[rows, dim][shared_class(kib)]


def shared_class(kib: int) -> int:
    """The row of the table for cards with this much shared memory."""
    return next(least for least in CLASSES if kib >= least)


def mass_tile(dim: int, dtype: torch.dtype) -> tuple[int, int, int, int]:
    """Rows, keys, warps and stages of the mass kernel, for a padded head dimension."""
    if dtype == torch.float32:
        return (32, 32, 4, 2) if dim <= 128 else (16, 32, 4, 1)
    return (64, 128, 8, 2) if dim <= 128 else (64, 64, 8, 2)


def score_tile(dim: int, dtype: torch.dtype) -> tuple[int, int, int, int]:
    """Execution blocks, units, warps and stages of the kernel that scores an index of `dtype`.

    With fewer stages ptxas 13.4 spills on some cards, though few registers are in use.
    """
    if dtype == torch.float32:
        return (16, 32, 4, 2) if dim <= 128 else (16, 16, 4, 2)
    return (16, 64, 4, 3) if dim <= 128 else (16, 32, 4, 4)


def unit_tile(rows: int, dim: int, dtype: torch.dtype) -> tuple[int, int, int, int]:
    """Rows, keys, warps and stages of the kernel over whole units, for `rows` in all."""
    few = 16 if rows <= 16 else 64
    if dtype == torch.float32:
        return min(few, 32), 32 if dim <= 128 else 16, 4, 1
    return (few, 64, 4, 2) if dim <= 128 else (few, 32, 4, 1)


def configs() -> list[triton.Config]:
    """All tiles of both tables, for the tuner."""
    tables = [by_class for table in (HALF, CHANGED) for by_class in table.values()]
    every = {tile for by_class in tables for some in by_class.values() for tile in some}
    every |= {*FULL.values()}
    found = [
        triton.Config({"BLOCK_N": n}, num_warps=warps, num_stages=stages)
        for n, warps, stages in sorted(every)
    ]
    # Triton before 3.8 would time them in the interpreter too, and look for a GPU to do so.
    return found[:1] if os.environ.get("TRITON_INTERPRET") == "1" else found


def fitting(every: list[triton.Config], named: dict[str, Any], **more: Any) -> list[triton.Config]:
    """Of all configurations those for the call's rows, head dimension, dtype and device."""
    call = {**named, **more}
    q = call["q"]
    dim = max(call["BLOCK_D"], call["BLOCK_DV"])
    changed = call["SCALED"] or call["ROTARY"] > 0
    some = tiles(call["BLOCK_M"], dim, q.dtype, shared_kib(q.device), changed)
    if knobs.runtime.interpret:
        some = some[:1]
    return [c for c in every if (c.kwargs["BLOCK_N"], c.num_warps, c.num_stages) in some]


@lru_cache
def shared_kib(device: torch.device) -> int:
    """KiB of shared memory that one program may use; unknown cards count as the smallest."""
    if device.type != "cuda":
        return min(SHARED_KIB.values())
    major, minor = torch.cuda.get_device_capability(device)
    return SHARED_KIB.get(10 * major + minor, min(SHARED_KIB.values()))


def descent_tile(rows: int, dim: int, dtype: torch.dtype) -> tuple[int, int, int, int]:
    """Query rows, intervals, warps and stages of the descent kernel; `dim` padded.

    Keys are gathered one by one: what hides their latency are many programs, not stages.
    """
    if dtype == torch.float32:
        return 16, 32 if dim <= 128 else 16, 8, 1
    return 16 if rows <= 16 else 32, 32, 8, 1
