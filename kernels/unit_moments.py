"""Lookup of memory units by moments of their keys: mean and variance of units, or of their parts.

Were the products q.k of a query with n keys normally distributed, with mean m and variance s, then
their logsumexp would be log n + m + s / 2, as long as the largest of n such products is among those
that count, and log n + m + sqrt(2 s log n) - log n beyond: the random energy model (Derrida, Phys.
Rev. B 24, 2613, 1981). Both come from the mean and the variance of the keys in each dimension. So
one key that stands out in a unit raises what is expected of it, which a mean alone would hide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from infllm.kernels.unit_parts import parts_of

VALUES = 2**24  # float32, of all parts for some queries of a KV head, held at once
STEP = 2**17  # of those, worked on at once


def unit_moments(k: Tensor) -> tuple[Tensor, Tensor]:
    """Means and variances of the parts of units.

    Args:
        k: keys [..., block, D] of units, any floating dtype.

    Returns:
        Both float32 [..., parts, D].
    """
    part = k.float().unflatten(-2, (parts_of(k.shape[-2]), -1))  # [..., parts, size, D]
    mean = part.mean(dim=-2)
    return mean, (part - mean[..., None, :]).square_().mean(dim=-2)


def whole_moments(means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Of units, from those of their parts, [..., parts, D] each: both float32 [..., D]."""
    means = means.float()
    mean = means.mean(dim=-2)
    between = (means - mean[..., None, :]).square_().mean(dim=-2)
    return mean, between.add_(variances.float().mean(dim=-2))


def moment_mass(
    q: Tensor,
    beside: Tensor,
    means: Sequence[Tensor],
    variances: Sequence[Tensor],
    block: int,
    scale: float,
    softcap: float | None = None,
    centre: Tensor | None = None,
    parts: int | None = None,
) -> Tensor:
    """About the softmax mass of each unit, added up over queries and heads.

    PyTorch only, on the device of the moments, in whose dtype products are taken.

    Args:
        q: [B, H, T, D], rotated.
        beside: float32 [B, H, T], joint logsumexp of all else that the queries see.
        means, variances: runs [B, Hkv, n * parts, D] of N units of `block` keys in all, by
            `unit_moments` or, of one part, `whole_moments`; never copied as a whole.
        scale, softcap: as in `attend`.
        centre: [B, Hkv, D], what was taken from the keys before.
        parts: of a unit; None: `parts_of(block)`.

    Returns:
        float32 [B, N].
    """
    b, d = q.shape[0], q.shape[3]
    parts = parts or parts_of(block)
    n_kv, size = means[0].shape[1], block // parts
    n = sum(run.shape[2] for run in means)
    total = q.new_zeros(b, n, dtype=torch.float32)
    query = (q.float() * scale).reshape(b, n_kv, -1, d)  # [B, Hkv, rows, D]
    others = beside.float().reshape(b, n_kv, -1, 1)
    some = max(1, VALUES // (n_kv * n))  # rows at once
    for i in range(b):
        of_sequence = [(mean[i], spread[i]) for mean, spread in zip(means, variances, strict=True)]
        for rows, rest in zip(query[i].split(some, 1), others[i].split(some, 1), strict=True):
            logits = _logits(rows, of_sequence, n, size)
            # What is the same for all parts is added to the sums alone, where it may be.
            shift = rows.new_full((*rows.shape[:2], 1), math.log(size))
            if centre is not None:
                share = rows @ centre[i].float()[..., None]
                if softcap is None:
                    shift += share
                else:
                    logits += share
            if softcap is not None:
                logits.div_(softcap).tanh_().mul_(softcap)
            top = logits.amax(dim=-1, keepdim=True)
            shares = logits.sub_(top).exp_()
            units = shares.sum(dim=-1, keepdim=True).log_()
            norm = torch.logaddexp(units, rest - shift - top)
            total[i] += norm.neg_().exp_().view(-1) @ shares.flatten(0, 1)
    return total.view(b, -1, parts).sum(dim=-1)


def _logits(rows: Tensor, moments: Sequence[tuple[Tensor, Tensor]], n: int, size: int) -> Tensor:
    """float32 [Hkv, rows, n]: logsumexp, less log size, of `size` products that are normal, of
    rows [Hkv, rows, D] with moments [Hkv, n of run, D].

    Half the variance as far as the largest product reaches, and less beyond, is Huber's function
    of the standard deviation. A few parts at once: they stay in a CPU's caches between the passes
    over them.
    """
    # Standard deviations to the largest of them; a single one has none, but 0 is refused.
    edge = math.sqrt(2 * math.log(size)) or 1.0
    heads, n_rows, _ = rows.shape
    out = rows.new_empty(heads, n_rows, n)
    zero, step = rows.new_zeros(()), max(1, STEP // (heads * n_rows))
    x, squares = rows.to(moments[0][0].dtype), (rows * rows).to(moments[0][1].dtype)
    start = 0
    for means, variances in moments:
        place = out[:, :, start : start + means.shape[1]].split(step, 2)
        for some, mean, variance in zip(
            place, means.split(step, 1), variances.split(step, 1), strict=True
        ):
            deviation = (squares @ variance.mT).float().sqrt_()
            more = huber_loss(deviation, zero.expand_as(deviation), reduction="none", delta=edge)
            torch.add(x @ mean.mT, more, out=some)
        start += means.shape[1]
    return out
