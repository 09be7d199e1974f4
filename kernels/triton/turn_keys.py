"""Keys that are attended at positions of their own, rotated once on their way to attention.

The attention kernels can rotate keys as they load them, but then every tile of queries does so, and
a decode step computes tables of angles first. Rotated before, they are keys like others.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

import triton
import triton.language as tl
from infllm.kernels.partial_attention import Part
from infllm.kernels.rotate import Rope
from infllm.kernels.triton.arguments import rotary_dim

ROWS = 32  # keys of a tile


@triton.jit
def _cos_sin(angle):
    """float32 cosine and sine of float64 angles of any size, by quarters of a turn and Taylor's
    series in the last one: the library's own keep room on the stack for angles of 2**1000."""
    quarters = angle * 0.6366197723675814
    whole = tl.floor(quarters + 0.5)
    r = (quarters - whole) * 1.5707963267948966
    x = r * r
    sin = r * (1.0 - x / 6 * (1.0 - x / 20 * (1.0 - x / 42 * (1.0 - x / 72))))
    cos = 1.0 - x / 2 * (1.0 - x / 12 * (1.0 - x / 30 * (1.0 - x / 56 * (1.0 - x / 90))))
    sin, cos = sin.to(tl.float32), cos.to(tl.float32)
    quarter = whole.to(tl.int64) & 3
    swapped = (quarter & 1) == 1
    c, s = tl.where(swapped, sin, cos), tl.where(swapped, cos, sin)
    return tl.where((quarter == 1) | (quarter == 2), -c, c), tl.where(quarter >= 2, -s, s)


@triton.jit(do_not_specialize=["n_keys"])
def turn_keys_kernel(
    k, v, table, first, freq, cos, sin, out_k, out_v, n_heads, n_keys,
    k_page, k_head, k_row, v_page, v_head, v_row, first_stride,
    ROTARY: tl.constexpr, INTERLEAVED: tl.constexpr, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
    V_DIM: tl.constexpr, BLOCK_V: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Program (j, i * n_heads + h): keys from j * ROWS on, of head h of entry i of the table.

    The angle of a key is that of its page's first key, in float64, plus that of its place.
    """
    i = (tl.program_id(1) // n_heads).to(tl.int64)
    h = (tl.program_id(1) % n_heads).to(tl.int64)
    page = i
    if table is not None:
        page = tl.load(table + i)
    half: tl.constexpr = ROTARY // 2
    t = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    d = tl.arange(0, BLOCK_DIM)
    if INTERLEAVED:
        partner = tl.where(d < ROTARY, d ^ 1, d)
        angle = d // 2
        ahead = d % 2 == 0
    else:
        partner = tl.where(d < half, d + half, tl.where(d < ROTARY, d - half, d))
        angle = d % half
        ahead = d < half
    turned = d < ROTARY
    phase = tl.load(first + i * first_stride).to(tl.float64)
    phase = phase * tl.load(freq + angle, mask=turned, other=0.0)
    cos_a, sin_a = _cos_sin(phase)
    cos_a, sin_a = cos_a[None, :], sin_a[None, :]
    shown = (t < n_keys)[:, None] & (d < DIM)[None, :]
    both = (t < n_keys)[:, None] & turned[None, :]
    cos_b = tl.load(cos + t[:, None] * half + angle[None, :], mask=both, other=1.0)
    sin_b = tl.load(sin + t[:, None] * half + angle[None, :], mask=both, other=0.0)
    k += page * k_page + h * k_head
    x = tl.load(k + t[:, None] * k_row + d[None, :], mask=shown, other=0.0).to(tl.float32)
    other = tl.load(k + t[:, None] * k_row + partner[None, :], mask=shown, other=0.0)
    turn = sin_a * cos_b + cos_a * sin_b
    turn = tl.where(ahead[None, :], -turn, turn)
    x = x * (cos_a * cos_b - sin_a * sin_b) + other.to(tl.float32) * turn
    row = ((i * n_heads + h) * n_keys + t)[:, None]
    tl.store(out_k + row * DIM + d[None, :], x.to(out_k.dtype.element_ty), mask=shown)
    dv = tl.arange(0, BLOCK_V)
    inside = (t < n_keys)[:, None] & (dv < V_DIM)[None, :]
    v += page * v_page + h * v_head
    values = tl.load(v + t[:, None] * v_row + dv[None, :], mask=inside, other=0.0)
    tl.store(out_v + row * V_DIM + dv[None, :], values, mask=inside)


def turned(part: Part) -> Part:
    """The part with its keys rotated, where all heads attend the same ones and none is a code; else
    the part as it is."""
    shared = part.table is None or part.table.shape[1] == 1
    if part.rope is None or rotary_dim(part) == 0 or not shared or part.k_scale is not None:
        return part
    b = part.q.shape[0]
    _, heads, page, d = part.k.shape
    dv = part.v.shape[-1]
    n = b if part.table is None else part.table.numel()
    table = None if part.table is None else part.table.reshape(-1)
    first = part.first
    if first is None:
        first = torch.zeros((), dtype=torch.int64, device=part.k.device)
    first = first.to(part.k.device).expand(b) if part.table is None else first.reshape(-1)
    k = part.k.new_empty(n, heads, page, d)
    v = part.v.new_empty(n, heads, page, dv)
    turn_keys_kernel[triton.cdiv(page, ROWS), n * heads](
        part.k, part.v, table, first, part.rope.freq,
        *_places(part.rope, page, part.k.device), k, v,
        heads, page, *part.k.stride()[:3], *part.v.stride()[:3], first.stride(0),
        rotary_dim(part), part.rope.layout == "interleaved", d, triton.next_power_of_2(d),
        dv, triton.next_power_of_2(dv), ROWS,
    )  # fmt: skip
    if part.table is not None:
        table = _numbers(n, part.k.device).view(b, 1, -1)
    return replace(part, k=k, v=v, table=table, rope=None, first=None)


@lru_cache(256)
def _places(rope: Rope, page: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin of the places in a page, with the rotation's scale."""
    return rope.cos_sin(torch.arange(page, device=device))


@lru_cache(64)
def _numbers(n: int, device: torch.device) -> Tensor:
    return torch.arange(n, device=device)
