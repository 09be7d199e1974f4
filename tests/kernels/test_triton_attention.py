"""Interpreted: partial attention, the mass of keys, merging; each against its reference.

float32 and float16: the interpreter's bfloat16 product is wrong.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from infllm.kernels import attend as dispatch
from infllm.kernels import merge_state as merging
from infllm.kernels import partial_attention as reference
from infllm.kernels.partial_attention import Band, Part
from infllm.kernels.quantize import quantize
from infllm.kernels.rotate import Layout, Rope
from infllm.kernels.triton import arguments
from infllm.kernels.triton.attend import attend
from infllm.kernels.triton.merge_state import merge_state, merge_states
from infllm.kernels.triton.part_mass import part_mass
from infllm.kernels.triton.partial_attention import SPLIT, partial_attention
from tests.kernels.parts import Shape, normal, one_shot, rms_error

CLOSE = {torch.float32: 2e-6, torch.float16: 1e-3}  # relative RMS


def check(part: Part, scale: float = 0.25, softcap: float | None = None, splits: int = 1) -> None:
    """State and masses of a part equal the reference's."""
    close = CLOSE[part.q.dtype]
    o, lse = partial_attention(part, scale, softcap, splits=splits)
    want_o, want_lse = reference.partial_attention(part, scale, softcap)
    assert o.dtype == lse.dtype == torch.float32
    assert o.shape == want_o.shape
    empty = want_lse.isneginf()
    assert torch.equal(lse.isneginf(), empty)
    assert rms_error(o, want_o) < close
    assert empty.all() or rms_error(lse[~empty], want_lse[~empty]) < close
    for form in ("column", "page") if part.table is not None else ("column",):
        asked = replace(part, mass=form)
        got = part_mass(asked, want_lse, scale, softcap)
        want = reference.part_mass(asked, want_lse.masked_fill(empty, 0.0), scale, softcap)
        assert got.shape == want.shape
        assert rms_error(got, want) < close


@pytest.mark.parametrize("n", [1, 7, 63, 65, 300])
@pytest.mark.parametrize("t", [1, 3, 70])
def test_window_at_awkward_sizes(n: int, t: int) -> None:
    shape = Shape(t=t)
    part = shape.dense(n, shape.query(), band=Band(n - t, 0, max(1, n // 3)))
    check(part)
    if n > SPLIT:
        check(part, splits=2)


@pytest.mark.parametrize(
    "band", [Band(0, 0), Band(5, 4), Band(-3, 0), Band(400, 100), Band(0, 9), Band(200, 30, 31)]
)
def test_bands(band: Band) -> None:
    """Also those that hide all keys from some queries, or from all."""
    shape = Shape(t=40)
    check(shape.dense(330, shape.query(), band=band))
    check(shape.dense(330, shape.query(), band=band), splits=2)


@pytest.mark.parametrize("at", [0, 5, 200, 299, 320])
@pytest.mark.parametrize("band", [Band(0, 0, 64), Band(0, 64), Band(3, 0)])
def test_a_band_shifted_by_what_the_device_knows(band: Band, at: int) -> None:
    """As a decode step has it: room for 300 keys, of which those behind the query are not there."""
    for t, splits in ((1, 2), (9, 1)):
        shape = Shape(t=t)
        part = shape.dense(300, shape.query(), band=band, shift=torch.tensor([at]))
        check(part, splits=splits)


@pytest.mark.parametrize("n", [1, 5, 70])
def test_keys_of_each_query_head_for_itself(n: int) -> None:
    """One query with its own keys a head, beside keys that the heads of a group share."""
    shape = Shape(t=1)
    apart = Shape(hkv=4, t=1).dense(n, shape.query(seed=3), mass="column")
    check(apart)
    parts = [shape.dense(40, shape.query(), band=Band(39, 0, 30)), apart]
    got, masses = attend(parts, 0.25)
    want, want_masses = dispatch.attend_reference(parts, 0.25)
    assert rms_error(got, want) < CLOSE[torch.float32]
    assert masses[1] is not None
    assert want_masses[1] is not None
    assert rms_error(masses[1], want_masses[1]) < CLOSE[torch.float32]


@pytest.mark.parametrize("d", [16, 64, 80, 96, 128, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_head_dimensions(d: int, dtype: torch.dtype) -> None:
    shape = Shape(t=9, d=d, dtype=dtype)
    q = shape.query()
    check(shape.dense(70, q, band=Band(61, 0, 50)), d**-0.5)
    check(shape.paged(q, 3, 16), d**-0.5)


@pytest.mark.parametrize(("h", "hkv"), [(4, 4), (4, 1), (6, 2), (7, 1), (8, 1)])
@pytest.mark.parametrize("t", [1, 21])
def test_groups_of_query_heads(h: int, hkv: int, t: int) -> None:
    shape = Shape(h=h, hkv=hkv, t=t)
    q = shape.query()
    check(shape.dense(50, q, band=Band(50 - t, 0, 20)))
    check(shape.paged(q, 4, 8))
    check(shape.paged(q, 4, 8, groups=h))


@pytest.mark.parametrize("page", [8, 24, 32, 128])
@pytest.mark.parametrize("n", [1, 3])
def test_pages(page: int, n: int) -> None:
    shape = Shape(t=5)
    check(shape.paged(shape.query(), n, page))
    if n * page > SPLIT:
        check(shape.paged(shape.query(), n, page), splits=2)
    check(shape.paged(shape.query(), n, page, groups=4))


def test_values_of_another_dimension() -> None:
    shape = Shape(t=5, d=64)
    q = shape.query()
    part = shape.dense(40, q)
    check(replace(part, v=normal(1, 2, 40, 24, seed=3)))


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("sink", [False, True])
def test_parts_share_one_softmax(softcap: float | None, sink: bool) -> None:
    shape = Shape(h=6, hkv=2, t=5, d=80)
    near, far = 3 * shape.query(0), shape.query(1)
    parts = [
        shape.dense(37, near, seed=10, band=Band(32, 0, 16), mass="column"),
        shape.dense(4, far, seed=12),
        shape.paged(far, n_pages=3, page=8, seed=14, mass="page"),
        shape.dense(22, far, seed=16, band=Band(32, 16)),
    ]
    logits = 8 + normal(6, seed=5) if sink else None
    o, masses = attend(parts, 0.25, softcap, logits)
    want, weights = one_shot(parts, 0.25, softcap, logits)
    assert rms_error(o, want) < CLOSE[torch.float32]
    assert masses[1] is None
    assert rms_error(masses[0][0], weights[0].sum(dim=1)) < 1e-5
    assert rms_error(masses[2][0], weights[2].sum(dim=1).view(6, 3, 8).sum(dim=-1)) < 1e-5


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("pairs", [3, 8])
def test_keys_rotated_while_loading(layout: Layout, pairs: int) -> None:
    """Whole and partial rotation, far to the left of the origin, of pages and of dense keys."""
    shape = Shape(t=3)
    rope = Rope(100.0 ** (-torch.arange(pairs, dtype=torch.float64) / pairs), 1.1, layout)
    q = shape.query()
    for groups in (1, 4):
        first = -10_000_000 - 37 * torch.arange(groups * 3).view(1, groups, 3)
        check(replace(shape.paged(q, 3, 8, groups=groups), rope=rope, first=first))
    check(replace(shape.paged(q, 3, 64), rope=rope, first=first[:, :1]))
    check(replace(shape.dense(70, q), rope=rope, first=torch.tensor(-2000)))
    check(replace(shape.dense(70, q), rope=rope))


@pytest.mark.parametrize("kv_dtype", ["int8", "fp8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_stored_codes_are_dequantised_while_loading(kv_dtype: str, dtype: torch.dtype) -> None:
    shape = Shape(t=5, d=64, dtype=dtype)
    q = shape.query()
    rope = Rope(100.0 ** (-torch.arange(32, dtype=torch.float64) / 32))
    for part in (
        shape.dense(70, q, band=Band(65, 0, 40)),
        shape.paged(q, 3, 24),
        replace(shape.paged(q, 2, 64), rope=rope, first=torch.tensor([[[-500, -300]]])),
    ):
        (k, k_scale), (v, v_scale) = quantize(part.k, kv_dtype), quantize(part.v, kv_dtype)
        check(replace(part, k=k, v=v, k_scale=k_scale, v_scale=v_scale))


def test_strided_keys_and_queries() -> None:
    """Views of larger tensors, as the engine gives them: nothing is copied, nothing mixed up."""
    q = normal(2, 9, 4, 16).transpose(1, 2)
    slots = normal(6, 2, 2, 8, 16, seed=1)
    table = torch.tensor([[[5, 0, 2]], [[1, 4, 4]]])
    check(Part(q, slots[:, 0], slots[:, 1], table=table))
    kv = normal(2, 60, 2, 32, seed=2).transpose(1, 2)
    check(Part(q, kv[:, :, 7:, :16], kv[:, :, 7:, 16:], band=Band(44, 0, 30)))
    with pytest.raises(ValueError, match="k: the stride of its last dimension is 2"):
        partial_attention(Part(q, kv[..., ::2], kv[..., ::2]), 0.25)


def test_a_larger_block() -> None:
    """Several tiles of rows and of keys, clear ones and edges on both sides."""
    shape = Shape(h=4, hkv=2, t=150, d=64)
    check(shape.dense(450, shape.query(), band=Band(300, 0, 200)), 0.125)


def test_merging_states() -> None:
    states = [(normal(1, 3, 7, 80, seed=s), normal(1, 3, 7, seed=s + 9)) for s in range(4)]
    empty = torch.zeros(1, 3, 7, 80), torch.full((1, 3, 7), float("-inf"))
    for some in (states, [*states, empty], [empty, *states], states[:1], [empty, empty]):
        o, lse = merge_state(some)
        want, want_lse = merging.merge_state(some)
        torch.testing.assert_close(o, want)
        torch.testing.assert_close(lse, want_lse)


def test_a_sink_is_a_state_without_a_value() -> None:
    o, lse, sink = normal(2, 1, 3, 7, 16), normal(2, 1, 3, 7, seed=1), normal(3, seed=2)
    states = [(o[i], lse[i]) for i in range(2)]
    drain = torch.zeros(1, 3, 7, 16), sink[None, :, None].expand(1, 3, 7)
    want, want_lse = merging.merge_state([*states, drain])
    got, got_lse = merge_states(o, lse, sink)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(got_lse, want_lse)


def test_the_environment_chooses_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = Shape(t=3)
    parts = [shape.dense(20, shape.query(), band=Band(17, 0, 9))]
    asked: list[str] = []

    def spy(name: str) -> Any:
        return lambda *args: (asked.append(name), [None])

    monkeypatch.setattr("infllm.kernels.dispatch._triton", {"attend": spy("triton")})
    monkeypatch.setattr("infllm.kernels.attend_cpu._attend_fused", spy("torch"))
    dispatch.attend(parts, 0.25)
    for name in ("triton", "torch"):
        monkeypatch.setenv("INFLLM_KERNELS", name)
        dispatch.attend(parts, 0.25)
    assert asked == ["torch", "triton", "torch"]


def test_keys_are_shared_where_few_programs_would_leave_processors_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arguments, "processors", lambda device: 132)
    device = torch.device("cpu")
    assert [arguments.shares(n, device, 26) for n in (1, 8, 16, 66, 67, 128, 512)] == [
        26, 26, 16, 4, 1, 1, 1,
    ]  # fmt: skip
    assert arguments.shares(8, device, 3) == 3
    assert arguments.shares(8, device, 0) == 1
