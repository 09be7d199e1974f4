"""Lookup of single keys by exact products: those that each query likes best."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from infllm.kernels.unit_mass import STEP, cut_runs


def key_products(q: Tensor, k: Tensor) -> Tensor:
    """float32 [B, H, T, S]: q.k of q [B, H, T, D] and the keys k [B, Hkv, S, D] of its head."""
    b, h, t, d = q.shape
    n_kv = k.shape[1]
    query = q.float().reshape(b, n_kv, h // n_kv * t, d)
    return (query @ k.float().transpose(-1, -2)).view(b, h, t, -1)


def top_keys(
    q: Tensor, k: Sequence[Tensor], key_scale: Sequence[Tensor] | None, topk: int
) -> tuple[Tensor, Tensor]:
    """The keys of the largest products q.k, for each query and query head by itself.

    PyTorch only, where the keys lie: they stay on the host, and what is read of them is read once.

    Args:
        q: [B, H, T, D], rotated.
        k: runs [n, B, Hkv, block, D] of N units in all, as stored, in any strides: never copied as
            a whole. How the units are cut into runs changes no bit.
        key_scale: runs [n, B, Hkv, block, 1] of int8 and fp8 keys.
        topk: keys a query; fewer where there are fewer.

    Returns:
        Products float32 [B, H, T, m], largest first, and which keys int64 [B, H, T, m], counted
        through all units.
    """
    b, h, t, d = q.shape
    n = sum(run.shape[0] for run in k)
    best = q.new_empty(b, h, t, 0, dtype=torch.float32)
    index = torch.empty(b, h, t, 0, dtype=torch.int64, device=q.device)
    if n == 0:
        return best, index
    _, _, n_kv, block, _ = k[0].shape
    step = max(1, STEP // (block * max(n_kv * d, h * t)))
    for start in range(0, n, step):
        units = slice(start, min(start + step, n))
        m = units.stop - start
        keys = q.new_empty(b, n_kv, m, block, d, dtype=torch.float32)
        for some, run in cut_runs(k, units):
            keys[:, :, some].copy_(run.permute(1, 2, 0, 3, 4))
        for some, run in cut_runs(key_scale or (), units):
            keys[:, :, some].mul_(run.permute(1, 2, 0, 3, 4))
        product = key_products(q, keys.flatten(2, 3))
        there = torch.arange(start * block, units.stop * block, device=q.device)
        best = torch.cat([best, product], dim=-1)
        index = torch.cat([index, there.expand(b, h, t, -1)], dim=-1)
        best, place = best.topk(min(topk, best.shape[-1]), dim=-1)
        index = index.gather(-1, place)
    return best, index
