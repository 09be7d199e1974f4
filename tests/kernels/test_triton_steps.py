"""Interpreted: the tokens of a decode step on the way to their rows, against the reference."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from infllm.kernels import take_step as reference
from infllm.kernels.rotate import Layout, Rope
from infllm.kernels.take_step import StepRows
from infllm.kernels.triton.take_step import take_step
from tests.kernels.parts import normal

ROOM = 12


def rope(pairs: int, layout: Layout) -> Rope:
    return Rope(100.0 ** (-torch.arange(pairs, dtype=torch.float64) / max(1, pairs)), 1.1, layout)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize(("pairs", "d"), [(0, 16), (3, 16), (8, 16), (40, 80)])
@pytest.mark.parametrize("t", [1, 3])
@pytest.mark.parametrize("kept", ["all", "no sums", "near alone"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_step_is_taken(
    layout: Layout, pairs: int, d: int, t: int, kept: str, dtype: torch.dtype
) -> None:
    q = normal(1, t, 4, d, dtype=dtype).transpose(1, 2)
    k, v = (normal(1, t, 2, d, seed=seed, dtype=dtype).transpose(1, 2) for seed in (1, 2))
    cos, sin = rope(pairs, layout).cos_sin(torch.arange(ROOM + 20))
    at = torch.tensor([7])
    rooms = [normal(1, 2, ROOM, d, seed=seed, dtype=dtype) for seed in range(3, 7)]
    sums = normal(1, 4, ROOM + 1, d, seed=8)
    rows = StepRows(*rooms, sums)
    if kept != "all":
        rows = replace(rows, sums=None, far=None if kept == "near alone" else rows.far)
    answers = []
    for version in (take_step, reference.take_step):
        mine = StepRows(*(copied(getattr(rows, f.name)) for f in fields(rows)))
        found = version(q, k, v, at, cos, sin, 25, mine, layout)
        assert all(x.dtype == dtype for x in found)
        answers.append([*found, *(getattr(mine, f.name) for f in fields(mine))])
    close = 2e-6 if dtype == torch.float32 else 4e-3
    for got, want in zip(*answers, strict=True):
        assert (got is None) == (want is None)
        if got is not None:
            torch.testing.assert_close(got, want, atol=close, rtol=0)
    untouched = [i for i in range(ROOM) if not 7 <= i < 7 + t]
    assert torch.equal(answers[0][2][:, :, untouched], rooms[0][:, :, untouched])


def copied(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.clone()


def test_rows_in_other_strides_are_refused() -> None:
    q, k = normal(1, 4, 1, 16), normal(1, 2, 1, 16)
    cos, sin = rope(8, "half").cos_sin(torch.arange(40))
    room = normal(1, 2, ROOM, 16)
    apart = room.transpose(1, 2).contiguous().transpose(1, 2)
    with pytest.raises(ValueError, match="strides"):
        take_step(q, k, k, torch.tensor([0]), cos, sin, 3, StepRows(room, apart, room))
