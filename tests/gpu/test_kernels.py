"""Every kernel on a GPU against float64, in each dtype: inputs are rounded, the truth is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from infllm.kernels.attend import attend
from infllm.kernels.dispatch import has_fp8
from infllm.kernels.partial_attention import Band, Part
from infllm.kernels.quantize import SCALED, dequantize, quantize
from infllm.kernels.rotate import Rope, rotate
from infllm.kernels.rotate_append import rotate_append
from infllm.kernels.unit_mass import dense_lse, unit_lse
from infllm.kernels.unit_topk import top_units, unit_scores
from tests.gpu.exact import exact_attention, to_device
from tests.kernels.parts import Shape, generator, normal, rms_error

# Relative RMS. Half precision: weights are rounded before they meet the values.
CLOSE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
FREQ = 100.0 ** (-torch.arange(8, dtype=torch.float64) / 8)


def check(
    parts: list[Part],
    device: torch.device,
    softcap: float | None = None,
    sink: Tensor | None = None,
) -> None:
    """Output and masses on the device are those of float64; nothing is left unwritten."""
    close = CLOSE[parts[0].q.dtype]
    scale = parts[0].q.shape[-1] ** -0.5
    there = [to_device(part, device) for part in parts]
    far_sink = None if sink is None else sink.to(device)
    o, masses = attend(there, scale, softcap, far_sink)
    want, _, want_masses = exact_attention(parts, scale, softcap, sink)
    assert o.dtype == parts[0].q.dtype
    assert rms_error(o.cpu(), want) < close
    for part, got, mass in zip(parts, masses, want_masses, strict=True):
        assert (got is None) == (part.mass is None)
        if got is not None:
            assert rms_error(got.cpu(), mass) < close


@pytest.mark.parametrize("d", [64, 80, 96, 128, 256])
@pytest.mark.parametrize("t", [1, 63])
def test_window_units_and_initial_keys(kernel_device, dtype, d: int, t: int) -> None:
    shape = Shape(h=4, hkv=1, t=t, d=d, dtype=dtype)
    q, far = shape.query(), shape.query(seed=5)
    check(
        [
            shape.dense(131, q, band=Band(131 - t, 0, 100), mass="column"),
            shape.dense(9, far, seed=30),
            shape.paged(far, 3, 32, mass="page"),
        ],
        kernel_device,
    )


@pytest.mark.parametrize("band", [Band(5, 4), Band(400, 100), Band(0, 9), Band(200, 30, 31)])
def test_bands(kernel_device, dtype, band: Band) -> None:
    shape = Shape(t=40, d=64, dtype=dtype)
    q = shape.query()
    check([shape.dense(330, q, band=band, mass="column"), shape.dense(1, q)], kernel_device)


@pytest.mark.parametrize(("h", "hkv"), [(4, 4), (6, 2), (7, 1)])
@pytest.mark.parametrize("groups", [1, None])
def test_groups_of_heads_and_tables_per_head(
    kernel_device, dtype, h: int, hkv: int, groups: int | None
) -> None:
    shape = Shape(h=h, hkv=hkv, t=21, d=64, dtype=dtype)
    check([shape.paged(shape.query(), 4, 8, groups=groups or h, mass="page")], kernel_device)


def test_blocks_of_a_chunk_as_a_batch(kernel_device, dtype) -> None:
    """Execution blocks side by side, their windows overlapping views of the same keys."""
    e, h, hkv, t, d, near = 3, 4, 2, 32, 64, 64
    q = normal(1, h, e * t, d, dtype=dtype).unflatten(2, (e, t))[0].transpose(0, 1)
    k, v = (normal(1, hkv, near + e * t, d, seed=i, dtype=dtype) for i in (1, 2))
    windows = [x[0].unfold(1, near + t, t)[:, :e].permute(1, 0, 3, 2) for x in (k, v)]
    assert windows[0].stride(0) == t * d  # views: nothing is copied
    pool = [normal(8, hkv, 16, d, seed=i, dtype=dtype) for i in (3, 4)]
    table = torch.stack([torch.randperm(8, generator=generator(i))[:2] for i in range(e)])[:, None]
    check(
        [
            Part(q, *windows, band=Band(near, 0, near), mass="column"),
            Part(q, *pool, table=table, mass="page"),
        ],
        kernel_device,
    )


@pytest.mark.parametrize("softcap", [None, 20.0])
@pytest.mark.parametrize("with_sink", [False, True])
def test_softcap_and_sink(kernel_device, dtype, softcap: float | None, with_sink: bool) -> None:
    shape = Shape(t=17, d=64, dtype=dtype)
    q = shape.query()
    sink = normal(4, seed=9) if with_sink else None
    check([shape.dense(70, q, mass="column"), shape.paged(q, 2, 16)], kernel_device, softcap, sink)


@pytest.mark.parametrize("kv_dtype", ["int8", "fp8"])
def test_keys_that_are_codes(kernel_device, dtype, kv_dtype: str) -> None:
    if kv_dtype == "fp8" and not has_fp8(kernel_device):
        pytest.skip("fp8 needs compute capability 8.9")
    shape = Shape(t=9, d=64, dtype=dtype)
    part = shape.paged(shape.query(), 3, 32, mass="page")
    (k, k_scale), (v, v_scale) = quantize(part.k, kv_dtype), quantize(part.v, kv_dtype)
    check([replace(part, k=k, v=v, k_scale=k_scale, v_scale=v_scale)], kernel_device)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("first", [0, 10_000_000])
def test_keys_rotated_while_loading(kernel_device, dtype, layout, first: int) -> None:
    shape = Shape(t=9, d=64, dtype=dtype)
    rope = Rope(FREQ, 1.2, layout)
    starts = torch.tensor([[[first, first + 64, first + 96]]])
    part = shape.paged(shape.query(), 3, 32, rope=rope, first=starts, mass="page")
    check([part], kernel_device)


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("n", [1, 65, 300])
def test_unit_scores(kernel_device, dtype, per_head: bool, n: int) -> None:
    query, index = normal(1, 3, 4, 64), normal(1, n, 4, 64, seed=1, dtype=dtype)
    got = unit_scores(query.to(kernel_device), index.to(kernel_device), per_head=per_head)
    want = torch.einsum("berd,bnrd->bern", query.to(dtype).double(), index.double())
    want = want if per_head else want.sum(dim=2, keepdim=True)
    assert rms_error(got.cpu(), want) < 1e-5  # products of rounded numbers, summed in float32


@pytest.mark.parametrize("n", [17, 5000])
def test_top_units(kernel_device, n: int) -> None:
    scores = 1 + torch.randperm(n, generator=generator(1)) * 2.0**-23
    got = top_units(scores.to(kernel_device)[None], 16)
    assert torch.equal(got.cpu()[0], scores.topk(16).indices.sort().values)


def test_lookup_by_all_keys(kernel_device, dtype) -> None:
    q, k = normal(1, 4, 5, 64, dtype=dtype), normal(6, 1, 2, 32, 64, seed=1, dtype=dtype)
    got = unit_lse(q.to(kernel_device), [k.to(kernel_device)], None, 0.125)
    wide = k[:, 0].double().repeat_interleave(2, dim=1)  # [n, H, block, D]
    want = torch.logsumexp(torch.einsum("htd,nhsd->htns", q[0].double(), wide) * 0.125, dim=-1)
    assert rms_error(got.cpu()[0], want) < CLOSE[dtype]
    shape = Shape(t=5, d=64, dtype=dtype)
    parts = [shape.dense(70, shape.query(), band=Band(65, 0, 50)), shape.dense(3, shape.query())]
    beside = dense_lse([to_device(part, kernel_device) for part in parts], 0.125)
    assert rms_error(beside.cpu(), exact_attention(parts, 0.125)[1]) < CLOSE[dtype]


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_rotation(kernel_device, dtype, layout) -> None:
    rope = Rope(FREQ, 1.0, layout)
    x = normal(1, 3, 50, 80, dtype=dtype)
    tables = rope.cos_sin(torch.arange(50))
    there = [table.to(kernel_device) for table in tables]
    want = rotate(x.double(), *tables, layout)
    assert rms_error(rotate(x.to(kernel_device), *there, layout).cpu(), want) < CLOSE[dtype]
    ring = torch.full((1, 3, 64, 80), float("nan"), dtype=dtype, device=kernel_device)
    rotate_append(x.to(kernel_device), *there, ring, torch.tensor(30, device=kernel_device), layout)
    rows = (30 + torch.arange(50)) % 64
    assert rms_error(ring.cpu()[:, :, rows], want) < CLOSE[dtype]
    untouched = sorted(set(range(64)) - set(rows.tolist()))
    assert bool(ring[:, :, untouched].isnan().all())


@pytest.mark.parametrize("kv_dtype", ["int8", "fp8"])
def test_codes_are_those_of_the_reference(kernel_device, dtype, kv_dtype: str) -> None:
    if kv_dtype == "fp8" and not has_fp8(kernel_device):
        pytest.skip("fp8 needs compute capability 8.9")
    if kv_dtype == "fp8" and kernel_device.type == "cpu":
        pytest.skip("the interpreter does not round to fp8 as a GPU does")
    x = normal(50, 80, dtype=dtype)
    codes, scale = quantize(x.to(kernel_device), kv_dtype)
    assert scale is not None
    largest = SCALED[kv_dtype][1]
    assert rms_error(scale.cpu(), x.double().abs().amax(dim=-1, keepdim=True) / largest) < 1e-6
    worth = dequantize(codes, scale, torch.float32).cpu()
    step = scale.cpu() * (0.5 if kv_dtype == "int8" else 16.0)
    assert bool(((worth - x.float()).abs() <= step * 1.001).all())
