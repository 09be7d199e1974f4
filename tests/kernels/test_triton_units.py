"""Interpreted: lookup of units, by representatives and by all keys, against the references."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from infllm.kernels import unit_mass as mass_reference
from infllm.kernels import unit_topk as reference
from infllm.kernels.partial_attention import Band, Part
from infllm.kernels.quantize import quantize
from infllm.kernels.rotate import Rope
from infllm.kernels.triton.unit_mass import dense_lse, unit_lse
from infllm.kernels.triton.unit_topk import slab_scores, top_places, top_units, unit_scores
from infllm.kernels.unit_topk import Slabs
from tests.kernels.parts import generator, normal, rms_error


@pytest.mark.parametrize("n", [1, 7, 65, 300])
@pytest.mark.parametrize("blocks", [1, 3, 17])
@pytest.mark.parametrize("per_head", [False, True])
def test_unit_scores(n: int, blocks: int, per_head: bool) -> None:
    query = normal(2, blocks, 3, 80)
    index = normal(n, 2, 3, 80, seed=1).transpose(0, 1)  # as a slab gives it
    got = unit_scores(query, index, per_head=per_head)
    want = reference.unit_scores(query, index, per_head=per_head)
    assert got.dtype == torch.float32
    assert got.shape == want.shape
    assert rms_error(got, want) < 1e-6


def test_scores_of_a_half_precision_index_are_summed_in_float32() -> None:
    query, index = normal(1, 2, 8, 64), normal(1, 40, 8, 64, seed=1).half()
    want = reference.unit_scores(query.half().double(), index.double())
    assert rms_error(unit_scores(query, index), want) < 1e-5
    assert rms_error(reference.unit_scores(query, index), want) > 1e-4


def test_no_units_have_no_scores() -> None:
    assert unit_scores(normal(1, 2, 3, 16), normal(1, 0, 3, 16)).shape == (1, 2, 1, 0)


@given(n=st.integers(1, 70), k=st.integers(1, 75), seed=st.integers(0, 1000))
def test_top_units(n: int, k: int, seed: int) -> None:
    scores = 10 * torch.randn(2, 3, n, generator=generator(seed))
    assert torch.equal(top_units(scores, k), reference.top_units(scores, k))


@given(n=st.integers(2, 60), k=st.integers(1, 59), seed=st.integers(0, 1000))
def test_of_equal_units_the_first_are_taken(n: int, k: int, seed: int) -> None:
    values = torch.tensor([-float("inf"), -1.5, -0.0, 0.0, 2.0, float("inf")])
    scores = values[torch.randint(6, (n,), generator=generator(seed))]
    key = [(-s, s == 0 and str(s)[0] == "-", i) for i, s in enumerate(scores.tolist())]
    want = sorted(sorted(range(n), key=lambda i: key[i])[:k])
    assert top_units(scores, k).tolist() == want


def test_top_units_of_many() -> None:
    """More than one tile; scores that differ in their last bits only."""
    scores = 1 + torch.randperm(9000, generator=generator(1)) * 2.0**-23
    assert torch.equal(top_units(scores, 77), reference.top_units(scores, 77))


@pytest.mark.parametrize("kv_dtype", ["fp32", "int8", "fp8"])
@pytest.mark.parametrize("rotated", [False, True])
def test_unit_lse(kv_dtype: str, rotated: bool) -> None:
    """Two runs of units in the strides of a slab, of which keys and values are one tensor."""
    q = normal(2, 6, 5, 80)
    rope = Rope(100.0 ** (-torch.arange(40, dtype=torch.float64) / 40)) if rotated else None
    codes, scale = quantize(normal(5, 2, 2, 2, 24, 80, seed=1), kv_dtype)
    runs = [codes[:3, :, 0], codes[3:, :, 0]]
    scales = None if scale is None else [scale[:3, :, 0], scale[3:, :, 0]]
    for softcap in (None, 5.0):
        got = unit_lse(q, runs, scales, 0.2, softcap, rope, -700)
        want = mass_reference.unit_lse(q, runs, scales, 0.2, softcap, rope, -700)
        assert rms_error(got, want) < 1e-6


@pytest.mark.parametrize(("block", "t"), [(1, 1), (8, 1), (65, 3), (128, 1)])
def test_unit_lse_at_awkward_sizes(block: int, t: int) -> None:
    q, k = normal(1, 4, t, 16), normal(3, 1, 1, block, 16, seed=1)
    got = unit_lse(q, [k], None, 0.25)
    assert rms_error(got, mass_reference.unit_lse(q, [k], None, 0.25)) < 1e-6


@pytest.mark.parametrize("sink", [False, True])
def test_dense_lse(sink: bool) -> None:
    q = normal(1, 4, 5, 16)
    parts = [
        Part(q, normal(1, 2, n, 16, seed=n), normal(1, 2, n, 16), band=band)
        for n, band in ((30, Band(25, 0, 20)), (3, None))
    ]
    logits = normal(4, seed=9) if sink else None
    got = dense_lse(parts, 0.25, 5.0, logits)
    assert rms_error(got, mass_reference.dense_lse(parts, 0.25, 5.0, logits)) < 1e-6


@pytest.mark.parametrize("sizes", [[5], [64, 128], [64, 7, 130, 64]])
@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("limit", [None, 60])
def test_scores_of_several_slabs(sizes: list[int], per_head: bool, limit: int | None) -> None:
    """One behind the other, each where it happens to lie; a block sees those made before it."""
    query = normal(1, 3, 2, 64)
    slabs = Slabs([normal(n, 1, 2, 64, seed=n + i) for i, n in enumerate(sizes)])
    n = sum(sizes)
    most = None if limit is None else torch.tensor([limit])
    how = {"limit": most, "growth": 2, "per_head": per_head}
    got = slab_scores(query, slabs, n - 5, **how)
    want = reference.slab_scores(query, slabs, n - 5, **how)
    assert got.shape == want.shape
    hidden = want.isneginf()
    assert torch.equal(got.isneginf(), hidden)
    assert rms_error(got[~hidden], want[~hidden]) < 1e-6
    dense = torch.cat(list(slabs.runs)).transpose(0, 1)
    alone = reference.unit_scores(query, dense, per_head=per_head)
    assert rms_error(got[~hidden], alone[~hidden]) < 1e-6
    for e in range(3):
        seen = n - 5 + 2 * e if limit is None else min(limit, n - 5 + 2 * e)
        assert torch.equal(hidden[0, e, 0], torch.arange(n) >= seen)


@given(n=st.integers(9, 70), k=st.integers(1, 8), seed=st.integers(0, 1000))
def test_top_units_and_their_places(n: int, k: int, seed: int) -> None:
    scores = torch.randn(1, 1, n, generator=generator(seed))
    places = torch.randint(-1 if seed % 2 else 0, 5, (n,), generator=generator(seed))
    answers = []
    for version in (top_places, reference.top_places):
        told = torch.full((1 + k,), 77)
        answers.append((*version(scores, k, places, told), told))
    for got, want in zip(*answers, strict=True):
        assert torch.equal(got, want)
    assert torch.equal(answers[0][0], reference.top_units(scores, k))
