"""Lookup of memory units by all of their keys: the attention mass that each would receive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from infllm.kernels.partial_attention import Part, gather_keys, partial_logits
from infllm.kernels.rotate import Rope, rotate

# float32 values of the keys, and of the logits, that are worked on at once: they stay in a CPU's
# caches between the passes over them.
STEP = 2**20


def unit_lse(
    q: Tensor,
    k: Tensor,
    key_scale: Tensor | None,
    scale: float,
    softcap: float | None = None,
    rope: Rope | None = None,
    first: int = 0,
) -> Tensor:
    """Logsumexp of each unit's logits for each query, in float32 whatever the keys' format.

    Args:
        q: [B, H, T, D], rotated.
        k: [N, B, Hkv, block, D] as stored, in any strides: never copied as a whole.
        key_scale: [N, B, Hkv, block, 1] of int8 and fp8 keys.
        scale, softcap: as in `attend`.
        rope, first: rotate the keys, which follow each other from position `first` on.

    Returns:
        float32 [B, H, T, N].
    """
    b, h, t, d = q.shape
    n, _, n_kv, block, _ = k.shape
    out = q.new_empty(b, h, t, n, dtype=torch.float32)
    query = (q.float() * scale).reshape(b, n_kv, -1, d)
    rows = query.shape[2]
    step = min(n, max(1, STEP // (block * max(n_kv * d, h * t))))
    key_buffer = out.new_empty(n_kv * step * block * d)
    logit_buffer = out.new_empty(n_kv * rows * step * block)
    for start in range(0, n, step):
        units = slice(start, min(start + step, n))
        m = units.stop - start
        keys = key_buffer[: n_kv * m * block * d].view(n_kv, m, block, d)
        logits = logit_buffer[: n_kv * rows * m * block].view(n_kv, rows, m * block)
        for i in range(b):
            keys.copy_(k[units, i].transpose(0, 1))
            if key_scale is not None:
                keys.mul_(key_scale[units, i].transpose(0, 1))
            flat = keys.view(n_kv, m * block, d)
            if rope is not None:
                position = first + start * block + torch.arange(m * block, device=k.device)
                flat = rotate(flat, *rope.cos_sin(position), rope.layout)
            torch.bmm(query[i], flat.transpose(1, 2), out=logits)
            if softcap is not None:
                logits.div_(softcap).tanh_().mul_(softcap)
            by_unit = logits.view(n_kv, rows, m, block)
            top = by_unit.amax(dim=-1, keepdim=True)
            lse = by_unit.sub_(top).exp_().sum(dim=-1).log_().add_(top[..., 0])
            out[i, :, :, units] = lse.view(h, t, m)
    return out


def dense_lse(
    parts: Sequence[Part],
    scale: float,
    softcap: float | None = None,
    sink: Tensor | None = None,
) -> Tensor:
    """Joint logsumexp float32 [B, H, T] of dense parts and the sink; arguments as in `attend`."""
    b, h, t, _ = parts[0].q.shape
    n_kv = parts[0].k.shape[1]
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
    b, _, _, n = lse.shape
    norm = torch.logaddexp(torch.logsumexp(lse, dim=-1), beside)
    share = lse - norm[..., None]
    return torch.logsumexp(share.view(b, groups, -1, n), dim=2)
