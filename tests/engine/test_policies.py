"""Every policy computes its definition, for settings drawn at random."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from infllm.engine.attachment import Call, Layer, Rotary
from infllm.engine.config import ModelConfig
from infllm.engine.policies import InfLLM, make_policy, run_policy
from infllm.engine.policies.lookup_scores import Lookup
from infllm.engine.policies.representatives import Cut
from infllm.kernels.rotate import Rope
from tests.engine.reference import Reference

H, HKV, DIM, LENGTH = 4, 2, 8, 64
FREQ = 50.0 ** (-torch.arange(DIM // 2, dtype=torch.float64) / (DIM // 2))


def layer(sliding_window: int | None = None) -> Layer:
    rotary = Rotary(Rope(FREQ))
    return Layer(0, H, HKV, DIM, torch.device("cpu"), torch.float32, rotary, sliding_window)


def tokens(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    q = 2 * torch.randn(1, H, LENGTH, DIM, generator=g)
    k, v = torch.randn(2, 1, HKV, LENGTH, DIM, generator=g)
    return q, k, v


def run(cfg: ModelConfig, calls: list[int], seed: int) -> tuple[Tensor, list[Lookup | Cut]]:
    """o [N, H, D], and what inf-llm recorded."""
    q, k, v = tokens(seed)
    policy = make_policy(cfg, layer())
    if isinstance(policy, InfLLM):
        policy.record = []
    rows, start = [], 0
    for i, n in enumerate(calls):
        span = slice(start, start + n)
        call = Call(0, start, closes=i % 2 == 0)
        rows.append(
            run_policy(policy, q[:, :, span], k[:, :, span], v[:, :, span], call, DIM**-0.5)
        )
        start += n
    return torch.cat(rows, dim=1)[0], getattr(policy, "record", None) or []


@st.composite
def memories(draw: st.DrawFn) -> ModelConfig:
    n_local = draw(st.integers(4, 20))
    block_size = draw(st.integers(1, 6))
    exc = draw(st.integers(1, min(n_local, 9)))
    return ModelConfig(
        type="inf-llm", kv_dtype="fp32", n_init=draw(st.integers(0, 5)), n_local=n_local,
        block_size=block_size, exc_block_size=exc, topk=draw(st.integers(1, 5)),
        repr_topk=draw(st.integers(1, block_size)),
        repr_score=draw(st.sampled_from(["mass", "dot"])),
        repr_heads=draw(st.sampled_from(["query", "group"])),
        far_position=draw(st.sampled_from(["capped", "exact", "within"])),
        far_limit=draw(st.none() | st.integers(1, 60)),
        lookups=draw(st.sampled_from([None, None, "questions"])),
        question_topk=draw(st.none() | st.integers(1, 5)),
        perhead=draw(st.booleans()), max_cached_block=draw(st.integers(5, 9)),
        chunk_topk_calc=draw(st.none() | st.integers(exc, 4 * exc)),
        cache_strategy=draw(st.sampled_from(["lru", "fifo", "lru-s"])),
        unit_score="representatives",
    )  # fmt: skip


@st.composite
def call_lengths(draw: st.DrawFn) -> list[int]:
    lengths: list[int] = []
    while sum(lengths) < LENGTH:
        n = draw(st.sampled_from([1, 1, 2, 7, 16, 40]))
        lengths.append(min(n, LENGTH - sum(lengths)))
    return lengths


@settings(max_examples=25, deadline=None, database=None, derandomize=True)
@given(cfg=memories(), calls=call_lengths(), seed=st.integers(0, 100))
def test_inf_llm_is_its_definition(cfg: ModelConfig, calls: list[int], seed: int) -> None:
    got, record = run(cfg, calls, seed)
    q, k, v = tokens(seed)
    reference = Reference(cfg, FREQ, q[0], k[0], v[0])
    for i, n in enumerate(calls):
        reference.call(n, closes=i % 2 == 0)
    want = reference.trace
    looks = {r.start: r.chosen[0].tolist() for r in record if isinstance(r, Lookup)}
    assert looks == want.chosen
    cuts = [r for r in record if isinstance(r, Cut)]
    if cuts:
        score = torch.cat([c.score[0] for c in cuts], dim=1).transpose(0, 1).double()
        torch.testing.assert_close(score, torch.stack(want.score), atol=1e-4, rtol=1e-4)
        best = torch.cat([c.representatives[0] for c in cuts], dim=1).transpose(0, 1).tolist()
        assert [[set(head) for head in unit] for unit in best] == want.best
    assert len(want.best) == sum(c.score.shape[2] for c in cuts)
    torch.testing.assert_close(got.double(), torch.stack(want.o), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("policy", ["window", "stream-lm", "infinite-lm", "origin"])
@settings(max_examples=8, deadline=None, database=None, derandomize=True)
@given(
    n_local=st.integers(1, 20), n_init=st.integers(0, 5), calls=call_lengths(),
    seed=st.integers(0, 100),
)  # fmt: skip
def test_windows_are_their_definition(
    policy: str, n_local: int, n_init: int, calls: list[int], seed: int
) -> None:
    cfg = ModelConfig(type=policy, n_local=n_local, n_init=n_init)  # type: ignore[arg-type]
    got, _ = run(cfg, calls, seed)
    q, k, v = (x[0].double() for x in tokens(seed))
    turn = Reference(cfg, FREQ, q, k, v).turn
    turned = torch.stack([turn(k[:, j], j) for j in range(LENGTH)], dim=1)
    for p in range(LENGTH):
        near = range(max(0, p - n_local + 1), p + 1) if policy != "origin" else range(p + 1)
        init = (
            range(min(n_init, near.start)) if policy in ("stream-lm", "infinite-lm") else range(0)
        )
        for head in range(H):
            kv = head // (H // HKV)
            logits = [turned[kv, near] @ turn(q[head, p], p)]
            if policy == "stream-lm":
                far = turn(q[head, p], n_local + n_init - 1)
                logits.append(turned[kv, init] @ far)
            else:
                far = turn(q[head, p], n_local - 1)
                logits.append(k[kv, init] @ far)
            weight = torch.softmax(torch.cat(logits) * DIM**-0.5, dim=0)
            want = weight @ v[kv, [*near, *init]]
            torch.testing.assert_close(got[p, head].double(), want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["inf-llm", "stream-lm", "origin"])
def test_a_layer_made_for_a_window_keeps_it_whatever_the_policy(kind: str) -> None:
    cfg = ModelConfig(type=kind, n_local=20, exc_block_size=8)  # type: ignore[arg-type]
    q, k, v = tokens(0)
    policy = make_policy(cfg, layer(sliding_window=6))
    got = run_policy(policy, q, k, v, Call(0, 0), DIM**-0.5)
    plain, _ = run(ModelConfig(type="window", n_local=6), [LENGTH], 0)
    assert torch.equal(got[0], plain)


@pytest.mark.parametrize("kv_dtype", ["bf16", "fp16", "int8", "fp8"])
def test_smaller_units_change_little(kv_dtype: str) -> None:
    """All units are attended, so that no selection differs; what differs is their precision."""
    base = {
        "type": "inf-llm", "n_init": 2, "n_local": 8, "block_size": 4, "repr_topk": 2,
        "exc_block_size": 4, "topk": 32, "max_cached_block": 32,
    }  # fmt: skip
    exact, _ = run(ModelConfig(**base, kv_dtype="fp32"), [40, 30], 3)  # type: ignore[arg-type]
    got, _ = run(ModelConfig(**base, kv_dtype=kv_dtype), [40, 30], 3)  # type: ignore[arg-type]
    error = (got - exact).pow(2).mean().sqrt() / exact.pow(2).mean().sqrt()
    assert 0 < error < {"bf16": 1e-2, "fp16": 1e-3, "int8": 2e-2, "fp8": 6e-2}[kv_dtype]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "kind", ["inf-llm", "stream-lm", "infinite-lm", "sirllm", "window", "origin"]
)
def test_half_precision_models_give_nearly_the_same(kind: str, dtype: torch.dtype) -> None:
    cfg = ModelConfig(
        type=kind, n_init=2, n_local=8, block_size=4, repr_topk=2, exc_block_size=4, topk=32,
        max_cached_block=32, kv_dtype="bf16",
    )  # type: ignore[arg-type]  # fmt: skip
    exact, _ = run(cfg, [40, 30], 3)
    held = layer()
    half = Layer(0, H, HKV, DIM, held.device, dtype, held.rotary)
    policy = make_policy(cfg, half)
    q, k, v = (x.to(dtype) for x in tokens(3))
    got = run_policy(policy, q, k, v, Call(0, 0), DIM**-0.5)[0]
    assert got.dtype == dtype
    error = (got.float() - exact).pow(2).mean().sqrt() / exact.pow(2).mean().sqrt()
    assert error < 3e-2
