"""Single keys by exact products: the best of each query and head, however they are stored."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from infllm.kernels import key_topk
from infllm.kernels.key_topk import key_products, top_keys
from infllm.kernels.quantize import dequantize, quantize
from tests.kernels.parts import normal

H, HKV, DIM, BLOCK = 6, 2, 16, 4


def best(q: Tensor, keys: Tensor, topk: int) -> tuple[Tensor, Tensor]:
    """In float64, by sorting all: keys [B, Hkv, S, D]."""
    k = keys.double().repeat_interleave(H // HKV, dim=1)
    product = q.double() @ k.transpose(-1, -2)
    order = product.argsort(dim=-1, descending=True)[..., :topk]
    return product.gather(-1, order), order


@pytest.mark.parametrize("n", [1, 5, 64, 203])
@pytest.mark.parametrize(("t", "topk"), [(1, 1), (3, 7), (70, 40), (1, 900)])
@pytest.mark.parametrize("step", [1, 2**19])
def test_they_are_those_of_the_largest_products(
    n: int, t: int, topk: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is worked on at once."""
    monkeypatch.setattr(key_topk, "STEP", step)
    q, k = normal(2, H, t, DIM), normal(n, 2, HKV, BLOCK, DIM, seed=1)
    keys = k.permute(1, 2, 0, 3, 4).flatten(2, 3)
    product, index = top_keys(q, [k], None, topk)
    want, order = best(q, keys, topk)
    assert index.shape == (2, H, t, min(topk, n * BLOCK))
    assert torch.equal(index, order)
    torch.testing.assert_close(product.double(), want, atol=1e-5, rtol=0)


def test_how_units_are_cut_into_runs_changes_no_bit() -> None:
    q, k = normal(1, H, 3, DIM), normal(50, 1, HKV, BLOCK, DIM, seed=1)
    whole = top_keys(q, [k], None, 9)
    for cuts in ([7, 43], [1, 1, 48], [49, 1]):
        for got, want in zip(top_keys(q, k.split(cuts), None, 9), whole, strict=True):
            assert torch.equal(got, want)


@pytest.mark.parametrize("kv_dtype", ["bf16", "int8", "fp8"])
def test_stored_keys_are_worth_their_codes(kv_dtype: str) -> None:
    q, k = normal(1, H, 3, DIM), normal(50, 1, HKV, BLOCK, DIM, seed=1)
    codes, scale = quantize(k, kv_dtype)
    product, index = top_keys(q, [codes], None if scale is None else [scale], 9)
    worth = dequantize(codes, scale, torch.float32).permute(1, 2, 0, 3, 4).flatten(2, 3)
    assert torch.equal(index, best(q, worth, 9)[1])
    picked = key_products(q, worth).gather(-1, index)
    torch.testing.assert_close(product, picked, atol=1e-5, rtol=0)


def test_of_no_keys_none_are_the_best() -> None:
    product, index = top_keys(normal(1, H, 3, DIM), [], None, 9)
    assert product.shape == index.shape == (1, H, 3, 0)
