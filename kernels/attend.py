"""Joint attention over several parts: the operation a layer calls, and its dispatch by device."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from infllm.kernels.dispatch import triton_version
from infllm.kernels.merge_state import merge_state
from infllm.kernels.partial_attention import (
    Band,
    Part,
    fold_mass,
    gather_keys,
    part_mass,
    partial_attention,
)

# Above this many float32 logits a block's scores no longer fit the caches: flash wins over the
# fused softmax that otherwise saves a pass and yields the masses.
FUSED_LOGITS = 8_000_000


def attend(
    parts: Sequence[Part],
    scale: float,
    softcap: float | None = None,
    sink: Tensor | None = None,
) -> tuple[Tensor, list[Tensor | None]]:
    """One softmax over the keys of all `parts`.

    Args:
        parts: at least one; all with queries [B, H, T, D] of the same shape, rotated each its way.
        scale: multiplies q.k.
        softcap: logits become `softcap * tanh(logits / softcap)` (Gemma 2).
        sink: float [H], a logit per head that takes weight and gives no value (gpt-oss).

    Returns:
        o [B, H, T, Dv] in the queries' dtype, and for each part its mass (`Part.mass`) or None.
    """
    if version := triton_version("attend", parts[0].q):
        return version(parts, scale, softcap, sink)
    if parts[0].q.device.type != "cpu":
        return attend_reference(parts, scale, softcap, sink)
    b, h, t, _ = parts[0].q.shape
    n_logits = b * h * t * sum(part.n_keys for part in parts)
    wants_mass = any(part.mass for part in parts)
    if wants_mass or softcap is not None or n_logits <= FUSED_LOGITS:
        return _attend_fused(parts, scale, softcap, sink)
    return _attend_flash(parts, scale, sink)


def attend_reference(
    parts: Sequence[Part],
    scale: float,
    softcap: float | None = None,
    sink: Tensor | None = None,
) -> tuple[Tensor, list[Tensor | None]]:
    """The definition of `attend`: partial states, merged; masses from the joint logsumexp."""
    states = [partial_attention(part, scale, softcap) for part in parts]
    o, lse = merge_state([*states, *_sink_states(states[0], sink)])
    masses = [part_mass(part, lse, scale, softcap) if part.mass else None for part in parts]
    return o.to(parts[0].q.dtype), masses


def _sink_states(like: tuple[Tensor, Tensor], sink: Tensor | None) -> list[tuple[Tensor, Tensor]]:
    if sink is None:
        return []
    o, lse = like
    return [(torch.zeros_like(o), sink.float()[None, :, None].expand_as(lse))]


def _attend_fused(
    parts: Sequence[Part], scale: float, softcap: float | None, sink: Tensor | None
) -> tuple[Tensor, list[Tensor | None]]:
    """CPU: logits of all parts side by side in one buffer, one softmax, one product with v.

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
def _bias(band: Band, n_queries: int, start: int, stop: int) -> Tensor:
    """float32 [T, stop - start]: 0 where the band shows keys start to stop - 1, -inf elsewhere."""
    seen = band.visible(n_queries, stop, torch.device("cpu"))[:, start:]
    return torch.zeros(seen.shape).masked_fill_(~seen, float("-inf"))


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


def _attend_flash(
    parts: Sequence[Part], scale: float, sink: Tensor | None
) -> tuple[Tensor, list[Tensor | None]]:
    """CPU, long keys: one flash pass per part (it returns the logsumexp), then a merge."""
    states = [_flash(part, scale) for part in parts]
    o, _ = merge_state([*states, *_sink_states(states[0], sink)])
    return o.to(parts[0].q.dtype), [None] * len(parts)


def _flash(part: Part, scale: float) -> tuple[Tensor, Tensor]:
    k, v = gather_keys(part)
    t, n = part.q.shape[2], part.n_keys
    h = part.q.shape[1]
    hidden = part.hidden()
    causal = hidden is not None and part.band == Band(0, 0) and part.shift is None and t == n
    bias = None
    if hidden is not None and not causal:
        if bool(hidden.all(dim=-1).any()):
            return partial_attention(part, scale)  # flash has no logsumexp for rows without keys
        bias = torch.zeros(t, n, dtype=part.q.dtype).masked_fill_(hidden, float("-inf"))
    o, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        part.q, _per_head(k, h), _per_head(v, h), 0.0, causal, attn_mask=bias, scale=scale
    )
    return o.float(), lse.float().view(part.q.shape[:3])
