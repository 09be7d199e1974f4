"""Lookup of memory units: scores against their representatives, and the best of them."""

from __future__ import annotations

import torch
from torch import Tensor

from infllm.kernels.dispatch import triton_version


def unit_scores(query: Tensor, index: Tensor, *, per_head: bool = False) -> Tensor:
    """Scores of units for mean queries.

    Args:
        query: [B, E, R, D], one mean query per execution block; R is H, or Hkv when queries of a
            group have been added up (`repr_heads: group`).
        index: [B, N, R, D], one representative vector per unit, in any floating dtype.
        per_head: score every head alone instead of adding heads up.

    Returns:
        float32 [B, E, 1, N], or [B, E, R, N] with `per_head`. No 1/sqrt(D) (InfLLM, section 3.2).
    """
    if version := triton_version("unit_scores", query):
        return version(query, index, per_head=per_head)
    b, e, r, d = query.shape
    query = query.to(index.dtype)
    if per_head:
        return torch.einsum("berd,bnrd->bern", query, index).float()
    scores = query.reshape(b, e, r * d) @ index.reshape(b, -1, r * d).transpose(1, 2)
    return scores.float()[:, :, None]


def top_units(scores: Tensor, k: int) -> Tensor:
    """Numbers of the k best units, ascending: int64 [..., min(k, N)] of scores [..., N]."""
    n = scores.shape[-1]
    if n <= k:
        return torch.arange(n, device=scores.device).expand(*scores.shape[:-1], n)
    if version := triton_version("top_units", scores):
        return version(scores, k)
    return scores.topk(k, dim=-1, sorted=False).indices.sort(dim=-1).values
