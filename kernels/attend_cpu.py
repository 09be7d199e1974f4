"""Joint attention on a CPU: one fused softmax while the logits fit the caches, flash beyond."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from infllm.kernels.merge_state import merge_state
from infllm.kernels.partial_attention import Band, Part, fold_mass, gather_keys

# Up to so many float32 logits a block's scores stay in the caches: one softmax over all parts
# saves the merge of flash's partial states, and leaves the masses behind.
FUSED_LOGITS = 1_500_000
# Queries that a flash pass over a banded part takes at once: keys that some of them do not see are
# computed for all of them.
TILE = 128
# float32 logits of one step of the second pass, for masses beside flash: they stay in the caches.
MASS_LOGITS = 2**18


def attend_cpu(
    parts: Sequence[Part], scale: float, softcap: float | None, sink: Tensor | None
) -> tuple[Tensor, list[Tensor | None]]:
    """`attend` for tensors of a CPU; arguments and results as there."""
    b, h, t, _ = parts[0].q.shape
    n_logits = b * h * t * sum(part.n_keys for part in parts)
    # A band that is shifted when the kernel runs belongs to recorded steps: one query each.
    shifted = any(part.shift is not None for part in parts)
    if t == 1 and _plain(parts):
        return _attend_row(parts, scale, softcap, sink)
    if softcap is not None or shifted or n_logits <= FUSED_LOGITS:
        return _attend_fused(parts, scale, softcap, sink)
    return _attend_flash(parts, scale, sink)


# ---- one query -----------------------------------------------------------------------------------


def _plain(parts: Sequence[Part]) -> bool:
    """Whether the parts are dense, with all their keys to be seen."""
    return all(
        part.table is None and part.band is None and part.rope is None and part.k_scale is None
        for part in parts
    )


def row_logits(parts: Sequence[Part], scale: float, softcap: float | None = None) -> list[Part]:
    """Dense parts of one query without bands, with their logits."""
    logits = [_row_logits(part, scale) for part in parts]
    if softcap is not None:
        logits = [softcap * torch.tanh(x / softcap) for x in logits]
    b, h, _, _ = parts[0].q.shape
    known = (x.view(b, h, 1, -1) for x in logits)
    return [replace(part, logits=x) for part, x in zip(parts, known, strict=True)]


def _row_logits(part: Part, scale: float) -> Tensor:
    """float32 [B * Hkv, H / Hkv, S], not capped."""
    b, h, _, d = part.q.shape
    heads = part.k.shape[1]
    query, k = part.q.float().reshape(b * heads, h // heads, d), part.k.float().flatten(0, 1)
    return torch.baddbmm(query.new_empty(()), query, k.transpose(1, 2), beta=0, alpha=scale)


def _attend_row(
    parts: Sequence[Part], scale: float, softcap: float | None, sink: Tensor | None
) -> tuple[Tensor, list[Tensor | None]]:
    """Logits of all parts side by side, one softmax; keys and values stay where they are."""
    q = parts[0].q
    b, h, _, _ = q.shape
    heads = parts[0].k.shape[1]
    shape = b * heads, h // heads, -1
    known = [
        part.logits if part.logits is not None else row_logits([part], scale, softcap)[0].logits
        for part in parts
    ]
    rows = [x.view(shape) for x in known if x is not None]
    if sink is not None:
        rows.append(sink.float()[None, :].expand(b, h).reshape(*shape[:2], 1))
    weight = torch.softmax(torch.cat(rows, dim=-1), dim=-1)
    o = torch.zeros(b * heads, h // heads, parts[0].v.shape[-1])
    masses: list[Tensor | None] = []
    start = 0
    for part in parts:
        share = weight[:, :, start : start + part.n_keys]
        o.baddbmm_(share, part.v.float().flatten(0, 1))
        masses.append(share.reshape(b, h, -1) if part.mass else None)
        start += part.n_keys
    return o.view(b, h, 1, -1).to(q.dtype), masses


# ---- one softmax over the logits of all parts ----------------------------------------------------


def _attend_fused(
    parts: Sequence[Part], scale: float, softcap: float | None, sink: Tensor | None
) -> tuple[Tensor, list[Tensor | None]]:
    """Logits of all parts side by side in one buffer, one softmax, one product with v.

    Parts that share their query tensor are one matrix product. The softmax runs on rows that are
    still in the cache, and the masses are column sums of what it leaves there.
    """
    q = parts[0].q
    b, h, t, d = q.shape
    keys, values = zip(*(gather_keys(part) for part in parts), strict=True)
    heads = max(k.shape[1] for k in keys)  # Hkv, or H when a part has a table per query head
    keys, values = zip(
        *((_per_head(k, heads), _per_head(v, heads)) for k, v in zip(keys, values, strict=True)),
        strict=True,
    )
    n_keys = [k.shape[2] for k in keys]
    rows = (h // heads) * t
    width = sum(n_keys) + (sink is not None)
    # float32 whatever the model's dtype: a bfloat16 logit of 20 is off by up to 0.06.
    logits = q.new_empty(b * heads, rows, width, dtype=torch.float32)
    start = 0
    for group in _groups_by_query(parts):
        k = keys[group[0]] if len(group) == 1 else torch.cat([keys[i] for i in group], dim=2)
        stop = start + k.shape[2]
        query = parts[group[0]].q.float().reshape(b * heads, rows, d)
        k = k.float().reshape(b * heads, -1, d)
        out = logits[:, :, start:stop]
        torch.baddbmm(out, query, k.transpose(1, 2), beta=0, alpha=scale, out=out)
        start = stop
    if softcap is not None:
        logits.div_(softcap).tanh_().mul_(softcap)
    by_head = logits.view(b, h, t, width)
    start = 0
    for part, n in zip(parts, n_keys, strict=True):
        if part.band is not None:
            _hide(by_head[..., start : start + n], part)
        start += n
    if sink is not None:
        by_head[..., -1] = sink.float()[None, :, None]
    weight = torch.softmax(logits, dim=-1)
    value = torch.cat(values, dim=2) if len(values) > 1 else values[0]
    n_all = value.shape[2]
    o = torch.bmm(weight[..., :n_all].to(q.dtype), value.reshape(b * heads, n_all, -1))
    masses: list[Tensor | None] = []
    start = 0
    for part, n in zip(parts, n_keys, strict=True):
        columns = weight.view(b, h, t, width)[..., start : start + n]
        masses.append(fold_mass(part, columns.sum(dim=2)) if part.mass else None)
        start += n
    return o.view(b, h, t, -1), masses


def _hide(logits: Tensor, part: Part) -> None:
    """Put minus infinity at the keys that the band hides in logits [B, H, T, S], in place.

    In a window only the columns near both ends need it: all queries see what lies between.
    """
    band = part.band
    assert band is not None
    if part.shift is not None:
        hidden = part.hidden()
        assert hidden is not None
        logits.masked_fill_(hidden, float("-inf"))
        return
    t, n = logits.shape[2:]
    start, stop = band.clear(t, n)
    if start > 0:
        logits[..., :start] += _bias(band, t, 0, start)
    if stop < n:
        logits[..., stop:] += _bias(band, t, stop, n)


@lru_cache(maxsize=256)
def _bias(
    band: Band, n_queries: int, start: int, stop: int, hidden: float = float("-inf")
) -> Tensor:
    """float32 [T, stop - start]: 0 where the band shows keys start to stop - 1, else `hidden`."""
    seen = band.visible(n_queries, stop, torch.device("cpu"))[:, start:]
    return torch.zeros(seen.shape).masked_fill_(~seen, hidden)


def _per_head(x: Tensor, heads: int) -> Tensor:
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


def _groups_by_query(parts: Sequence[Part]) -> list[list[int]]:
    """Indices of neighbouring parts whose queries are the same tensor."""
    groups: list[list[int]] = []
    for i, part in enumerate(parts):
        if groups and parts[groups[-1][-1]].q is part.q:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


# ---- flash passes, merged ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Keys:
    """A part's keys and values, dense and rotated: [B, Hkv or H, S, D]."""

    part: Part
    k: Tensor
    v: Tensor


def _attend_flash(
    parts: Sequence[Part], scale: float, sink: Tensor | None
) -> tuple[Tensor, list[Tensor | None]]:
    """Flash passes of PyTorch's CPU kernel, merged by their logsumexps; masses by a second pass.

    The queries of a KV group are rows of one product with its keys. Only keys at a band's edges
    carry a mask: the kernel is a fifth slower with one.
    """
    keys = [_Keys(part, *gather_keys(part)) for part in parts]
    states = [
        state
        for group in _groups_by_query(parts)
        for state in _group_states([keys[i] for i in group], scale)
    ]
    if sink is not None:
        o, lse = states[0]
        states.append((torch.zeros_like(o), sink.float()[None, :, None].expand_as(lse)))
    o, lse = merge_state(states)
    masses = [
        fold_mass(one.part, _column_mass(one, lse, scale)) if one.part.mass else None
        for one in keys
    ]
    return o.to(parts[0].q.dtype), masses


def _group_states(group: Sequence[_Keys], scale: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Partial states of parts that share a query tensor: one of all without a band, the rest."""
    q = group[0].part.q
    without = [(one.k, one.v) for one in group if one.part.band is None]
    if without:
        heads = max(k.shape[1] for k, _ in without)
        k, v = zip(*((_per_head(k, heads), _per_head(v, heads)) for k, v in without), strict=True)
        joined_k, joined_v = (x[0] if len(x) == 1 else torch.cat(x, dim=2) for x in (k, v))
        yield _flash(q, joined_k, joined_v, None, scale)
    for one in group:
        if one.part.band is not None:
            yield from _banded_states(one, one.part.band, scale)


def _banded_states(
    one: _Keys, band: Band, scale: float
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Partial states over keys that all queries of a tile see, and over those at the edges."""
    q, k, v = one.part.q, one.k, one.v
    b, h, t, _ = q.shape
    n = k.shape[2]
    clear, edge = (
        (
            q.new_zeros(b, h, t, v.shape[-1], dtype=torch.float32),
            q.new_full((b, h, t), float("-inf"), dtype=torch.float32),
        )
        for _ in range(2)
    )
    # Finite: a query that sees no key at the edges keeps finite numbers, and their share is 0.
    hidden = torch.finfo(q.dtype).min / 2
    for a in range(0, t, TILE):
        z = min(a + TILE, t)
        tile = Band(band.offset + a, band.low, band.high)
        queries = q[:, :, a:z]
        start, stop = tile.clear(z - a, n)
        if start < stop:
            state = _flash(queries, k[:, :, start:stop], v[:, :, start:stop], None, scale)
            clear[0][:, :, a:z], clear[1][:, :, a:z] = state
        spans = [span for span in tile.edges(z - a, n) if span[0] < span[1]]
        if spans:
            some_k, some_v = (torch.cat([x[:, :, c:d] for c, d in spans], dim=2) for x in (k, v))
            mask = torch.cat([_bias(tile, z - a, c, d, hidden) for c, d in spans], dim=1)
            state = _flash(queries, some_k, some_v, mask.to(q.dtype), scale)
            edge[0][:, :, a:z], edge[1][:, :, a:z] = state
    return clear, edge


def _flash(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """State (o float32 [B, H, T, Dv], lse float32 [B, H, T]) of q [B, H, T, D] over dense keys,
    with a mask [T, S] that is added to the logits."""
    b, h, t, d = q.shape
    heads = k.shape[1]
    rows = (h // heads) * t
    bias = None if mask is None else mask.expand(h // heads, t, -1).reshape(rows, -1)
    o, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q.reshape(b, heads, rows, d), k, v, 0.0, False, attn_mask=bias, scale=scale
    )
    return o.float().reshape(b, h, t, -1), lse.float().reshape(b, h, t)


def _column_mass(one: _Keys, lse: Tensor, scale: float) -> Tensor:
    """float32 [B, H, S]: softmax weight that each key receives, given the joint lse [B, H, T]."""
    b, h, t, d = one.part.q.shape
    heads, n = one.k.shape[1], one.k.shape[2]
    rows = (h // heads) * t
    q = (one.part.q.float() * scale).reshape(b * heads, rows, d)
    k = one.k.float().reshape(b * heads, n, d)
    norm = lse.reshape(b * heads, rows, 1)
    mass = q.new_empty(b * heads, h // heads, n)
    step = max(1, MASS_LOGITS // rows)
    band = one.part.band
    clear, stop = (0, n) if band is None else band.clear(t, n)
    for head in range(b * heads):
        for a in range(0, n, step):
            z = min(a + step, n)
            logits = torch.addmm(-norm[head], q[head], k[head, a:z].T)
            if band is not None and not clear <= a < z <= stop:
                logits.view(-1, t, z - a).add_(_bias(band, t, a, z))
            mass[head, :, a:z] = logits.exp_().view(-1, t, z - a).sum(dim=1)
    return mass.view(b, h, n)
