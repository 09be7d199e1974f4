"""Softmax weight that keys receive: the second pass, with the joint logsumexp of all parts.

The published representative scores (InfLLM, arXiv 2402.04617, and its authors' code) are such sums
over queries. A program keeps a tile of keys and goes through the queries of its KV group, so that
keys are loaded once and the sums need no atomics: they are the same in every run.
"""

from __future__ import annotations

import torch
from torch import Tensor

import triton
import triton.language as tl
from infllm.kernels.partial_attention import Part, fold_mass
from infllm.kernels.triton.arguments import arguments_of
from infllm.kernels.triton.load_keys import key_places, load_keys
from infllm.kernels.triton.tiles import mass_tile, padded


@triton.jit(do_not_specialize=["n_queries", "n_keys", "offset", "low", "high"])
def part_mass_kernel(
    q, k, lse, mass, table, k_scale, page_cos, page_sin, place_cos, place_sin,
    n_heads, n_queries, n_keys, shift, offset, low, high, scale, softcap,
    q_batch, q_head, q_row, k_page, k_head, k_row, ks_page, ks_head, ks_row,
    table_batch, table_group,
    GROUP: tl.constexpr, KV_GROUP: tl.constexpr, PAGE: tl.constexpr,
    BANDED: tl.constexpr, BOUNDED: tl.constexpr, SOFTCAP: tl.constexpr, SCALED: tl.constexpr,
    ROTARY: tl.constexpr, INTERLEAVED: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Program (i, b * n_heads / GROUP + p): keys from i * BLOCK_N on, for query heads p * GROUP to
    p * GROUP + GROUP - 1. Writes mass float32 [B, H, S]."""
    programs = n_heads // GROUP
    b = (tl.program_id(1) // programs).to(tl.int64)
    p = tl.program_id(1) % programs
    kv = (p * GROUP // KV_GROUP).to(tl.int64)
    k += kv * k_head
    if SCALED:
        k_scale += kv * ks_head
    if PAGE == 0:
        k += b * k_page
        if SCALED:
            k_scale += b * ks_page
    else:
        place_in_table = b * table_batch + p * table_group
        table += place_in_table
        if ROTARY > 0:
            page_cos += place_in_table * (ROTARY // 2)
            page_sin += place_in_table * (ROTARY // 2)

    start = tl.program_id(0) * BLOCK_N
    key = start + tl.arange(0, BLOCK_N)
    seen = key < n_keys
    page, entry, place = key_places(table, start, n_keys, PAGE, BLOCK_N)
    keys = load_keys(
        k, page, entry, place, seen, k_scale, k_page, k_row, ks_page, ks_row,
        page_cos, page_sin, place_cos, place_sin,
        D, BLOCK_D, True, SCALED, ROTARY, INTERLEAVED,
    )  # fmt: skip
    keys = tl.trans(keys.to(q.dtype.element_ty))

    if shift is not None:
        offset += tl.load(shift).to(tl.int32)
    first, last = 0, n_queries  # queries that see some key of the tile
    if BANDED:
        first = tl.maximum(0, start + low - offset) // BLOCK_M * BLOCK_M
        if BOUNDED:
            last = tl.minimum(n_queries, start + BLOCK_N - 1 + high - offset)
    d = tl.arange(0, BLOCK_D)
    for g in range(GROUP):
        head = p * GROUP + g
        place_of_head = (b * n_heads + head).to(tl.int64)
        total = tl.zeros([BLOCK_N], tl.float32)
        for t_start in tl.range(first, last, BLOCK_M):
            t = t_start + tl.arange(0, BLOCK_M)
            real = t < n_queries
            row = b * q_batch + head.to(tl.int64) * q_head + t.to(tl.int64) * q_row
            shown = real[:, None] if BLOCK_D == D else real[:, None] & (d < D)[None, :]
            queries = tl.load(q + row[:, None] + d[None, :], mask=shown, other=0.0)
            norm = tl.load(lse + place_of_head * n_queries + t, mask=real, other=0.0)
            x = tl.dot(queries, keys, input_precision="ieee")
            if SOFTCAP:
                x = 2 * softcap * tl.sigmoid(x * (2 * scale / softcap)) - softcap
            else:
                x = x * scale
            weight = tl.exp2((x - norm[:, None]) * 1.4426950408889634)
            visible = real[:, None]
            if BANDED:
                distance = offset + t[:, None] - key[None, :]
                visible = visible & (distance >= low)
                if BOUNDED:
                    visible = visible & (distance < high)
            total += tl.sum(tl.where(visible, weight, 0.0), 0)
        tl.store(mass + place_of_head * n_keys + key, total, mask=seen)


def part_mass(part: Part, lse: Tensor, scale: float, softcap: float | None = None) -> Tensor:
    """The contract of `infllm.kernels.partial_attention.part_mass`, on a GPU."""
    args = arguments_of(part)
    q = args.q
    b, h, t, d = q.shape
    mass = torch.empty(b, h, part.n_keys, dtype=torch.float32, device=q.device)
    rows, keys, warps, stages = mass_tile(padded(d), q.dtype)
    table, k_scale, _, *rope = args.tensors
    k_strides, ks_strides = args.key_strides[:3], args.key_strides[6:9]
    part_mass_kernel[triton.cdiv(part.n_keys, keys), b * (h // args.group)](
        q, part.k, lse.contiguous(), mass, table, k_scale, *rope,
        h, t, part.n_keys, *args.band, scale, softcap or 1.0,
        *q.stride()[:3], *k_strides, *ks_strides, *args.table_strides,
        args.group, h // part.k.shape[1], args.page,
        part.band is not None, part.band is not None and part.band.high is not None,
        softcap is not None, part.k_scale is not None, args.rotary, args.interleaved,
        d, padded(d), rows, keys, num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return fold_mass(part, mass)
