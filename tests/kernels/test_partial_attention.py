"""Bands, partial states and their merge."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infllm.kernels.merge_state import merge_state
from infllm.kernels.partial_attention import Band, Part, partial_attention
from tests.kernels.parts import Shape, normal, one_shot, rms_error, visible


@settings(max_examples=200, deadline=None, database=None)
@given(
    offset=st.integers(-8, 20), low=st.integers(0, 12), width=st.none() | st.integers(1, 12),
    t=st.integers(1, 9), n=st.integers(1, 14),
)  # fmt: skip
def test_a_band_shows_the_keys_within_its_distances(
    offset: int, low: int, width: int | None, t: int, n: int
) -> None:
    band = Band(offset, low, None if width is None else low + width)
    want = torch.tensor([[visible(band, i, j) for j in range(n)] for i in range(t)])
    assert torch.equal(band.visible(t, n, torch.device("cpu")), want)
    part = Shape(t=t).dense(n, Shape(t=t).query(), band=band)
    hidden = part.hidden()
    assert torch.equal(torch.zeros_like(want) if hidden is None else hidden, ~want)
    assert (hidden is None) == bool(want.all())
    moved = replace(part, band=replace(band, offset=offset - 5), shift=torch.tensor([5]))
    assert moved.hidden() is not None
    assert torch.equal(moved.hidden(), ~want)


def test_lse_is_the_logsumexp_of_the_visible_logits() -> None:
    shape = Shape(h=2, hkv=1, t=3)
    part = shape.dense(7, shape.query(), band=Band(4, 0, 3))
    _, lse = partial_attention(part, 0.25)
    logits = part.q[0].double() @ part.k[0].double().transpose(-1, -2) * 0.25
    shown = torch.tensor([[visible(part.band, i, j) for j in range(7)] for i in range(3)])
    want = torch.logsumexp(logits.masked_fill(~shown, float("-inf")), dim=-1)
    torch.testing.assert_close(lse[0].double(), want, atol=1e-5, rtol=0)


def test_a_query_without_keys_has_an_empty_state() -> None:
    shape = Shape(t=4)
    part = shape.dense(3, shape.query(), band=Band(0, 2))  # queries 0 and 1 see nothing
    o, lse = partial_attention(part, 0.25)
    assert (o[:, :, :2] == 0).all()
    assert lse[:, :, :2].isneginf().all()
    assert torch.isfinite(o).all()
    assert torch.isfinite(lse[:, :, 2:]).all()


@pytest.mark.parametrize("cuts", [[10], [1, 9], [3, 3, 4], [1] * 10])
def test_merged_states_are_the_state_of_all_keys(cuts: list[int]) -> None:
    shape = Shape(t=3)
    q = shape.query()
    k, v = shape.keys(10, seed=3)
    o, lse = partial_attention(Part(q, k, v), 0.25)
    pieces = zip(k.split(cuts, dim=2), v.split(cuts, dim=2), strict=True)
    merged, joint = merge_state([partial_attention(Part(q, a, b), 0.25) for a, b in pieces])
    torch.testing.assert_close(merged, o, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(joint, lse, atol=1e-6, rtol=1e-6)


def test_empty_states_merge_without_nan() -> None:
    empty = (torch.zeros(1, 2, 3, 4), torch.full((1, 2, 3), float("-inf")))
    full = (normal(1, 2, 3, 4), normal(1, 2, 3, seed=1))
    o, lse = merge_state([empty, empty])
    assert (o == 0).all()
    assert lse.isneginf().all()
    for states in ([empty, full], [full, empty], [empty, full, empty]):
        o, lse = merge_state(states)
        torch.testing.assert_close(o, full[0])
        torch.testing.assert_close(lse, full[1])


def test_merging_leaves_its_inputs_alone() -> None:
    states = [(normal(1, 2, 3, 4, seed=s), normal(1, 2, 3, seed=s + 9)) for s in range(3)]
    copies = [(o.clone(), lse.clone()) for o, lse in states]
    merge_state(states)
    for (o, lse), (o_before, lse_before) in zip(states, copies, strict=True):
        assert torch.equal(o, o_before)
        assert torch.equal(lse, lse_before)


def test_states_of_very_different_size_do_not_overflow() -> None:
    shape = Shape(t=2)
    q = shape.query()
    loud, quiet = shape.dense(4, 30 * q, seed=1), shape.dense(4, q, seed=3)
    o, _ = merge_state([partial_attention(p, 1.0) for p in (loud, quiet)])
    want, _ = one_shot([loud, quiet], 1.0)
    assert rms_error(o, want) < 1e-5
