"""The variants of each kernel that are compiled ahead of time: what launches may ask for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch

from infllm.kernels.triton.attention_variants import (
    JOINT,
    attention_variants,
    joint_variants,
    mass_variants,
)
from infllm.kernels.triton.descent import REGISTERS, descend_kernel
from infllm.kernels.triton.merge_state import merge_state_kernel
from infllm.kernels.triton.quantize import dequantize_kernel, quantize_kernel
from infllm.kernels.triton.query_sums import (
    DIMS,
    KEYS,
    ROWS,
    query_sums_kernel,
    window_scores_kernel,
)
from infllm.kernels.triton.rotate import rotate_kernel
from infllm.kernels.triton.take_step import take_step_kernel
from infllm.kernels.triton.tiles import (
    descent_tile,
    padded,
    score_tile,
    unit_tile,
)
from infllm.kernels.triton.turn_keys import ROWS as TURNED_ROWS
from infllm.kernels.triton.turn_keys import turn_keys_kernel
from infllm.kernels.triton.unit_mass import unit_lse_kernel
from infllm.kernels.triton.unit_topk import (
    BINS,
    TOP_TILES,
    WARPS,
    slab_scores_kernel,
    top_units_kernel,
    unit_scores_kernel,
)
from infllm.kernels.triton.variant import (
    EVERY,
    EXACT,
    FP8,
    INT8,
    INT8_EXACT,
    QUICK,
    SCALARS,
    STEP,
    TYPES,
    UNITS,
    WINDOW,
    Keys,
    Variant,
    constants_of,
    every_card,
    known_to,
    pointers_of,
)
from infllm.kernels.unit_topk import SLAB_TILE


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
            warps, stages, quick=quick and not per_head, light=True,
        )  # fmt: skip
        yield Variant(
            f"slab scores {t} d{dim}{' per head' if per_head else ''}", slab_scores_kernel,
            {"query": real, "index": real, "tiles": "*i64", "limit": "*i64", "out": "*fp32"},
            {
                "PER_HEAD": per_head, "DIM": dim, "BLOCK_DIM": padded(dim),
                "BLOCK_E": blocks, "BLOCK_N": units, "SPLIT": SLAB_TILE // units,
            },
            warps, stages, quick=quick and not per_head, light=True,
        )  # fmt: skip
    for keys in (UNITS, INT8, FP8, EXACT, INT8_EXACT):
        for n_rows in (4, 2048):
            m, n, warps, stages = unit_tile(n_rows, padded(dim), dtype)
            constants = {
                **constants_of(keys, dim, 4), "BLOCK": keys.page, "BLOCK_M": m, "BLOCK_N": n,
            }  # fmt: skip
            yield Variant(
                f"unit lse {keys.name} {t} d{dim}{' few rows' if m == 16 else ''}", unit_lse_kernel,
                {**SCALARS, **pointers_of(keys, dtype), "out": "*fp32"},
                known_to(unit_lse_kernel, constants), warps, stages, cards=every_card(keys),
                quick=quick and keys is UNITS and n_rows == 4, light=True,
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
                4, 3, quick=quick and ring, light=True,
            )  # fmt: skip
    kept = {f"rows_{x}": real for x in ("k", "v", "near", "far")}
    yield Variant(
        f"take step {t} d{dim}", take_step_kernel,
        {
            "q": real, "k": real, "v": real, "at": "*i64", "cos": "*fp32", "sin": "*fp32", **kept,
            "sums": "*fp32", "q_near": real, "q_far": real,
        },
        {"ROTARY": dim, "INTERLEAVED": False, "DIM": dim, "BLOCK_DIM": block, "rows_far": None},
        1, 3, quick=quick, light=True,
    )  # fmt: skip
    yield Variant(
        f"turn keys {t} d{dim}", turn_keys_kernel,
        {
            **dict.fromkeys(("k", "v", "out_k", "out_v"), real), "table": "*i64", "first": "*i64",
            "freq": "*fp64", "cos": "*fp32", "sin": "*fp32",
        },
        {
            "ROTARY": dim, "INTERLEAVED": False, "DIM": dim, "BLOCK_DIM": block, "V_DIM": dim,
            "BLOCK_V": block, "ROWS": TURNED_ROWS,
        },
        4, 3, quick=quick, light=True,
    )  # fmt: skip
    yield Variant(
        f"query sums {t} d{dim}", query_sums_kernel,
        {"q": real, "before": "*fp32", "out": "*fp32"}, {"DIM": dim, "ROWS": ROWS, "DIMS": DIMS},
        8, 3, quick=quick, light=True,
    )  # fmt: skip
    yield Variant(
        f"window scores {t} d{dim}", window_scores_kernel,
        {"sums": "*fp32", "k": real, "out": "*fp32"},
        {"KV_GROUP": 4, "DIM": dim, "BLOCK_DIM": block, "KEYS": KEYS}, 4, 3, quick=quick,
        light=True,
    )  # fmt: skip
    for stored, largest in (("i8", 127.0), ("fp8e4nv", 448.0)):
        cards = every_card(Keys("", stored=stored))
        pointers = {"x": real, "codes": f"*{stored}", "scales": "*fp32", "out": real}
        whole = {"LARGEST": largest, "WHOLE": stored == "i8"}
        for kernel, constants in (
            (quantize_kernel, {**size, **whole}), (dequantize_kernel, size),
        ):  # fmt: skip
            name = kernel.__name__.removesuffix("_kernel")
            yield Variant(
                f"{name} {stored} {t} d{dim}", kernel, pointers, constants, 4, 3,
                cards=cards, quick=quick, light=True,
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
                    quick=quick and stored is not None and (size == 8) == (rotary > 0),
                    registers=REGISTERS,
                    light=True,
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
            {**pointers, "joint": "*fp32"}, constants, 4, 3, quick=quick and sink, light=True,
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
            found += joint_variants(what, dim, half, quick=dim == 128 and what in ("block", "step"))
        for keys in (WINDOW, STEP, UNITS, EXACT):
            found += mass_variants(keys, dim, half, quick=dim == 128 and keys is WINDOW)
        found += unit_variants(dim, half, quick=dim == 128)
        found += vector_variants(dim, half, quick=dim == 128)
        found += merge_variants(dim, quick=dim == 128)
        found += descent_variants(dim, half, quick=dim == 128)
    for block in TOP_TILES:
        for told in (False, True):
            missing = dict.fromkeys(() if told else ("places", "found"))
            found.append(
                Variant(
                    f"top units in tiles of {block}{' and their places' if told else ''}",
                    top_units_kernel,
                    {
                        "scores": "*fp32",
                        **dict.fromkeys(("out", "places", "found"), "*i64"),
                    },
                    {"BLOCK": block, "BINS": BINS, **missing},
                    WARPS,
                    3,
                    quick=block == 4096 and told,
                    light=True,
                )
            )
    for dim in (64, 128, 256):
        for keys in (WINDOW, EXACT):
            for rows in (2048, 4):
                found += attention_variants(keys, dim, full, rows)
        found += mass_variants(WINDOW, dim, full)
        found += unit_variants(dim, full)
        found += descent_variants(dim, full)
    found += attention_variants(WINDOW, 128, torch.float16, 2048)
    return tuple(found)
