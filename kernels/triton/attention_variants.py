"""The variants of the attention kernels that are compiled ahead of time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from infllm.kernels.triton.joint_attention import EDGE, joint_attention_kernel
from infllm.kernels.triton.part_mass import part_mass_kernel
from infllm.kernels.triton.partial_attention import SPLIT, partial_attention_kernel
from infllm.kernels.triton.tiles import CLASSES, block_m, mass_tile, padded, tiles
from infllm.kernels.triton.variant import (
    SCALARS,
    TYPES,
    UNITS,
    Keys,
    Variant,
    cards_of,
    constants_of,
    every_card,
    known_to,
    pointers_of,
)  # fmt: skip


def attention_variants(
    keys: Keys, dim: int, dtype: torch.dtype, rows: int, group: int = 4, quick: bool = False
) -> Iterator[Variant]:
    """Partial attention at every tile of the table; quick: the first for each card."""
    changed = keys.stored is not None or keys.rotary
    m = block_m(rows, dim, dtype, changed)
    for kib in CLASSES:
        for i, (n, warps, stages) in enumerate(tiles(m, padded(dim), dtype, kib, changed)):
            constants = {
                **constants_of(keys, dim, group), "DV": dim, "BLOCK_DV": padded(dim),
                "BLOCK_M": m, "BLOCK_N": n,
            }  # fmt: skip
            yield Variant(
                f"attention {keys.name} {TYPES[dtype]} d{dim}{' few rows' if m == 16 else ''}",
                partial_attention_kernel, {**SCALARS, **pointers_of(keys, dtype)}, constants,
                warps, stages, cards_of(kib, keys), quick and i == 0, light=m == 16,
            )  # fmt: skip


# What a launch has of near keys, units, initial and waiting keys, a state to go on from.
JOINT = {
    "block": ("near", "unit", "init", "waiting"),
    "near": ("near",),
    "far": ("unit", "init", "waiting", "before"),
    "step": ("near", "unit", "init", "waiting", "shift"),
}  # fmt: skip


def joint_variants(
    what: str, dim: int, dtype: torch.dtype, page: int = 128, group: int = 4, quick: bool = False
) -> Iterator[Variant]:
    """Attention in one launch, at every tile of the table; quick: the first for each card."""
    real, has = f"*{TYPES[dtype]}", JOINT[what]
    m = block_m(4 if what == "step" else 2048, dim, dtype, False)
    constants: dict[str, Any] = {
        "GROUP": group, "PAGE": page if "unit" in has else 0, "SOFTCAP": False, "SHARE": SPLIT,
        "D": dim, "DV": dim, "BLOCK_D": padded(dim), "BLOCK_DV": padded(dim), "BLOCK_M": m,
        "sink": None,
    }  # fmt: skip
    missing = [f"{part}_{x}" for part in ("near", "unit", "init", "waiting") for x in "kv"
               if part not in has]  # fmt: skip
    if "near" not in has:
        missing.append("q_near")
    if has == ("near",):
        missing.append("q_far")
    for name, part in (("table", "unit"), ("shift", "shift"), ("before_o", "before"),
                       ("before_lse", "before")):  # fmt: skip
        if part not in has:
            missing.append(name)
    constants |= dict.fromkeys(missing)
    pointers = {
        **{f"{part}_{x}": real for part in ("near", "unit", "init", "waiting") for x in "kv"},
        "q_near": real, "q_far": real, "table": "*i64", "shift": "*i64", "before_o": "*fp32",
        "before_lse": "*fp32", "lse": "*fp32", "o": "*fp32" if what == "step" else real,
    }  # fmt: skip
    for kib in CLASSES:
        for i, (n, warps, stages) in enumerate(tiles(m, padded(dim), dtype, kib, False)):
            constants = {**constants, "BLOCK_N": n, "EDGE_N": min(n, EDGE)}
            yield Variant(
                f"joint {what} {TYPES[dtype]} d{dim}", joint_attention_kernel,
                {**SCALARS, **pointers}, constants, warps, stages,
                cards_of(kib, UNITS), quick and i == 0, light=what == "step",
            )  # fmt: skip


def mass_variants(
    keys: Keys, dim: int, dtype: torch.dtype, group: int = 4, quick: bool = False
) -> Iterator[Variant]:
    """The second pass."""
    m, n, warps, stages = mass_tile(padded(dim), dtype)
    constants = {**constants_of(keys, dim, group), "BLOCK_M": m, "BLOCK_N": n}
    constants = known_to(part_mass_kernel, constants)
    yield Variant(
        f"mass {keys.name} {TYPES[dtype]} d{dim}",
        part_mass_kernel, {**SCALARS, **pointers_of(keys, dtype)}, constants, warps, stages,
        every_card(keys), quick,
    )  # fmt: skip
