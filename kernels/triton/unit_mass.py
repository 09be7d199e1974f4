"""Logsumexp of each unit's logits for each query: all keys of all units, read once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import triton
import triton.language as tl
from infllm.kernels.partial_attention import Part
from infllm.kernels.rotate import Rope
from infllm.kernels.triton.load_keys import load_keys
from infllm.kernels.triton.partial_attention import partial_attention
from infllm.kernels.triton.tiles import padded, unit_tile


@triton.jit(do_not_specialize=["n_queries", "n_units", "before"])
def unit_lse_kernel(
    q, k, out, k_scale, page_cos, page_sin, place_cos, place_sin,
    n_heads, n_queries, n_units, before, scale, softcap,
    q_batch, q_head, q_row, k_unit, k_batch, k_head, k_row,
    ks_unit, ks_batch, ks_head, ks_row, n_all,
    GROUP: tl.constexpr, BLOCK: tl.constexpr, SOFTCAP: tl.constexpr, SCALED: tl.constexpr,
    ROTARY: tl.constexpr, INTERLEAVED: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Program (i, b * n_heads / GROUP + kv, j): unit i for packed rows from j * BLOCK_M on.

    The run's first unit is unit `before` of all.
    """
    kv_heads = n_heads // GROUP
    b = (tl.program_id(1) // kv_heads).to(tl.int64)
    kv = (tl.program_id(1) % kv_heads).to(tl.int64)
    unit = tl.program_id(0).to(tl.int64)
    row = tl.program_id(2) * BLOCK_M + tl.arange(0, BLOCK_M)
    real = row < n_queries * GROUP
    t = (row // GROUP).to(tl.int64)
    head = kv * GROUP + row % GROUP
    d = tl.arange(0, BLOCK_D)
    q_at = b * q_batch + head * q_head + t * q_row
    queries = tl.load(
        q + q_at[:, None] + d[None, :], mask=real[:, None] & (d < D)[None, :], other=0.0
    )
    k += unit * k_unit + b * k_batch + kv * k_head
    if SCALED:
        k_scale += unit * ks_unit + b * ks_batch + kv * ks_head
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    for start in tl.range(0, BLOCK, BLOCK_N):
        key = start + tl.arange(0, BLOCK_N)
        seen = key < BLOCK
        keys = load_keys(
            k, unit * 0, before + unit, key.to(tl.int64), seen, k_scale, k_unit, k_row,
            ks_unit, ks_row, page_cos, page_sin, place_cos, place_sin,
            D, BLOCK_D, True, SCALED, ROTARY, INTERLEAVED,
        )  # fmt: skip
        x = tl.dot(queries, tl.trans(keys.to(queries.dtype)), input_precision="ieee")
        if SOFTCAP:
            x = 2 * softcap * tl.sigmoid(x * (2 * scale / softcap)) - softcap
        else:
            x = x * scale
        x = tl.where(seen[None, :], x, float("-inf"))
        new = tl.maximum(top, tl.max(x, 1))
        total = total * tl.exp(top - new) + tl.sum(tl.exp(x - new[:, None]), 1)
        top = new
    place = ((b * n_heads + head) * n_queries + t) * n_all + before + unit
    tl.store(out + place, top + tl.log(total), mask=real)


def unit_lse(
    q: Tensor,
    k: Sequence[Tensor],
    key_scale: Sequence[Tensor] | None,
    scale: float,
    softcap: float | None = None,
    rope: Rope | None = None,
    first: int = 0,
) -> Tensor:
    """The contract of `infllm.kernels.unit_mass.unit_lse`, on a GPU; a launch for each run."""
    b, h, t, d = q.shape
    q = q if q.stride(-1) == 1 else q.contiguous()
    n = sum(run.shape[0] for run in k)
    n_kv, block = k[0].shape[2:4]
    group = h // n_kv
    out = torch.empty(b, h, t, n, dtype=torch.float32, device=q.device)
    rotary = 0 if rope is None else 2 * rope.freq.shape[0]
    tables: tuple[Tensor | None, ...] = (None, None, None, None)
    if rope is not None and rotary > 0:
        start = first + block * torch.arange(n, device=q.device)
        angle = torch.arange(block, device=q.device).double()[:, None] * rope.freq
        tables = (*rope.cos_sin(start), angle.cos().float(), angle.sin().float())
    rows, keys, warps, stages = unit_tile(t * group, padded(d), q.dtype)
    before = 0
    for i, run in enumerate(k):
        codes = None if key_scale is None else key_scale[i]
        unit_lse_kernel[run.shape[0], b * n_kv, triton.cdiv(t * group, rows)](
            q, run, out, codes, *tables, h, t, run.shape[0], before, scale, softcap or 1.0,
            *q.stride()[:3], *run.stride()[:4],
            *((0, 0, 0, 0) if codes is None else codes.stride()[:4]), n,
            group, block, softcap is not None, codes is not None, rotary,
            rope is not None and rope.layout == "interleaved",
            d, padded(d), rows, keys, num_warps=warps, num_stages=stages,
        )  # fmt: skip
        before += run.shape[0]
    return out


def dense_lse(
    parts: Sequence[Part],
    scale: float,
    softcap: float | None = None,
    sink: Tensor | None = None,
) -> Tensor:
    """The contract of `infllm.kernels.unit_mass.dense_lse`, on a GPU."""
    states = [partial_attention(part, scale, softcap)[1] for part in parts]
    if sink is not None:
        states.append(sink.float()[None, :, None].expand_as(states[0]))
    return torch.logsumexp(torch.stack(states), dim=0)
