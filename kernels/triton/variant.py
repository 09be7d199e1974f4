"""What is compiled ahead of time: a kernel with its constants, and how keys come to one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from infllm.kernels.triton.tiles import CLASSES, SHARED_KIB, padded, shared_class

TYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}

APART = (80, 86, 90, 100, 120)  # 89 compiles to what 86 does
OLD_AND_NEW = (80, 120)


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
    light: bool = False  # takes few registers, on every card as many

    @property
    def tile(self) -> str:
        """Rows, keys, warps and stages, where the kernel has them."""
        sizes = [self.constants.get(name) for name in ("BLOCK_M", "BLOCK_N")]
        return "x".join(str(x) for x in (*sizes, self.warps, self.stages) if x is not None)

    def runs_on(self, sm: int) -> bool:
        """Whether a launch on this card would ask for it."""
        return sm in self.cards

    def quick_on(self, sm: int) -> bool:
        """Whether the tests compile it for this card; all of them are for the whole report."""
        return self.quick and self.runs_on(sm) and sm in (OLD_AND_NEW if self.light else APART)


# Strides of tensors whose rows are whole vectors: multiples of 16 for every head dimension here.
STRIDE_OF = (
    "q", "k", "v", "x", "out", "o", "lse", "state", "query", "index", "key", "near", "init", "unit",
    "waiting", "rows", "sums",
)  # fmt: skip
STRIDES = frozenset(
    f"{tensor}_{stride}"
    for tensor in STRIDE_OF
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


def constants_of(keys: Keys, dim: int, group: int) -> dict[str, Any]:
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


def pointers_of(keys: Keys, dtype: torch.dtype) -> dict[str, str]:
    real, stored = f"*{TYPES[dtype]}", f"*{keys.stored or TYPES[dtype]}"
    float32 = ("o", "lse", "mass", "k_scale", "v_scale")
    tables = ("page_cos", "page_sin", "place_cos", "place_sin")
    return {"q": real, "k": stored, "v": stored, "table": "*i64", "shift": "*i64", **dict.fromkeys(
        (*float32, *tables), "*fp32"
    )}  # fmt: skip


def cards_of(kib: int, keys: Keys) -> frozenset[int]:
    """Cards with this shared memory class that have the stored type."""
    return frozenset(
        sm for sm, have in SHARED_KIB.items()
        if shared_class(have) == kib and (keys.stored != "fp8e4nv" or sm >= 89)
    )  # fmt: skip


def every_card(keys: Keys) -> frozenset[int]:
    return frozenset().union(*(cards_of(kib, keys) for kib in CLASSES))


def known_to(kernel: Any, constants: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in constants.items() if name in kernel.arg_names}
