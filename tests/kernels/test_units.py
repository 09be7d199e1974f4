"""Lookup scores, the best units, and storage formats."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infllm.kernels.quantize import PLAIN, dequantize, quantize, storage_dtype
from infllm.kernels.unit_topk import top_units, unit_scores
from tests.kernels.parts import generator, normal, rms_error


@pytest.mark.parametrize("n", [1, 7, 65, 1000])
@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("per_head", [False, True])
def test_unit_scores_are_products_with_the_representatives(
    n: int, blocks: int, per_head: bool
) -> None:
    query, index = normal(2, blocks, 3, 16), normal(2, n, 3, 16, seed=1)
    got = unit_scores(query, index, per_head=per_head)
    by_head = (query.double()[:, :, None] * index.double()[:, None]).sum(-1)  # [B, E, N, R]
    want = by_head.transpose(2, 3) if per_head else by_head.sum(-1)[:, :, None]
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), want, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_index_scores_nearly_the_same(dtype: torch.dtype) -> None:
    query, index = normal(1, 2, 4, 64), normal(1, 33, 4, 64, seed=1)
    got, want = unit_scores(query, index.to(dtype)), unit_scores(query, index)
    assert got.dtype == torch.float32
    assert rms_error(got, want) < 1e-2


@settings(max_examples=100, deadline=None, database=None)
@given(n=st.integers(0, 40), k=st.integers(1, 45), seed=st.integers(0, 1000))
def test_top_units_are_the_best_in_ascending_order(n: int, k: int, seed: int) -> None:
    scores = torch.randn(2, 3, n, generator=generator(seed))
    got = top_units(scores, k)
    assert got.shape == (2, 3, min(n, k))
    for row, chosen in zip(scores.view(6, n), got.reshape(6, -1), strict=True):
        best = sorted(range(n), key=lambda i: -float(row[i]))[:k]
        assert chosen.tolist() == sorted(best)


@pytest.mark.parametrize("kv_dtype", ["fp32", "bf16", "fp16"])
def test_plain_formats_store_the_rounded_value(kv_dtype: str) -> None:
    x = normal(5, 7, 16)
    codes, scale = quantize(x, kv_dtype)
    assert scale is None
    assert codes.dtype == storage_dtype(kv_dtype) == PLAIN[kv_dtype]
    assert torch.equal(dequantize(codes, scale, torch.float32), x.to(PLAIN[kv_dtype]).float())


# Largest error of one value, as a share of its vector's largest: int8 rounds to half of 1/127;
# fp8 e4m3 has three bits of mantissa.
BOUND = {"int8": 0.5 / 127, "fp8": 1 / 16}


@settings(max_examples=60, deadline=None, database=None)
@given(seed=st.integers(0, 10_000), size=st.floats(1e-6, 1e6), outlier=st.booleans())
@pytest.mark.parametrize("kv_dtype", ["int8", "fp8"])
def test_scaled_formats_bound_their_error_by_vector(
    kv_dtype: str, seed: int, size: float, outlier: bool
) -> None:
    x = size * torch.randn(3, 4, 16, generator=generator(seed))
    if outlier:
        x[0, 0, 0] *= 1000
    codes, scale = quantize(x, kv_dtype)
    assert scale is not None
    assert codes.dtype == storage_dtype(kv_dtype)
    assert codes.element_size() == 1
    assert scale.shape == (3, 4, 1)
    error = (dequantize(codes, scale, torch.float32) - x).abs()
    assert (error <= 1.01 * BOUND[kv_dtype] * x.abs().amax(dim=-1, keepdim=True)).all()


@pytest.mark.parametrize("kv_dtype", ["int8", "fp8"])
def test_zero_vectors_stay_zero(kv_dtype: str) -> None:
    codes, scale = quantize(torch.zeros(2, 16), kv_dtype)
    got = dequantize(codes, scale, torch.float32)
    assert torch.equal(got, torch.zeros(2, 16))


@pytest.mark.parametrize("kv_dtype", ["int8", "fp8"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_vectors_come_back_in_their_dtype(kv_dtype: str, dtype: torch.dtype) -> None:
    x = normal(9, 64, dtype=dtype)
    codes, scale = quantize(x, kv_dtype)
    back = dequantize(codes, scale, dtype)
    assert back.dtype == dtype
    assert rms_error(back, x) < (1e-2 if kv_dtype == "int8" else 4e-2)
