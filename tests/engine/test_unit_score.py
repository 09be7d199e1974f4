"""Short calls score a unit by the attention mass that all its keys receive (`unit_score: keys`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from infllm.engine.attachment import Call, Layer, Rotary, Softmax
from infllm.engine.config import ModelConfig
from infllm.engine.errors import ConfigError
from infllm.engine.policies import InfLLM, make_policy, run_policy
from infllm.engine.policies.lookup_scores import Lookup
from infllm.engine.units import lookup_by_keys
from infllm.engine.units import store as units_module
from infllm.kernels import unit_mass
from infllm.kernels.partial_attention import Part
from infllm.kernels.quantize import dequantize, quantize
from infllm.kernels.rotate import Rope
from tests.engine.served import FEW, Served, assert_same_state, pieces
from tests.engine.tiny_models import ids

TEXT = ids(93)  # of sessions
H, HKV, DIM, LENGTH = 4, 2, 8, 150
FREQ = 50.0 ** (-torch.arange(DIM // 2, dtype=torch.float64) / (DIM // 2))
SIZE, TOPK, N_LOCAL, N_INIT, EXC = 4, 3, 16, 3, 8
SCALE = 0.3  # not DIM**-0.5: the layer's own scale counts


def layer(scale: float = 1.0) -> Layer:
    rotary = Rotary(Rope(FREQ, scale))
    return Layer(0, H, HKV, DIM, torch.device("cpu"), torch.float32, rotary)


def memory(**changes: Any) -> ModelConfig:
    base = {
        "type": "inf-llm", "kv_dtype": "fp32", "n_init": N_INIT, "n_local": N_LOCAL,
        "block_size": SIZE, "exc_block_size": EXC, "topk": TOPK, "repr_topk": 2,
        "max_cached_block": 8, "unit_score": "keys",
    }  # fmt: skip
    return ModelConfig(**{**base, **changes})


def tokens(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    q = 2 * torch.randn(2, H, LENGTH, DIM, generator=g)
    k, v = torch.randn(2, 2, HKV, LENGTH, DIM, generator=g)
    return q, k, v


def feed(policy: InfLLM, qkv: tuple[Tensor, Tensor, Tensor], start: int, stop: int) -> None:
    q, k, v = (x[:, :, start:stop] for x in qkv)
    run_policy(policy, q, k, v, Call(0, start), SCALE)


def document(
    cfg: ModelConfig, qkv: tuple[Tensor, Tensor, Tensor], stop: int, scale: float = 1.0
) -> InfLLM:
    policy = make_policy(cfg, layer(scale))
    assert isinstance(policy, InfLLM)
    feed(policy, qkv, 0, stop)
    assert policy.units is not None
    assert policy.units.n > TOPK
    return policy


def looked_up(
    policy: InfLLM, qkv: tuple[Tensor, Tensor, Tensor], start: int, stop: int, **softmax: Any
) -> tuple[Tensor, Tensor]:
    """Masses [B, G, n] and the chosen units [B, G, topk] of a call with tokens start to stop - 1.

    On a fork: the policy stays as it was.
    """
    policy = policy.fork()
    assert policy.units is not None
    n = policy.units.n
    policy.softmax = Softmax(SCALE, **softmax)
    q, k, v = (x[:, :, start:stop] for x in qkv)
    policy.begin(q, k, v, Call(0, start))
    beside = asked_beside(policy, stop - start)
    masses = policy.key_scores(beside, n).exp()
    assert policy.chosen is not None
    return masses, policy.chosen


def asked_beside(policy: InfLLM, n_queries: int) -> list[Part]:
    """What the lookup of the call under way is told that its queries attend beside units."""
    with pytest.MonkeyPatch.context() as patch:
        look_up, beside = policy.look_up, []
        patch.setattr(policy, "look_up", lambda a, z, p: beside.extend(p) or look_up(a, z, p))
        policy.parts(0, n_queries)
    return beside


def oracle(
    policy: InfLLM, qkv: tuple[Tensor, Tensor, Tensor], start: int, stop: int,
    softcap: float | None = None, sink: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """float64 [B, H, n]: one dense softmax over all tokens so far, added up unit by unit."""
    cfg, rope = policy.config, policy.layer.rotary.rope
    assert policy.units is not None
    n = policy.units.n

    def turned(x: Tensor, position: Tensor) -> Tensor:
        cos, sin = (table.double() for table in rope.cos_sin(position))
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)

    q, k, _ = (x.double() for x in qkv)
    k = k.clone()
    units = slice(N_INIT, N_INIT + n * SIZE)
    k[:, :, units] = dequantize(*quantize(k[:, :, units], cfg.kv_dtype), torch.float32).double()
    k = k.repeat_interleave(H // HKV, dim=1)
    place = torch.arange(LENGTH)
    zero = torch.zeros(LENGTH, dtype=torch.int64)
    near_q, near_k = turned(q, place), turned(k, place)
    far_q, far_k = turned(q, zero + N_LOCAL - 1), turned(k, zero)
    if cfg.far_position == "exact":
        far_q, far_k = near_q, near_k
    total = torch.zeros(*q.shape[:2], n, dtype=torch.float64)
    for p in range(start, stop):
        near = place > p - N_LOCAL
        near &= place >= units.stop
        logits = torch.where(
            near,
            (near_q[:, :, p, None] * near_k).sum(-1),
            (far_q[:, :, p, None] * far_k).sum(-1),
        )[:, :, : p + 1]
        logits = SCALE * logits
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        if sink is not None:
            column = sink.double()[None, :, None].expand(logits.shape[0], -1, 1)
            logits = torch.cat([logits, column], dim=-1)
        weight = torch.softmax(logits, dim=-1)
        total += weight[:, :, units].unflatten(-1, (n, SIZE)).sum(-1)
    return total


def assert_is_oracle(
    policy: InfLLM, qkv: tuple[Tensor, Tensor, Tensor], start: int, stop: int, **softmax: Any
) -> None:
    got, chosen = looked_up(policy, qkv, start, stop, **softmax)
    want = oracle(policy, qkv, start, stop, **softmax)
    want = want.view(2, got.shape[1], -1, want.shape[-1]).sum(dim=2)
    torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=1e-4)
    best = want.topk(TOPK, dim=-1).indices.sort(dim=-1).values
    assert torch.equal(chosen, best.repeat_interleave(chosen.shape[1] // best.shape[1], dim=1))


@contextmanager
def small_steps() -> Iterator[None]:
    """Slabs of 2, 4, 8 units; two or three units and a query or two at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units_module, "FIRST_SLAB", 2)
        patch.setattr(units_module, "LARGEST_SLAB", 8)
        patch.setattr(lookup_by_keys, "LSE_VALUES", 500)
        patch.setattr(unit_mass, "STEP", 3 * SIZE * HKV * DIM)
        yield


# ---- the definition -------------------------------------------------------------------------


@pytest.mark.parametrize(("n_queries", "small"), [(1, False), (EXC, False), (5, True)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"perhead": True},
        {"perhead": True, "repr_heads": "group"},
        {"far_position": "exact"},
        {"kv_dtype": "int8"},
        {"kv_dtype": "fp8"},
        {"kv_dtype": "bf16"},
        {"repr_score": "dot"},
    ],
    ids=str,
)
def test_masses_are_those_of_a_dense_softmax(
    changes: dict[str, Any], n_queries: int, small: bool
) -> None:
    qkv = tokens()
    if not small:
        assert_is_oracle(document(memory(**changes), qkv, 121), qkv, 121, 121 + n_queries)
        return
    with small_steps():
        policy = document(memory(**changes), qkv, 121)
        assert policy.units is not None
        assert len(policy.units.views) > 3
        assert_is_oracle(policy, qkv, 121, 121 + n_queries)


@pytest.mark.parametrize("far", ["capped", "exact"])
def test_with_tables_that_scale_soft_capping_and_sinks(far: str) -> None:
    qkv = tokens()
    policy = document(memory(far_position=far), qkv, 121, scale=1.3)
    softmax = {"softcap": 2.0, "sink": torch.tensor([1.0, -2.0, 3.0, 0.5])}
    assert_is_oracle(policy, qkv, 121, 127, **softmax)


def test_forks_score_their_own_units() -> None:
    one = tokens()
    ends = [x[:, :, 90:] for x in tokens(seed=5)]
    other = tuple(torch.cat([x[:, :, :90], end], 2) for x, end in zip(one, ends, strict=True))
    with small_steps():
        parent = document(memory(), one, 90)
        child = parent.fork()
        feed(parent, one, 90, 130)
        feed(child, other, 90, 120)
        assert_is_oracle(parent, one, 130, 135)
        assert_is_oracle(child, other, 120, 125)


def test_units_far_behind_keep_their_order() -> None:
    """A mass of e^-300 is nothing in float32; its logarithm still ranks."""
    lse = torch.tensor([-300.0, -310.0, -290.0]).view(1, 1, 1, 3)
    got = unit_mass.log_mass(lse, torch.zeros(1, 1, 1), 1)
    assert got.flatten().argsort().tolist() == [1, 0, 2]


# ---- when it applies ------------------------------------------------------------------------


def lookups(cfg: ModelConfig, qkv: tuple[Tensor, Tensor, Tensor], calls: list[int]) -> list[Lookup]:
    policy = make_policy(cfg, layer())
    assert isinstance(policy, InfLLM)
    policy.record = []
    start = 0
    for n in calls:
        feed(policy, qkv, start, start + n)
        start += n
    return [x for x in policy.record if isinstance(x, Lookup)]


def test_calls_of_several_blocks_keep_the_representatives() -> None:
    qkv = tokens()
    calls = [40, 40, 40, EXC, 1]
    keys = lookups(memory(), qkv, calls)
    plain = lookups(memory(unit_score="representatives"), qkv, calls)
    assert [x.start for x in keys] == [x.start for x in plain]
    same = [torch.equal(a.chosen, b.chosen) for a, b in zip(keys, plain, strict=True)]
    assert all(same[:-2])
    assert not any(same[-2:])


def test_a_fact_of_one_token_is_found() -> None:
    """Its unit is noise otherwise, and one word of the question asks for it."""
    q, k, v = tokens()
    fact = torch.zeros(DIM)
    fact[-1] = 1.0  # the slowest pair: turned little
    unit = 7
    k[:, :, N_INIT + unit * SIZE + 2] = 12 * fact
    # The document never looks at it, so that no representative is made of it.
    q[:, :, :121, DIM - 1] = -q[:, :, :121, DIM - 1].abs()
    q[:, :, 124] = 6 * fact
    q[:, :, 125] = -4 * fact
    q[:, :, 126] = -3 * fact
    calls = [121, 6]
    last = lookups(memory(), (q, k, v), calls)[-1]
    plain = lookups(memory(unit_score="representatives"), (q, k, v), calls)[-1]
    assert (last.chosen == unit).any(dim=-1).all()
    assert not (plain.chosen == unit).any()


def test_held_units_still_come_first() -> None:
    qkv = tokens()
    question, step = lookups(memory(keep_units=True), qkv, [121, 6, 1])[-2:]
    for held, chosen in zip(
        question.chosen[:, 0].tolist(), step.chosen[:, 0].tolist(), strict=True
    ):
        assert set(held) < set(chosen)
        assert len(chosen) == 2 * TOPK


def test_grouped_lookups_choose_among_what_their_group_sees() -> None:
    cfg = memory(chunk_topk_calc=2 * EXC)
    policy = document(cfg, tokens(), 121)
    n = policy.visible = 20
    policy.record = []
    q, k, v = (x[:, :, 121:127] for x in tokens())
    run_policy(policy, q, k, v, Call(EXC, 121), SCALE)  # the second block of a group
    (look,) = [x for x in policy.record if isinstance(x, Lookup)]
    assert look.n_units == n
    assert int(look.chosen.max()) < n


@pytest.mark.parametrize("how", ["keys", "moments"])
def test_not_with_faiss(how: str) -> None:
    with pytest.raises(ConfigError, match="unit_score"):
        make_policy(memory(faiss=True, unit_score=how), layer())


# ---- sessions -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variant",
    [{"keep_units": True}, {"perhead": True, "chunk_topk_calc": 16, "kv_dtype": "int8"},
     {"unit_score": "moments", "kv_dtype": "bf16"}],
    ids=str,
)  # fmt: skip
@FEW
@given(cuts=st.lists(st.integers(0, len(TEXT)), max_size=6))
def test_cuts_change_nothing(llama: Served, variant: dict[str, Any], cuts: list[int]) -> None:
    session = llama.session(**{"unit_score": "keys", **variant})
    whole = llama.session(**{"unit_score": "keys", **variant})
    whole.read(TEXT)
    for piece in pieces(TEXT, cuts):
        session.read(piece)
    assert_same_state(session, whole)
    question = ids(7, seed=3)
    assert torch.equal(session.score(question), whole.score(question))
    assert torch.equal(session.score(TEXT[:3], step=True), whole.score(TEXT[:3], step=True))
    assert_same_state(session, whole)


def test_generated_tokens_tell_their_units(llama: Served) -> None:
    session = llama.session(unit_score="keys", cache_strategy="lru-s")
    session.read(TEXT)
    made = list(session.fork().generate(4, units=True))
    assert [t.id for t in made] == [t.id for t in session.generate(4)]
    assert all(token.units for token in made)
