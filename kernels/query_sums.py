"""Running sums of queries, and what they say of keys: scores of representatives by dot products."""

from __future__ import annotations

import torch
from torch import Tensor

from infllm.kernels.dispatch import triton_version


def query_sums(q: Tensor, before: Tensor) -> Tensor:
    """Sums of queries, going on from those of a call before.

    Args:
        q: [B, H, T, D].
        before: float32 [B, H, R, D], R >= 1, contiguous; its last row is what the sums go on from.

    Returns:
        float32 [B, H, R + T, D]: `before`, then the sum after each query.
    """
    if version := triton_version("query_sums", q):
        return version(q, before)
    sums = q.float().cumsum(dim=2) + before[:, :, -1:]
    return torch.cat([before, sums], dim=2)


def window_scores(sums: Tensor, k: Tensor, start: int, window: int) -> Tensor:
    """Mean product of each key with the `window` queries from its own row on.

    Args:
        sums: float32 [B, H, N, D] by `query_sums`; row i is the sum of the queries before token i.
        k: [B, Hkv, n, D], of tokens `start` to `start + n - 1`; start + n + window <= N.

    Returns:
        float32 [B, H, n] (InfLLM, eq. 2, where the window is the local one).
    """
    if version := triton_version("window_scores", k):
        return version(sums, k, start, window)
    n = k.shape[2]
    queries = sums[:, :, start + window : start + n + window] - sums[:, :, start : start + n]
    b, h, _, d = queries.shape
    queries = queries.view(b, k.shape[1], -1, n, d)
    return (queries * k[:, :, None].float()).sum(dim=-1).view(b, h, n) / window
