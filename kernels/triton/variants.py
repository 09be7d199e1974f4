"""The variants of each kernel that are compiled ahead of time: what launches may ask for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch

from infllm.kernels.triton.descent import REGISTERS, descend_kernel
from infllm.kernels.triton.joint_attention import EDGE, joint_attention_kernel
from infllm.kernels.triton.merge_state import merge_state_kernel
from infllm.kernels.triton.part_mass import part_mass_kernel
from infllm.kernels.triton.partial_attention import SPLIT, partial_attention_kernel
from infllm.kernels.triton.quantize import dequantize_kernel, quantize_kernel
from infllm.kernels.triton.rotate import rotate_kernel
from infllm.kernels.triton.tiles import (
    CLASSES,
    SHARED_KIB,
    block_m,
    descent_tile,
    mass_tile,
    padded,
    score_tile,
    shared_class,
    tiles,
    unit_tile,
)
from infllm.kernels.triton.unit_mass import unit_lse_kernel
from infllm.kernels.triton.unit_topk import BINS, WARPS, top_units_kernel, unit_scores_kernel

TYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


@dataclass(frozen=True, eq=False)
class Variant:
    """One kernel with its constants: what a launch compiles."""

    name: str
    kernel: Any
    types: dict[str, str]  # of arguments: those that are neither here nor constants are i32
    constants: dict[str, Any]
    warps: int
    stages: int
    cards: frozenset[int] = field(default_factory=lambda: frozenset(SHARED_KIB))
    quick: bool = False  # among those that the tests compile
    registers: int | None = None  # of a thread, at most, where a launch says so

    @property
    def tile(self) -> str:
        """Rows, keys, warps and stages, where the kernel has them."""
        sizes = [self.constants.get(name) for name in ("BLOCK_M", "BLOCK_N")]
        return "x".join(str(x) for x in (*sizes, self.warps, self.stages) if x is not None)

    def runs_on(self, sm: int) -> bool:
        """Whether a launch on this card would ask for it."""
        return sm in self.cards


# Strides of tensors whose rows are whole vectors: multiples of 16 for every head dimension here.
STRIDES = frozenset(
    f"{tensor}_{stride}"
    for tensor in (
        "q",
        "k",
        "v",
        "x",
        "out",
        "o",
        "lse",
        "state",
        "query",
        "index",
        "key",
        "near",
        "init",
        "unit",
        "waiting",
    )
    for stride in ("batch", "head", "row", "page", "unit", "block", "split", "stride", "side")
)
SCALARS = {"scale": "fp32", "softcap": "fp32"}


@dataclass(frozen=True)
class Keys:
    """How a part gives its keys."""

    name: str
    page: int = 0
    banded: bool = False
    bounded: bool = False
    shifted: bool = False
    softcap: bool = False
    stored: str | None = None  # type of codes
    rotary: bool = False
    interleaved: bool = False
    per_head: bool = False


WINDOW = Keys("window", banded=True, bounded=True)
DENSE = Keys("dense")
UNITS = Keys("units", page=128)
SMALL = Keys("pages of 8", page=8)
EXACT = Keys("units rotated", page=128, rotary=True)
INT8 = Keys("units int8", page=128, stored="i8")
FP8 = Keys("units fp8", page=128, stored="fp8e4nv")
INT8_EXACT = Keys("units int8 rotated", page=128, stored="i8", rotary=True)
FAR = Keys("far", banded=True)
STEP = Keys("window shifted", banded=True, bounded=True, shifted=True)
CAPPED = Keys("window softcap", banded=True, bounded=True, softcap=True)
TURNED = Keys("dense rotated interleaved", rotary=True, interleaved=True)
HEADS = Keys("units per head", page=128, per_head=True)
EVERY = (
    WINDOW, DENSE, UNITS, SMALL, EXACT, INT8, FP8, INT8_EXACT, FAR, STEP, CAPPED, TURNED, HEADS,
)  # fmt: skip


QUICK = ((WINDOW, 2048), (UNITS, 4), (STEP, 4), (INT8_EXACT, 2048))


def _constants(keys: Keys, dim: int, group: int) -> dict[str, Any]:
    constants: dict[str, Any] = {
        "GROUP": 1 if keys.per_head else group, "KV_GROUP": group, "PAGE": keys.page,
        "BANDED": keys.banded, "BOUNDED": keys.bounded, "SOFTCAP": keys.softcap,
        "SCALED": keys.stored is not None, "ROTARY": dim if keys.rotary else 0,
        "INTERLEAVED": keys.interleaved, "D": dim, "BLOCK_D": padded(dim),
    }  # fmt: skip
    if keys.page == 0:
        constants["table"] = None
    if not keys.shifted:
        constants["shift"] = None
    if keys.stored is None:
        constants.update(k_scale=None, v_scale=None)
    if not keys.rotary:
        constants.update(page_cos=None, page_sin=None, place_cos=None, place_sin=None)
    return constants


def _pointers(keys: Keys, dtype: torch.dtype) -> dict[str, str]:
    real, stored = f"*{TYPES[dtype]}", f"*{keys.stored or TYPES[dtype]}"
    float32 = ("o", "lse", "mass", "k_scale", "v_scale")
    tables = ("page_cos", "page_sin", "place_cos", "place_sin")
    return {"q": real, "k": stored, "v": stored, "table": "*i64", "shift": "*i64", **dict.fromkeys(
        (*float32, *tables), "*fp32"
    )}  # fmt: skip


def _cards(kib: int, keys: Keys) -> frozenset[int]:
    """Cards with this shared memory class that have the stored type."""
    return frozenset(
        sm for sm, have in SHARED_KIB.items()
        if shared_class(have) == kib and (keys.stored != "fp8e4nv" or sm >= 89)
    )  # fmt: skip


def _every_card(keys: Keys) -> frozenset[int]:
    return frozenset().union(*(_cards(kib, keys) for kib in CLASSES))


def _known(kernel: Any, constants: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in constants.items() if name in kernel.arg_names}


def attention_variants(
    keys: Keys, dim: int, dtype: torch.dtype, rows: int, group: int = 4, quick: bool = False
) -> Iterator[Variant]:
    """Partial attention at every tile of the table; quick: the first for each card."""
    changed = keys.stored is not None or keys.rotary
    m = block_m(rows, dim, dtype, changed)
    for kib in CLASSES:
        for i, (n, warps, stages) in enumerate(tiles(m, padded(dim), dtype, kib, changed)):
            constants = {
                **_constants(keys, dim, group), "DV": dim, "BLOCK_DV": padded(dim),
                "BLOCK_M": m, "BLOCK_N": n,
            }  # fmt: skip
            yield Variant(
                f"attention {keys.name} {TYPES[dtype]} d{dim}{' few rows' if m == 16 else ''}",
                partial_attention_kernel, {**SCALARS, **_pointers(keys, dtype)}, constants,
                warps, stages, _cards(kib, keys), quick and i == 0,
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
                _cards(kib, UNITS), quick and i == 0,
            )  # fmt: skip


def mass_variants(
    keys: Keys, dim: int, dtype: torch.dtype, group: int = 4, quick: bool = False
) -> Iterator[Variant]:
    """The second pass."""
    m, n, warps, stages = mass_tile(padded(dim), dtype)
    constants = {**_constants(keys, dim, group), "BLOCK_M": m, "BLOCK_N": n}
    constants = _known(part_mass_kernel, constants)
    yield Variant(
        f"mass {keys.name} {TYPES[dtype]} d{dim}",
        part_mass_kernel, {**SCALARS, **_pointers(keys, dtype)}, constants, warps, stages,
        _every_card(keys), quick,
    )  # fmt: skip


def unit_variants(dim: int, dtype: torch.dtype, quick: bool = False) -> Iterator[Variant]:
    """Lookup of units: by representatives, by all keys, and the best."""
    t, real = TYPES[dtype], f"*{TYPES[dtype]}"
    blocks, units, warps, stages = score_tile(padded(dim), dtype)
    for per_head in (False, True):
        yield Variant(
            f"unit scores {t} d{dim}{' per head' if per_head else ''}", unit_scores_kernel,
            {"query": "*fp32", "index": real, "out": "*fp32"},
            {
                "PER_HEAD": per_head, "DIM": dim, "BLOCK_DIM": padded(dim),
                "BLOCK_E": blocks, "BLOCK_N": units,
            },
            warps, stages, quick=quick and not per_head,
        )  # fmt: skip
    for keys in (UNITS, INT8, FP8, EXACT, INT8_EXACT):
        for n_rows in (4, 2048):
            m, n, warps, stages = unit_tile(n_rows, padded(dim), dtype)
            constants = {
                **_constants(keys, dim, 4), "BLOCK": keys.page, "BLOCK_M": m, "BLOCK_N": n,
            }  # fmt: skip
            yield Variant(
                f"unit lse {keys.name} {t} d{dim}{' few rows' if m == 16 else ''}", unit_lse_kernel,
                {**SCALARS, **_pointers(keys, dtype), "out": "*fp32"},
                _known(unit_lse_kernel, constants), warps, stages, cards=_every_card(keys),
                quick=quick and keys is UNITS and n_rows == 4,
            )  # fmt: skip


def vector_variants(dim: int, dtype: torch.dtype, quick: bool = False) -> Iterator[Variant]:
    """Rotation, appending to a ring and storage formats, each vector by itself."""
    t, real = TYPES[dtype], f"*{TYPES[dtype]}"
    block = 1 << (dim - 1).bit_length()
    size = {"DIM": dim, "BLOCK_DIM": block, "BLOCK_ROWS": 4096 // block}
    for ring in (False, True):
        for interleaved in (False, True):
            yield Variant(
                f"rotate {t} d{dim}{' interleaved' if interleaved else ''}{' ring' * ring}",
                rotate_kernel,
                {"x": real, "cos": "*fp32", "sin": "*fp32", "out": real, "first": "*i64"},
                {
                    "ROTARY": dim, "INTERLEAVED": interleaved, "RING": ring, **size,
                    **({} if ring else {"first": None}),
                },
                4, 3, quick=quick and ring,
            )  # fmt: skip
    for stored, largest in (("i8", 127.0), ("fp8e4nv", 448.0)):
        cards = _every_card(Keys("", stored=stored))
        pointers = {"x": real, "codes": f"*{stored}", "scales": "*fp32", "out": real}
        whole = {"LARGEST": largest, "WHOLE": stored == "i8"}
        for kernel, constants in (
            (quantize_kernel, {**size, **whole}), (dequantize_kernel, size),
        ):  # fmt: skip
            name = kernel.__name__.removesuffix("_kernel")
            yield Variant(
                f"{name} {stored} {t} d{dim}", kernel, pointers, constants, 4, 3,
                cards=cards, quick=quick,
            )  # fmt: skip


def descent_variants(dim: int, dtype: torch.dtype, quick: bool = False) -> Iterator[Variant]:
    """Descent into intervals: both position rules, keys as they are and int8, means or queries."""
    t, real = TYPES[dtype], f"*{TYPES[dtype]}"
    for stored in (None, "i8"):
        for rotary in (0, dim):
            for rows, size in ((16, 256), (64, 8)):
                block_g, block_n, warps, stages = descent_tile(rows, padded(dim), dtype)
                constants = {
                    "GROUP": 4, "SIZE": size, "ROUNDS": size.bit_length(), "PAGE": 256,
                    "ROTARY": rotary, "INTERLEAVED": False, "SCALED": stored is not None,
                    "DIM": dim, "BLOCK_DIM": padded(dim), "BLOCK_G": block_g, "BLOCK_N": block_n,
                    **({} if stored else {"scale": None}),
                    **({} if rotary else {"cos": None, "sin": None}),
                }  # fmt: skip
                pointers = {
                    "query": real, "keys": f"*{stored or t}",
                    **dict.fromkeys(("scale", "cos", "sin", "score"), "*fp32"),
                    **dict.fromkeys(("table", "left", "last_left", "last_key", "token"), "*i64"),
                }  # fmt: skip
                yield Variant(
                    f"descent {stored or t} {t} d{dim}{' chunk-indexed' * (rotary > 0)} of {size}",
                    descend_kernel, pointers, constants, warps, stages,
                    quick=quick and stored is not None, registers=REGISTERS,
                )  # fmt: skip


def merge_variants(dim: int, quick: bool = False) -> Iterator[Variant]:
    """States joined, with and without a sink."""
    block = 1 << (dim - 1).bit_length()
    for sink in (False, True):
        constants = {
            "SINK": sink, "DIM": dim, "BLOCK_DIM": block, "BLOCK_ROWS": 2048 // block,
            **({} if sink else {"sink": None}),
        }  # fmt: skip
        pointers = {"o": "*fp32", "lse": "*fp32", "sink": "*bf16", "out": "*bf16"}
        yield Variant(
            f"merge d{dim}{' sink' if sink else ''}", merge_state_kernel,
            {**pointers, "joint": "*fp32"}, constants, 4, 3, quick=quick and sink,
        )  # fmt: skip


@lru_cache
def variants() -> tuple[Variant, ...]:
    """All of them; `quick` marks the few that stand for the rest in the tests."""
    half, full = torch.bfloat16, torch.float32
    found: list[Variant] = []
    for dim in (64, 80, 96, 128, 256):
        for keys in EVERY if dim == 128 else (WINDOW, UNITS, FP8, INT8_EXACT):
            for rows in (2048, 4):
                quick = dim == 128 and (keys, rows) in QUICK
                found += attention_variants(keys, dim, half, rows, quick=quick)
        for what in JOINT:
            found += joint_variants(what, dim, half, quick=dim == 128)
        for keys in (WINDOW, STEP, UNITS, EXACT):
            found += mass_variants(keys, dim, half, quick=dim == 128 and keys is WINDOW)
        found += unit_variants(dim, half, quick=dim == 128)
        found += vector_variants(dim, half, quick=dim == 128)
        found += merge_variants(dim, quick=dim == 128)
        found += descent_variants(dim, half, quick=dim == 128)
    for block in (64, 4096):
        found.append(
            Variant(
                f"top units in tiles of {block}",
                top_units_kernel,
                {"scores": "*fp32", "out": "*i64"},
                {"BLOCK": block, "BINS": BINS},
                WARPS,
                3,
                quick=block == 4096,
            )
        )
    for dim in (64, 128, 256):
        for what in ("block", "step"):
            found += joint_variants(what, dim, full)
        for keys in (WINDOW, EXACT):
            for rows in (2048, 4):
                found += attention_variants(keys, dim, full, rows)
        found += mass_variants(WINDOW, dim, full)
        found += unit_variants(dim, full)
        found += descent_variants(dim, full)
    found += attention_variants(WINDOW, 128, torch.float16, 2048)
    return tuple(found)
