"""Lookup of memory units by all of their keys: the attention mass that each would receive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from infllm.kernels.dispatch import triton_version
from infllm.kernels.partial_attention import Part, gather_keys, partial_logits
from infllm.kernels.rotate import Rope, rotate

# float32 values of the keys, and of the logits, that are worked on at once: they stay in a CPU's
# caches between the passes over them.
STEP = 2**19
UNITS = 2**11  # whose shares are added up at once, likewise


def units_at_once(q: Tensor, n_kv: int, block: int) -> int:
    """Units whose keys `unit_lse` works on at once, for q [B, H, T, D]."""
    _, h, t, d = q.shape
    return max(1, STEP // (block * max(n_kv * d, h * t)))


def unit_lse(
    q: Tensor,
    k: Sequence[Tensor],
    key_scale: Sequence[Tensor] | None,
    scale: float,
    softcap: float | None = None,
    rope: Rope | None = None,
    first: int = 0,
) -> Tensor:
    """Logsumexp of each unit's logits for each query, in float32 whatever the keys' format.

    Args:
        q: [B, H, T, D], rotated.
        k: runs [n, B, Hkv, block, D] of N units in all, as stored, in any strides: never copied
            as a whole. How the units are cut into runs changes no bit.
        key_scale: runs [n, B, Hkv, block, 1] of int8 and fp8 keys.
        scale, softcap: as in `attend`.
        rope, first: rotate the keys, which follow each other from position `first` on.

    Returns:
        float32 [B, H, T, N].
    """
    if version := triton_version("unit_lse", q):
        return version(q, k, key_scale, scale, softcap, rope, first)
    b, h, t, d = q.shape
    n = sum(run.shape[0] for run in k)
    _, _, n_kv, block, _ = k[0].shape
    out = q.new_empty(b, h, t, n, dtype=torch.float32)
    query = (q.float() * scale).reshape(b, n_kv, -1, d)
    rows = query.shape[2]
    step = min(n, units_at_once(q, n_kv, block))
    key_buffer = out.new_empty(n_kv * step * block * d)
    logit_buffer = out.new_empty(n_kv * rows * step * block)
    for start in range(0, n, step):
        units = slice(start, min(start + step, n))
        m = units.stop - start
        keys = key_buffer[: n_kv * m * block * d].view(n_kv, m, block, d)
        logits = logit_buffer[: n_kv * rows * m * block].view(n_kv, rows, m * block)
        for i in range(b):
            for some, run in cut_runs(k, units):
                keys[:, some].copy_(run[:, i].transpose(0, 1))
            for some, run in cut_runs(key_scale or (), units):
                keys[:, some].mul_(run[:, i].transpose(0, 1))
            flat = keys.view(n_kv, m * block, d)
            if rope is not None:
                position = first + start * block + torch.arange(m * block, device=q.device)
                flat = rotate(flat, *rope.cos_sin(position), rope.layout)
            torch.bmm(query[i], flat.transpose(1, 2), out=logits)
            if softcap is not None:
                logits.div_(softcap).tanh_().mul_(softcap)
            by_unit = logits.view(n_kv, rows, m, block)
            top = by_unit.amax(dim=-1, keepdim=True)
            lse = by_unit.sub_(top).exp_().sum(dim=-1).log_().add_(top[..., 0])
            out[i, :, :, units] = lse.view(h, t, m)
    return out


def cut_runs(runs: Sequence[Tensor], units: slice) -> Iterator[tuple[slice, Tensor]]:
    """What of `units` lies in each run: the place among them, and the run's rows."""
    first = -units.start
    for run in runs:
        a, z = max(-first, 0), min(units.stop - units.start - first, run.shape[0])
        if a < z:
            yield slice(first + a, first + z), run[a:z]
        first += run.shape[0]


def dense_lse(
    parts: Sequence[Part],
    scale: float,
    softcap: float | None = None,
    sink: Tensor | None = None,
) -> Tensor:
    """Joint logsumexp float32 [B, H, T] of dense parts and the sink; arguments as in `attend`."""
    if version := triton_version("dense_lse", parts[0].q):
        return version(parts, scale, softcap, sink)
    b, h, t, _ = parts[0].q.shape
    n_kv = parts[0].k.shape[1]
    if all(part.logits is not None for part in parts):
        rows = [part.logits for part in parts if part.logits is not None]
        if sink is not None:
            rows.append(sink.float()[None, :, None, None].expand(b, h, 1, 1))
        return torch.logsumexp(torch.cat(rows, dim=-1), dim=-1)
    if t == 1:  # small enough to be worked on at once
        states = [
            torch.logsumexp(partial_logits(part, gather_keys(part)[0], scale, softcap), dim=-1)
            for part in parts
        ]
        if sink is not None:
            states.append(sink.float()[None, :, None].expand_as(states[0]))
        return states[0] if len(states) == 1 else torch.logsumexp(torch.stack(states), dim=0)
    group = h // n_kv
    out = parts[0].q.new_empty(b, h, t, dtype=torch.float32)
    for i in range(n_kv):  # one at a time: a window's logits of all heads are large
        heads = slice(i * group, (i + 1) * group)
        states = []
        for part in parts:
            kv = slice(i, i + 1)
            mine = replace(part, q=part.q[:, heads], k=part.k[:, kv], v=part.v[:, kv])
            logits = partial_logits(mine, gather_keys(mine)[0], scale, softcap)
            states.append(torch.logsumexp(logits, dim=-1))
        if sink is not None:
            states.append(sink[heads].float()[None, :, None].expand_as(states[0]))
        out[:, heads] = torch.logsumexp(torch.stack(states), dim=0)
    return out


def log_mass(lse: Tensor, beside: Tensor, groups: int) -> Tensor:
    """Log of the softmax mass of units, added up over queries and the heads of a group.

    Args:
        lse: [B, H, T, N] of the units.
        beside: [B, H, T], joint logsumexp of all else that the queries see.
        groups: how many groups of neighbouring heads are scored apart; 1 adds all heads up.

    Returns:
        float32 [B, groups, N]: in log space, so that units far behind others keep their order.
    """
    norm = torch.logaddexp(torch.logsumexp(lse, dim=-1), beside)[..., None]
    shares = (part - norm for part in lse.split(UNITS, dim=-1))
    masses = [torch.logsumexp(share.view(len(lse), groups, -1, share.shape[-1]), 2)
              for share in shares]  # fmt: skip
    return torch.cat(masses, dim=-1)
