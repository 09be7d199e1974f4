"""Attention over all that a block of queries sees, in one launch: one softmax, one state.

The keys near a query, initial tokens, units and tokens that wait behind the window are attended
one after the other by the same program, whose output and sums stay in registers: no partial state
is written, and none is merged. Two rotations of the queries are read: for near keys and for far
ones. Few rows are spread over the keys, all parts on end: then each program leaves a state, and
`merge_states` joins them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import triton
import triton.language as tl
from infllm.kernels.partial_attention import Part, State
from infllm.kernels.triton.arguments import group_of, rotary_dim, shares
from infllm.kernels.triton.load_keys import key_places, load_rows
from infllm.kernels.triton.merge_state import merge_states
from infllm.kernels.triton.partial_attention import SPLIT, band_ranges
from infllm.kernels.triton.tiles import block_m, padded, tile_of

EDGE = 64  # keys of a tile where some may be hidden: a larger one takes too many registers
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _tile(
    q, o, top, total, start, t, n_keys, offset, low, high, factor, softcap,
    k, v, table, page_stride, row_stride, MASKED: tl.constexpr, LOW: tl.constexpr,
    HIGH: tl.constexpr, SOFTCAP: tl.constexpr, PAGE: tl.constexpr, D: tl.constexpr,
    DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """One step of the online softmax: o [BLOCK_M, BLOCK_DV], top and total [BLOCK_M].

    `factor` turns logits into exponents of 2 within the exponentials' own multiply-adds; LOW and
    HIGH: distances are bounded there.
    """
    key = start + tl.arange(0, BLOCK_N)
    seen = key < n_keys
    if PAGE % BLOCK_N == 0:  # one page, or dense keys: one address, and places behind it
        at = tl.zeros([], tl.int64) + start
        if PAGE > 0:
            at = tl.load(table + start // PAGE) * page_stride + at % PAGE * row_stride
        else:
            at = at * row_stride
        k += at
        v += at
        page = 0
        place = tl.arange(0, BLOCK_N)
    else:
        page, _, place = key_places(table, start, n_keys, PAGE, BLOCK_N)
    keys = load_rows(
        k, page, place, seen, k, page_stride, row_stride, 0, 0, D, BLOCK_D, MASKED, False, 0, False,
    )  # fmt: skip
    x = tl.dot(q, tl.trans(keys), input_precision="ieee")
    if SOFTCAP:
        x = 2 * softcap * tl.sigmoid(x * (2 * factor / softcap)) - softcap
        factor = 1.0
    if MASKED:
        shown = seen[None, :]
        distance = offset + t[:, None] - key[None, :]
        if LOW:
            shown = shown & (distance >= low)
        if HIGH:
            shown = shown & (distance < high)
        x = tl.where(shown, x, float("-inf"))
    new = tl.maximum(top, tl.max(x, 1))
    if MASKED:
        safe = tl.where(new == float("-inf"), 0.0, new)  # a row that has seen no key yet
    else:
        safe = new
    if SOFTCAP:
        factor = LOG2E
    else:
        factor = factor * LOG2E
    fade = tl.exp2((top - safe) * factor)
    weight = tl.exp2(x * factor - (safe * factor)[:, None])
    values = load_rows(
        v, page, place, seen, v, page_stride, row_stride, 0, 0,
        DV, BLOCK_DV, MASKED, False, 0, False,
    )  # fmt: skip
    o = o * fade[:, None]
    o = tl.dot(weight.to(q.dtype), values, o, input_precision="ieee")
    return o, new, total * fade + tl.sum(weight, 1)


@triton.jit(
    do_not_specialize=[
        "n_queries", "n_near", "n_init", "n_units", "n_waiting", "split", "near_offset",
        "waiting_offset", "window",
    ]
)  # fmt: skip
def joint_attention_kernel(
    q_near, q_far, near_k, near_v, init_k, init_v, unit_k, unit_v, waiting_k, waiting_v,
    table, shift, before_o, before_lse, sink, o, lse,
    n_heads, n_queries, n_near, n_init, n_units, n_waiting, split,
    near_offset, waiting_offset, window, scale, softcap,
    q_batch, q_head, q_row, near_batch, near_head, near_row, init_batch, init_head, init_row,
    unit_page, unit_head, unit_row, waiting_batch, waiting_head, waiting_row, table_batch,
    o_batch, o_head, o_row, o_split, lse_split,
    GROUP: tl.constexpr, PAGE: tl.constexpr, SOFTCAP: tl.constexpr, SHARE: tl.constexpr,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, EDGE_N: tl.constexpr,
):  # fmt: skip
    """Program (i, b * n_heads / GROUP + p, z): rows from i * BLOCK_M on, of the query heads of KV
    head p; over keys z * split to (z + 1) * split - 1 of all parts on end, each of which begins at
    a multiple of SHARE. Tiles where a key may be hidden are of EDGE_N keys, the others of BLOCK_N.

    What is not there is None. `before_o` float32 [B, H, T, DV], `before_lse` [B, H, T]: a state to
    go on from.
    """
    programs = n_heads // GROUP
    b = (tl.program_id(1) // programs).to(tl.int64)
    p = (tl.program_id(1) % programs).to(tl.int64)
    z = tl.program_id(2)
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    real = row < n_queries * GROUP
    t = row // GROUP
    head = p * GROUP + row % GROUP  # int64
    d = tl.arange(0, BLOCK_D)
    dv = tl.arange(0, BLOCK_DV)
    q_at = (b * q_batch + head * q_head + t.to(tl.int64) * q_row)[:, None] + d[None, :]
    q_real = real[:, None] & (d < D)[None, :]
    t_first = tl.program_id(0) * BLOCK_M // GROUP
    t_last = tl.minimum(n_queries - 1, (tl.program_id(0) * BLOCK_M + BLOCK_M - 1) // GROUP)
    place = (b * n_heads + head) * n_queries + t  # of [B, H, T]
    if shift is not None:
        moved = tl.load(shift).to(tl.int32)
        near_offset += moved
        waiting_offset += moved
    if SOFTCAP:
        factor = 1.4426950408889634
    else:
        factor = scale * 1.4426950408889634

    acc = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    if before_o is not None:
        was = tl.load(before_lse + place, mask=real, other=float("-inf"))
        acc += tl.load(
            before_o + place[:, None] * DV + dv[None, :],
            mask=real[:, None] & (dv < DV)[None, :], other=0.0,
        )  # fmt: skip
        top = was * 1.4426950408889634 / factor
        total = tl.where(was == float("-inf"), 0.0, 1.0)

    begin, end = z * split, z * split + split
    if near_k is not None:
        queries = tl.load(q_near + q_at, mask=q_real, other=0.0)
        near_k += b * near_batch + p * near_head
        near_v += b * near_batch + p * near_head
        stop = tl.minimum(end, n_near)
        first, last, clear, dim = band_ranges(
            t_first, t_last, begin, stop, near_offset, 0, window, True, True, BLOCK_N, EDGE_N
        )
        for start in tl.range(clear, dim, BLOCK_N):
            acc, top, total = _tile(
                queries, acc, top, total, start, t, stop, near_offset, 0, window, scale, softcap,
                near_k, near_v, near_k, 0, near_row, False, False, False,
                SOFTCAP, 0, D, DV, BLOCK_D, BLOCK_DV, BLOCK_N,
            )  # fmt: skip
        # The edges, where some query must not see some key: before the clear tiles and behind.
        ahead = tl.maximum(0, (clear - first) // EDGE_N)
        behind = tl.maximum(0, tl.cdiv(last - dim, EDGE_N))
        for i in tl.range(0, ahead + behind):
            start = tl.where(i < ahead, first + i * EDGE_N, dim + (i - ahead) * EDGE_N)
            acc, top, total = _tile(
                queries, acc, top, total, start, t, stop, near_offset, 0, window, scale, softcap,
                near_k, near_v, near_k, 0, near_row, True, True, True,
                SOFTCAP, 0, D, DV, BLOCK_D, BLOCK_DV, EDGE_N,
            )  # fmt: skip
        begin -= tl.cdiv(n_near, SHARE) * SHARE
        end -= tl.cdiv(n_near, SHARE) * SHARE
    if q_far is not None:
        queries = tl.load(q_far + q_at, mask=q_real, other=0.0)
    if unit_k is not None:
        unit_k += p * unit_head
        unit_v += p * unit_head
        table += b * table_batch
        stop = tl.minimum(end, n_units)
        for start in tl.range(tl.maximum(begin, 0), stop, BLOCK_N):
            acc, top, total = _tile(
                queries, acc, top, total, start, t, stop, 0, 0, 0, scale, softcap,
                unit_k, unit_v, table, unit_page, unit_row, PAGE % BLOCK_N != 0, False, False,
                SOFTCAP, PAGE, D, DV, BLOCK_D, BLOCK_DV, BLOCK_N,
            )  # fmt: skip
        begin -= tl.cdiv(n_units, SHARE) * SHARE
        end -= tl.cdiv(n_units, SHARE) * SHARE
    if init_k is not None:
        init_k += b * init_batch + p * init_head
        init_v += b * init_batch + p * init_head
        stop = tl.minimum(end, n_init)
        for start in tl.range(tl.maximum(begin, 0), stop, EDGE_N):
            acc, top, total = _tile(
                queries, acc, top, total, start, t, stop, 0, 0, 0, scale, softcap,
                init_k, init_v, init_k, 0, init_row, True, False, False,
                SOFTCAP, 0, D, DV, BLOCK_D, BLOCK_DV, EDGE_N,
            )  # fmt: skip
        begin -= tl.cdiv(n_init, SHARE) * SHARE
        end -= tl.cdiv(n_init, SHARE) * SHARE
    if waiting_k is not None:
        waiting_k += b * waiting_batch + p * waiting_head
        waiting_v += b * waiting_batch + p * waiting_head
        # Keys that no query of the tile sees are behind all others.
        stop = tl.minimum(end, tl.minimum(n_waiting, waiting_offset + t_last - window + 1))
        for start in tl.range(tl.maximum(begin, 0), stop, EDGE_N):
            acc, top, total = _tile(
                queries, acc, top, total, start, t, stop, waiting_offset, window, 0, scale,
                softcap, waiting_k, waiting_v, waiting_k, 0, waiting_row, True, True, False,
                SOFTCAP, 0, D, DV, BLOCK_D, BLOCK_DV, EDGE_N,
            )  # fmt: skip

    if sink is not None:
        lone = tl.load(sink + head).to(tl.float32) * 1.4426950408889634 / factor
        new = tl.maximum(top, lone)
        safe = tl.where(new == float("-inf"), 0.0, new)
        fade = tl.exp2((top - safe) * factor)
        acc = acc * fade[:, None]
        total = total * fade + tl.exp2((lone - safe) * factor)
        top = new
    none = total == 0
    total = tl.where(none, 1.0, total)
    acc = acc / total[:, None]
    joint = tl.where(none, float("-inf"), (top * factor + tl.log2(total)) * 0.6931471805599453)
    tl.store(lse + z * lse_split + place, joint, mask=real)
    o_at = z * o_split + b * o_batch + head * o_head + t.to(tl.int64) * o_row
    tl.store(
        o + o_at[:, None] + dv[None, :], acc.to(o.dtype.element_ty),
        mask=real[:, None] & (dv < DV)[None, :],
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Plan:
    """The parts of an attention that one launch serves, by what they are; q of the first."""

    near: Part | None
    init: Part | None
    units: Part | None
    waiting: Part | None
    window: int  # distances of near keys are below it, of waiting ones not

    @property
    def parts(self) -> tuple[Part | None, ...]:
        """In the order in which the kernel attends them."""
        return self.near, self.units, self.init, self.waiting

    @property
    def far(self) -> list[Part]:
        return [part for part in self.parts[1:] if part is not None]

    @property
    def n_keys(self) -> int:
        """Of all parts on end, each from a multiple of SPLIT on."""
        return sum(triton.cdiv(part.n_keys, SPLIT) * SPLIT for part in self.parts if part)


def plan_of(parts: Sequence[Part], scale: float) -> Plan | None:
    """How one launch serves the parts; None where they are of another kind."""
    found: dict[str, Part] = {}
    window = shift = None
    for part in parts:
        kind = _kind(part)
        if kind is None or kind in found or scale <= 0:
            return None
        found[kind] = part
        if kind in ("near", "waiting"):
            assert part.band is not None
            bound = part.band.high if kind == "near" else part.band.low
            if window not in (None, bound) or (window is not None and _where(part) != shift):
                return None
            window, shift = bound, _where(part)
    plan = Plan(
        found.get("near"), found.get("init"), found.get("units"), found.get("waiting"), window or 0
    )  # fmt: skip
    queries = [part.q for part in parts]
    far = plan.far
    if any(part.q is not far[0].q for part in far):
        return None
    if any(q.stride() != queries[0].stride() for q in queries) or queries[0].stride(-1) != 1:
        return None
    if len({(group_of(part), part.v.shape[-1]) for part in parts}) > 1:
        return None
    return plan


def _where(part: Part) -> int:
    """Of the part's shift, of which parts may have views of their own; 0 where it has none."""
    return 0 if part.shift is None else part.shift.data_ptr()


def _kind(part: Part) -> str | None:
    """near, init, units or waiting; None for what the kernel does not know."""
    plain = rotary_dim(part) == 0 and part.k_scale is None
    same = part.k.stride() == part.v.stride() and part.k.stride(-1) == 1
    if not plain or not same or part.k.dtype != part.q.dtype or part.v.dtype != part.q.dtype:
        return None
    if part.table is not None:
        return "units" if part.table.shape[1] == 1 and part.band is None else None
    if part.band is None:
        return "init"
    if part.band.high is None:
        return "waiting"
    return "near" if part.band.low == 0 else None


def joint_states(plan: Plan) -> int:
    """Programs that share the keys: more than one where few queries meet many keys, so that all of
    the device's processors have work."""
    part = next(part for part in plan.parts if part is not None)
    b, h, t, d = part.q.shape
    group = group_of(part)
    rows = block_m(t * group, max(d, part.v.shape[-1]), part.q.dtype, False)
    programs = triton.cdiv(t * group, rows) * b * (h // group)
    return shares(programs, part.q.device, plan.n_keys // SPLIT)


def joint_attention(
    plan: Plan, scale: float, softcap: float | None = None, sink: Tensor | None = None,
    before: State | None = None, splits: int | None = None,
    tile: tuple[int, int, int] | None = None, keep: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """o [B, H, T, Dv] in the queries' dtype, a view of [B, T, H, Dv], and lse float32 [B, H, T].

    `keep`: o in float32 and contiguous, to go on from.
    `splits`: programs that share the keys, by default as many as the device can use; `tile`: keys,
    warps and stages, by default those of `tile_of`.
    """
    some = next(part for part in plan.parts if part is not None)
    q = some.q
    b, h, t, d = q.shape
    dv, group = some.v.shape[-1], group_of(some)
    n = joint_states(plan) if splits is None else splits
    if before is not None:
        n = 1
    if n == 1:
        if keep:
            o = q.new_empty(b, h, t, dv, dtype=torch.float32)
        else:
            o = q.new_empty(b, t, h, dv).transpose(1, 2)
        lse = q.new_empty(b, h, t, dtype=torch.float32)
        o_strides, o_split, lse_split = o.stride()[:3], 0, 0
    else:
        o = q.new_empty(n, b, h, t, dv, dtype=torch.float32)
        lse = q.new_empty(n, b, h, t, dtype=torch.float32)
        o_strides, o_split, lse_split = o.stride()[1:4], o.stride(0), lse.stride(0)
    rows = block_m(t * group, max(d, dv), q.dtype, False)
    keys, warps, stages = tile or tile_of(rows, max(padded(d), padded(dv)), q.dtype, q.device)
    split = triton.cdiv(triton.cdiv(plan.n_keys, n), SPLIT) * SPLIT
    near, units, init, waiting = plan.parts
    far = plan.far
    banded = near or waiting
    table = None if units is None or units.table is None else units.table.contiguous()
    joint_attention_kernel[triton.cdiv(t * group, rows), b * (h // group), n](
        None if near is None else near.q, far[0].q if far else None,
        *_keys(near), *_keys(init), *_keys(units), *_keys(waiting),
        table,
        None if banded is None else banded.shift,
        *((None, None) if before is None else (before.o, before.lse)),
        sink if n == 1 else None, o, lse,
        h, t, *(0 if part is None else part.n_keys for part in (near, init, units, waiting)), split,
        _offset(near), _offset(waiting),
        plan.window, scale, softcap or 1.0, *q.stride()[:3],
        *_strides(near), *_strides(init), *_strides(units), *_strides(waiting),
        0 if table is None else table.stride(0),
        *o_strides, o_split, lse_split,
        group, 0 if units is None else units.k.shape[2], softcap is not None, SPLIT,
        d, dv, padded(d), padded(dv), rows, keys, min(keys, EDGE),
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
    if n == 1:
        return o, lse
    return merge_states(o, lse, sink, torch.float32 if keep else q.dtype)


def _keys(part: Part | None) -> tuple[Tensor | None, Tensor | None]:
    return (None, None) if part is None else (part.k, part.v)


def _offset(part: Part | None) -> int:
    return 0 if part is None or part.band is None else part.band.offset


def _strides(part: Part | None) -> tuple[int, ...]:
    return (0, 0, 0) if part is None else part.k.stride()[:3]
