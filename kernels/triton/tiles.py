"""Sizes of the tiles that the attention kernels work on.

The launcher chooses the rows by what there is to do; of the tiles that fit the card's shared memory
it takes the first. The others are there to be timed.
"""

from __future__ import annotations

from functools import lru_cache

import torch

import triton

# Shared memory that one program may use, KiB by compute capability (CUDA C++ programming guide,
# table of technical specifications).
SHARED_KIB = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}

CLASSES = (227, 163, 99)

Tile = tuple[int, int, int]  # keys, warps, stages

# (rows, padded head_dim) -> tiles for cards with at least 227, 163 and 99 KiB.
HALF: dict[tuple[int, int], dict[int, list[Tile]]] = {
    (128, 64): {
        227: [(128, 8, 3), (64, 8, 3)], 163: [(64, 8, 3)], 99: [(64, 8, 3)],
    },
    (128, 128): {
        227: [(128, 8, 2), (64, 8, 3), (64, 8, 2)], 163: [(64, 8, 3), (64, 8, 2)],
        99: [(64, 8, 2), (32, 8, 3)],
    },
    (64, 256): {227: [(64, 8, 2), (32, 8, 3)], 163: [(64, 8, 2), (32, 8, 3)], 99: [(32, 8, 2)]},
    (16, 64): {
        227: [(64, 4, 3), (128, 4, 3)], 163: [(64, 4, 3), (128, 4, 3)], 99: [(64, 4, 3)],
    },
    (16, 128): {
        227: [(128, 4, 2), (64, 4, 3)], 163: [(128, 4, 2), (64, 4, 3)],
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


def tile_of(
    rows: int, dim: int, dtype: torch.dtype, device: torch.device, changed: bool = False
) -> Tile:
    """The tile that launches take: the first that the table has for the device.

    Always the same, so that results are the same, bit for bit, in every process, and nothing is
    compiled or timed while a text is read. `benchmarks/gpu_kernels.py` times the others.
    """
    return tiles(rows, dim, dtype, shared_kib(device), changed)[0]


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
