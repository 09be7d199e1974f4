"""Interpreted: running sums of queries and their products with keys, against the references."""

from __future__ import annotations

import pytest
import torch

from infllm.kernels import query_sums as reference
from infllm.kernels.triton.query_sums import query_sums, window_scores
from tests.kernels.parts import normal, rms_error


@pytest.mark.parametrize(("before", "t"), [(1, 1), (1, 300), (5, 256), (259, 700)])
@pytest.mark.parametrize("d", [16, 80])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_sums_go_on(before: int, t: int, d: int, dtype: torch.dtype) -> None:
    q = normal(2, t, 3, d, dtype=dtype).transpose(1, 2)
    old = normal(2, 3, before, d, seed=1)
    got, want = query_sums(q, old), reference.query_sums(q, old)
    assert got.dtype == torch.float32
    assert torch.equal(got[:, :, :before], old)
    assert got.shape == want.shape
    assert rms_error(got, want) < 1e-6


@pytest.mark.parametrize("n", [1, 64, 150])
@pytest.mark.parametrize("start", [0, 7])
def test_products_with_the_queries_of_a_window(n: int, start: int) -> None:
    q, k = normal(2, 4, 260, 80), normal(2, 260, 2, 80, seed=1).transpose(1, 2)
    sums = reference.query_sums(q, torch.zeros(2, 4, 1, 80))
    keys = k[:, :, start : start + n]
    got = window_scores(sums, keys, start, 90)
    assert rms_error(got, reference.window_scores(sums, keys, start, 90)) < 1e-5
    for i in (0, n - 1):
        mean = q[:, :, start + i : start + i + 90].mean(dim=2)
        one = (mean.view(2, 2, 2, 80) * keys[:, :, None, i]).sum(-1).view(2, 4)
        assert rms_error(got[:, :, i], one) < 1e-4
