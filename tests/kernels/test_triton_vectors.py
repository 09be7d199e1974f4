"""Interpreted: rotation, appending to a ring and storage formats, against the references."""

from __future__ import annotations

import pytest
import torch

from infllm.kernels import quantize as formats
from infllm.kernels import rotate as rotation
from infllm.kernels import rotate_append as appending
from infllm.kernels.rotate import Layout, Rope
from infllm.kernels.triton.quantize import dequantize, quantize
from infllm.kernels.triton.rotate import rotate, rotate_append
from tests.kernels.parts import normal, rms_error


def rope(pairs: int, layout: Layout = "half") -> Rope:
    return Rope(1000.0 ** (-torch.arange(pairs, dtype=torch.float64) / max(1, pairs)), 1.1, layout)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize(("pairs", "d"), [(0, 16), (3, 16), (8, 16), (40, 80), (32, 128)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_rotation(layout: Layout, pairs: int, d: int, dtype: torch.dtype) -> None:
    turn = rope(pairs, layout)
    x = normal(2, 7, 3, d, dtype=dtype).transpose(1, 2)
    for positions in (torch.arange(7) + 10_000_000, torch.tensor(9), torch.arange(7)[None, None]):
        got = rotate(x, *turn.cos_sin(positions), layout)
        want = rotation.rotate(x, *turn.cos_sin(positions), layout)
        assert got.dtype == dtype
        torch.testing.assert_close(got, want, atol=2e-6 if dtype == torch.float32 else 2e-3, rtol=0)


@pytest.mark.parametrize("first", [0, 5, 1_000_003])
@pytest.mark.parametrize("pairs", [0, 8])
@pytest.mark.parametrize("t", [1, 7, 9])
def test_appending_to_a_ring(first: int, pairs: int, t: int) -> None:
    """Rows that new tokens do not reach keep what they held."""
    x, turn = normal(2, t, 3, 16).transpose(1, 2), rope(pairs)
    table = turn.cos_sin(first + torch.arange(t))
    rings = [normal(2, 2, 3, 9, 16, seed=4)[:, 0] for _ in range(2)]
    rotate_append(x, *table, rings[0], torch.tensor(first))
    appending.rotate_append(x, *table, rings[1], torch.tensor(first))
    torch.testing.assert_close(rings[0], rings[1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("kv_dtype", ["int8", "fp8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("d", [16, 80, 256])
def test_storage_formats(kv_dtype: str, dtype: torch.dtype, d: int) -> None:
    x = normal(3, 5, 7, d, dtype=dtype).transpose(0, 1)
    x[0, 0] = 0
    codes, scale = quantize(x, kv_dtype)
    want, want_scale = formats.quantize(x, kv_dtype)
    assert want_scale is not None
    assert codes.dtype == want.dtype
    assert torch.equal(scale, want_scale)
    same = codes.float() == want.float()
    if kv_dtype == "int8":
        assert same.all()
    else:
        # The interpreter (Triton 3.9) loses the carry of a mantissa that rounds up to the next
        # power of two, 31.9 becomes 16, and is off by a bit below 2**-6.
        assert same.float().mean() > 0.9
    got = dequantize(want, scale, dtype)
    assert got.dtype == dtype
    assert rms_error(got, formats.dequantize(want, want_scale, dtype)) < 1e-7
