"""Units that their keys' moments put first are scored by all keys (`unit_score: moments`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from infllm.engine.attachment import Call, Softmax
from infllm.engine.policies import InfLLM
from infllm.engine.units import lookup_by_keys
from infllm.engine.units import store as units_module
from infllm.kernels import unit_mass
from infllm.kernels.quantize import dequantize, quantize
from infllm.kernels.unit_moments import moment_mass, unit_moments, whole_moments
from tests.engine.served import Served, assert_same_state
from tests.engine.test_unit_score import (
    EXC,
    HKV,
    N_INIT,
    N_LOCAL,
    SCALE,
    SIZE,
    TEXT,
    TOPK,
    H,
    asked_beside,
    assert_is_oracle,
    document,
    feed,
    looked_up,
    lookups,
    memory,
    tokens,
)
from tests.engine.tiny_models import ids


@contextmanager
def few_candidates(n: int = 9) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookup_by_keys, "CANDIDATES", n * SIZE)
        patch.setattr(lookup_by_keys, "OF_TOPK", 1)
        patch.setattr(lookup_by_keys, "AS_QUICK", 1)
        patch.setattr(lookup_by_keys, "SHARE", 10**9)
        patch.setattr(lookup_by_keys, "STEP_SHARE", 10**9)
        yield


def test_where_all_are_candidates_moments_are_keys() -> None:
    qkv, calls = tokens(), [40, 40, 41, EXC, 1, 3]
    keys = lookups(memory(), qkv, calls)
    moments = lookups(memory(unit_score="moments"), qkv, calls)
    assert all(torch.equal(a.chosen, b.chosen) for a, b in zip(keys, moments, strict=True))


def test_candidates_grow_with_the_text() -> None:
    store: Any = SimpleNamespace(block_size=64, most=8)
    lengths = 10, 1024, 4096, 16384
    counts = [lookup_by_keys.n_candidates(store, n) for n in lengths]
    assert counts == [128, 256, 1024, 4096]
    of_steps = [lookup_by_keys.n_candidates(store, n, step=True) for n in (*lengths, 65536)]
    assert of_steps == [128, 128, 512, 768, 768]
    assert not lookup_by_keys.reads_all(store, 4096)
    assert lookup_by_keys.reads_all(store, 256)


@pytest.mark.parametrize("n_queries", [1, 5, EXC])
@pytest.mark.parametrize(
    "changes",
    [{}, {"perhead": True}, {"repr_heads": "group"}, {"kv_dtype": "int8"}, {"kv_dtype": "fp8"}],
    ids=str,
)
def test_the_best_by_moments_are_ranked_by_all_keys(
    changes: dict[str, Any], n_queries: int
) -> None:
    """Means and variances choose nine units; of the others nothing is known. Of parts of units, and
    of whole ones for a step."""
    qkv, stop = tokens(), 121
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units_module, "cpu_has_bfloat16", lambda: False)
        policy = document(memory(unit_score="moments", **changes), qkv, stop)
    units, rotary, m = policy.units, policy.layer.rotary, 9
    assert units is not None
    n = units.n
    assert n > m
    q = rotary.at(qkv[0][:, :, stop : stop + n_queries], N_LOCAL - 1).double()
    stored = qkv[1][:, :, N_INIT : N_INIT + n * SIZE].unflatten(2, (n, SIZE)).double()
    kept = dequantize(*quantize(stored.float(), policy.config.kv_dtype), torch.float32).double()
    mean, variance = unit_moments(stored.float())
    parts = mean.shape[3]
    if n_queries == 1:
        parts, (mean, variance) = 1, whole_moments(mean, variance)
    else:
        mean, variance = mean.flatten(2, 3), variance.flatten(2, 3)
    stored, kept = (x.repeat_interleave(H // HKV, dim=1) for x in (stored, kept))
    exact = torch.einsum("bhtd,bhnsd->bhtns", SCALE * q, kept).logsumexp(-1)
    with few_candidates(m):
        got, chosen = looked_up(policy, qkv, stop, stop + n_queries)
        beside = beside_of(policy, qkv, stop, stop + n_queries)
    for b in range(2):
        rough = moment_mass(q, beside, [mean], [variance], SIZE, SCALE, parts=parts)[b]
        best = rough.topk(m).indices
        norm = torch.logaddexp(exact[b][..., best].logsumexp(-1), beside[b])[..., None]
        want = torch.zeros(H, n, dtype=torch.float64)
        want[:, best] = (exact[b][..., best] - norm).exp().sum(1)
        want = want.view(got.shape[1], -1, n).sum(1)
        torch.testing.assert_close(got[b].double(), want, atol=1e-5, rtol=1e-4)
        first = want.topk(TOPK).indices.sort().values
        assert torch.equal(chosen[b], first.repeat_interleave(chosen.shape[1] // len(first), 0))


@pytest.mark.parametrize("changes", [{}, {"perhead": True}, {"kv_dtype": "int8"}], ids=str)
def test_what_a_question_put_first_is_ranked_by_its_steps(changes: dict[str, Any]) -> None:
    qkv = tokens()
    policy = document(memory(unit_score="moments", **changes), qkv, 121)
    with few_candidates(3):
        feed(policy, qkv, 121, 126)
        likely = policy.likely
        assert likely is not None
        assert likely.shape == (2, TOPK)
        step, _ = looked_up(policy, qkv, 126, 127)
        policy.likely = None
        alone, _ = looked_up(policy, qkv, 126, 127)
    for b in range(2):
        of_question = set(likely[b].tolist())
        ranked, by_itself = (set((x[b, 0] > 0).nonzero()[:, 0].tolist()) for x in (step, alone))
        assert of_question <= ranked
        assert len(ranked) == 3 + TOPK
        assert len(by_itself) == 3
        assert by_itself - of_question <= ranked


def test_a_text_that_goes_on_forgets_what_its_last_question_put_first() -> None:
    qkv = tokens()
    policy = document(memory(unit_score="moments"), qkv, 100)
    with few_candidates(3):
        feed(policy, qkv, 100, 105)
        assert policy.likely is not None
        feed(policy, qkv, 105, 105 + 2 * EXC)
    assert policy.likely is None


def beside_of(policy: InfLLM, qkv: tuple[Tensor, Tensor, Tensor], start: int, stop: int) -> Tensor:
    """[B, H, T] of all that the call attends beside units."""
    policy = policy.fork()
    policy.softmax = Softmax(SCALE)
    q, k, v = (x[:, :, start:stop] for x in qkv)
    policy.begin(q, k, v, Call(0, start))
    return unit_mass.dense_lse(asked_beside(policy, stop - start), SCALE).double()


def test_exact_positions_look_at_all_keys() -> None:
    qkv = tokens()
    policy = document(memory(unit_score="moments", far_position="exact"), qkv, 121)
    assert policy.units is not None
    assert policy.units.parts == 0
    with few_candidates():
        assert_is_oracle(policy, qkv, 121, 126)


def test_memories_with_moments_are_saved_and_opened(llama: Served, tmp_path: Path) -> None:
    with few_candidates(4):
        session = llama.session(unit_score="moments", kv_dtype="int8")
        session.read(TEXT)
        session.save(tmp_path)
        opened = llama.engine.open(
            tmp_path, overrides={"unit_score": "moments", "kv_dtype": "int8"}
        )
        question = ids(7, seed=3)
        assert torch.equal(opened.fork().score(question), session.fork().score(question))
        assert torch.equal(opened.score(TEXT[:3], step=True), session.score(TEXT[:3], step=True))
        assert_same_state(opened, session)


def test_what_a_question_put_first_is_saved_with_it(llama: Served, tmp_path: Path) -> None:
    with few_candidates(4):
        session = llama.session(unit_score="moments")
        session.read(TEXT)
        session.end()
        session.score(ids(7, seed=3))
        session.save(tmp_path)
        opened = llama.engine.open(tmp_path, overrides={"unit_score": "moments"})
        for policy in opened.policies.values():
            assert isinstance(policy, InfLLM)
            assert policy.likely is not None
        assert_same_state(opened, session)
        assert torch.equal(opened.score(TEXT[:3], step=True), session.score(TEXT[:3], step=True))
