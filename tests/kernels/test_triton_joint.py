"""Interpreted: all that a block of queries attends in one launch, against the reference.

float32 and float16: the interpreter's bfloat16 product is wrong.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from infllm.kernels import attend as dispatch
from infllm.kernels import partial_attention as reference
from infllm.kernels.partial_attention import Band, Part, State
from infllm.kernels.rotate import Layout, Rope
from infllm.kernels.triton.attend import attend
from infllm.kernels.triton.joint_attention import joint_attention, plan_of
from infllm.kernels.triton.turn_keys import turned
from tests.kernels.parts import Shape, normal, one_shot, rms_error

CLOSE = {torch.float32: 2e-6, torch.float16: 1e-3}  # relative RMS
ROPE = Rope(100.0 ** (-torch.arange(8, dtype=torch.float64) / 8))


def block(
    shape: Shape, *, near: int = 90, window: int = 60, init: int = 5, pages: int = 4,
    page: int = 8, waiting: int = 40, offset: int = 75, shift: Tensor | None = None,
) -> list[Part]:  # fmt: skip
    """Near keys, initial ones, units and waiting ones of a block; 0 leaves a part out.

    `offset`: of the first query from the first waiting key.
    """
    q, far = shape.query(), shape.query(seed=5)
    t = shape.t
    parts = []
    if near:
        band = Band(near - t if shift is None else 0, 0, window)
        parts.append(shape.dense(near, q, band=band, shift=shift))
    if init:
        parts.append(shape.dense(init, far, seed=12))
    if pages:
        parts.append(shape.paged(far, pages, page))
    if waiting:
        band = Band(offset, window)
        parts.append(shape.dense(waiting, far, seed=14, band=band, shift=shift))
    return parts


def check(
    parts: list[Part], softcap: float | None = None, sink: Tensor | None = None,
    before: State | None = None, splits: int | None = None, scale: float = 0.25,
) -> None:  # fmt: skip
    """Output, logsumexp and masses are those of the reference."""
    close = CLOSE[parts[0].q.dtype]
    plan = plan_of(parts, scale)
    assert plan is not None
    o, lse = joint_attention(plan, scale, softcap, sink, before, splits=splits)
    want, _ = dispatch.attend_reference(parts, scale, softcap, sink, before)
    assert o.dtype == want.dtype
    assert rms_error(o, want) < close
    states = [reference.partial_attention(part, scale, softcap) for part in parts]
    all_lse = [one for _, one in states]
    if before is not None:
        all_lse.append(before.lse)
    if sink is not None:
        all_lse.append(sink.float()[None, :, None].expand_as(lse))
    want_lse = torch.logsumexp(torch.stack(all_lse), dim=0)
    empty = want_lse.isneginf()
    assert torch.equal(lse.isneginf(), empty)
    assert empty.all() or rms_error(lse[~empty], want_lse[~empty]) < close


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("t", [1, 3, 70])
@pytest.mark.parametrize("splits", [None, 2, 3])
def test_all_parts_at_once(t: int, splits: int | None, dtype: torch.dtype) -> None:
    check(block(Shape(t=t, d=64, dtype=dtype)), splits=splits)


@pytest.mark.parametrize(
    "missing", [["near"], ["init"], ["pages"], ["waiting"], ["near", "init"],
                ["init", "pages", "waiting"], ["near", "pages", "waiting"]],
)  # fmt: skip
def test_parts_that_are_not_there(missing: list[str]) -> None:
    parts = block(Shape(t=9), **dict.fromkeys(missing, 0))
    check(parts)
    check(parts, splits=2)


@pytest.mark.parametrize("t", [1, 33])
def test_many_keys_over_many_programs(t: int) -> None:
    """Parts longer than one program's share, and shares of several parts."""
    parts = block(
        Shape(t=t), near=300, window=270, init=130, pages=3, page=128, waiting=270, offset=380
    )
    for splits in (1, 2, 5, 9):
        check(parts, splits=splits)


@pytest.mark.parametrize("offset", [59, 60, 65, 80, 120])
def test_tokens_that_wait_come_into_sight_one_by_one(offset: int) -> None:
    check(block(Shape(t=30), offset=offset, near=0))
    check(block(Shape(t=30), offset=offset))


@pytest.mark.parametrize("page", [8, 24, 32, 128])
def test_pages(page: int) -> None:
    check(block(Shape(t=5), pages=3, page=page))
    check(block(Shape(t=5), pages=3, page=page), splits=2)


@pytest.mark.parametrize("d", [16, 64, 80, 96, 128, 256])
def test_head_dimensions(d: int) -> None:
    check(block(Shape(t=9, d=d)), scale=d**-0.5)


@pytest.mark.parametrize(("h", "hkv"), [(4, 4), (4, 1), (6, 2), (7, 1)])
def test_groups_of_query_heads(h: int, hkv: int) -> None:
    for t in (1, 21):
        check(block(Shape(h=h, hkv=hkv, t=t)))


@pytest.mark.parametrize("sink", [None, [0.5, -2.0, 4.0, float("-inf")]])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_softcap_and_sink(softcap: float | None, sink: list[float] | None) -> None:
    logits = None if sink is None else torch.tensor(sink)
    for splits in (1, 2):
        check(block(Shape(t=9)), softcap, logits, splits=splits)


@pytest.mark.parametrize("at", [0, 5, 61, 100, 150, 260])
def test_a_window_shifted_by_what_the_device_knows(at: int) -> None:
    """As a decode step has it: rows behind the step's own are not there yet."""
    shift = torch.tensor([at])
    parts = block(Shape(t=1), near=300, window=60, waiting=100, offset=0, shift=shift)
    check(parts)
    check(parts, splits=3)


@pytest.mark.parametrize("softcap", [None, 3.0])
def test_a_state_to_go_on_from(softcap: float | None) -> None:
    """Near keys first, in a launch of their own, the far ones from where that ended."""
    near, *far = block(Shape(t=40), near=60, window=20)
    hidden = replace(near, band=Band(5 - 40, 0, 20))  # some queries see no near key
    for part in (near, hidden):
        state = State(*reference.partial_attention(part, 0.25, softcap))
        check(far, softcap, before=state)
        check(far, softcap, torch.tensor([0.5, -2.0, 4.0, 0.0]), before=state)
        want, _ = dispatch.attend_reference([part, *far], 0.25, softcap)
        got, _ = attend(far, 0.25, softcap, None, state)
        assert rms_error(got, want) < CLOSE[torch.float32]


def test_a_state_goes_into_launches_part_by_part() -> None:
    """Keys of each query head for itself are no kind of the joint kernel."""
    shape = Shape(t=9)
    near, init, *_ = block(shape)
    far = shape.paged(init.q, 2, 8, groups=4)
    assert plan_of([far], 0.25) is None
    state = State(*reference.partial_attention(near, 0.25))
    want, _ = dispatch.attend_reference([near, far], 0.25)
    got, _ = attend([far], 0.25, None, None, state)
    assert rms_error(got, want) < CLOSE[torch.float32]


def test_blocks_in_place_of_a_batch() -> None:
    """Keys as overlapping views, tables of each block, one tensor of initial keys for all."""
    e, t, window, step = 3, 10, 32, 10
    shape = Shape(t=t)
    rows_k, rows_v = shape.keys(window - 1 + e * step, 30)
    q = normal(e, 4, t, 16)
    far = normal(e, 4, t, 16, seed=3)

    def blocks(x: Tensor, n: int) -> Tensor:
        return x[0, :, : (e - 1) * step + n].unfold(1, n, step).permute(1, 0, 3, 2)

    n_near, n_waiting = window - 1 + t, t + 8
    near = Part(q, blocks(rows_k, n_near), blocks(rows_v, n_near), band=Band(window - 1, 0, window))
    waiting = Part(
        far, blocks(rows_k, n_waiting), blocks(rows_v, n_waiting), band=Band(window + 3, window)
    )
    k, v = (x.expand(e, -1, -1, -1) for x in shape.keys(5, 40))
    pool = [normal(9, 2, 8, 16, seed=seed) for seed in (50, 51)]
    table = torch.tensor([[[0, 2]], [[4, 5]], [[8, 1]]])
    parts = [near, Part(far, k, v), Part(far, *pool, table=table), waiting]
    check(parts)
    check(parts, splits=2)


def test_masses_follow_from_its_logsumexp() -> None:
    parts = block(Shape(t=9))
    parts[0] = replace(parts[0], mass="column")
    parts[2] = replace(parts[2], mass="page")
    got, masses = attend(parts, 0.25)
    want, want_masses = dispatch.attend_reference(parts, 0.25)
    assert rms_error(got, want) < CLOSE[torch.float32]
    for one, other in zip(masses, want_masses, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert rms_error(one, other) < CLOSE[torch.float32]


def test_it_is_the_softmax_over_all_keys() -> None:
    parts = block(Shape(t=6))
    got, _ = attend(parts, 0.25)
    assert rms_error(got, one_shot(parts, 0.25)[0]) < CLOSE[torch.float32]


def test_other_kinds_of_parts_are_not_planned() -> None:
    shape = Shape(t=3)
    near, init, units, waiting = block(shape)
    assert plan_of([near, init, units, waiting], 0.25) is not None
    assert plan_of([near, near], 0.25) is None
    assert plan_of([near, init], -0.25) is None
    assert plan_of([near, replace(init, q=shape.query(seed=9)), units], 0.25) is None
    assert plan_of([near, replace(waiting, band=Band(75, 61))], 0.25) is None
    assert plan_of([near, shape.paged(init.q, 2, 8, groups=4)], 0.25) is None
    assert plan_of([replace(near, band=Band(3, 1, 60))], 0.25) is None
    assert plan_of([replace(near, shift=torch.tensor([1])), waiting], 0.25) is None
    clock = torch.tensor([3, 4])
    near, waiting = (replace(part, shift=clock[:1]) for part in (near, waiting))
    assert plan_of([near, init, units, waiting], 0.25) is not None
    assert plan_of([near, replace(waiting, shift=clock[1:])], 0.25) is None


def test_tiles_are_chosen_and_not_tuned() -> None:
    """By rows, head dimension, dtype and card: the same in every process."""
    part = block(Shape(t=40, d=64))
    plan = plan_of(part, 0.25)
    assert plan is not None
    want, _ = joint_attention(plan, 0.25)
    for tile in ((16, 4, 2), (32, 4, 1), (64, 8, 2)):
        got, _ = joint_attention(plan, 0.25, tile=tile)
        assert rms_error(got, want) < CLOSE[torch.float32]


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("t", [1, 9])
@pytest.mark.parametrize("pairs", [8, 3])
def test_keys_at_positions_of_their_own_are_rotated_before(
    layout: Layout, t: int, pairs: int
) -> None:
    """Initial keys and units, as exact positions have them, also far away; then as any others."""
    shape = Shape(t=t)
    rope = Rope(100.0 ** (-torch.arange(pairs, dtype=torch.float64) / 8), 1.1, layout)
    near, init, units, waiting = block(shape)
    init = replace(init, rope=rope, first=torch.tensor(-1_000_003))
    units = replace(units, rope=rope, first=torch.tensor([[[-900_000, -56, -8, 40]]]), mass="page")
    parts = [near, init, units, waiting]
    assert plan_of([turned(part) for part in parts], 0.25) is not None
    got, masses = attend(parts, 0.25)
    want, want_masses = dispatch.attend_reference(parts, 0.25)
    assert rms_error(got, want) < 1e-5
    assert masses[2] is not None
    assert want_masses[2] is not None
    assert rms_error(masses[2], want_masses[2]) < 1e-5


def test_keys_of_each_head_and_codes_are_rotated_as_they_are_loaded() -> None:
    shape = Shape(t=3)
    apart = shape.paged(shape.query(), 2, 8, groups=4)
    apart = replace(apart, rope=ROPE, first=torch.zeros(1, 4, 2, dtype=torch.int64))
    assert turned(apart) is apart
    codes = replace(block(shape)[2], rope=ROPE, first=torch.zeros(1, 1, 4, dtype=torch.int64))
    codes = replace(codes, k_scale=torch.ones(8, 2, 8, 1), v_scale=torch.ones(8, 2, 8, 1))
    assert turned(codes) is codes
    plain = block(shape)[1]
    assert turned(plain) is plain


def test_blocks_rotate_their_units_each_by_its_own_table() -> None:
    shape = Shape(t=3)
    q = normal(2, 4, 3, 16)
    pool = [normal(9, 2, 8, 16, seed=seed) for seed in (50, 51)]
    table = torch.tensor([[[0, 2]], [[4, 2]]])
    first = torch.tensor([[[-80, -40]], [[-33, -8]]])
    part = Part(q, *pool, table=table, rope=ROPE, first=first)
    k, v = (x.expand(2, -1, -1, -1) for x in shape.keys(5, 40))
    init = Part(q, k, v, rope=ROPE, first=torch.tensor(-99))
    got, _ = attend([part, init], 0.25)
    assert rms_error(got, dispatch.attend_reference([part, init], 0.25)[0]) < 1e-5
