"""Latent attention (MLA): units hold what keys and values are made of, and answer the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from infllm.engine import Engine, attach
from infllm.engine.attachment import attachment
from infllm.engine.errors import MemoryFileError
from infllm.engine.units import lookup_by_keys
from tests.engine.served import CHUNK, SMALL_MEMORY, serve
from tests.engine.test_drafts import Oracle, reader, said
from tests.engine.tiny_models import SERVED, build, ids

pytestmark = pytest.mark.pinned  # not every transformers hands latents over
SMALL_LATENTS = {
    "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 16, "num_key_value_heads": 4,
}  # fmt: skip
KINDS = {
    "deepseek_v3": SERVED["deepseek_v3"],
    "minicpm3": {**SMALL_LATENTS, "dim_model_base": 64},
}
VARIANTS: list[dict[str, Any]] = [
    {"unit_score": "representatives"},
    {"unit_score": "moments"},
    {"unit_score": "keys", "far_position": "exact"},
    {"perhead": True, "repr_score": "dot"},
    {"unit_score": "moments", "cache_strategy": "lru-s", "keep_units": True},
]


def engine_of(kind: str, *, expanded: bool = False, **variant: Any) -> Engine:
    """`expanded`: as before latents were handed over."""
    with pytest.MonkeyPatch.context() as patch:
        if expanded:
            patch.setattr(attachment, "with_latents", lambda model, layers: layers)
        config = {"model": {**SMALL_MEMORY, **variant}, "chunk_size": CHUNK}
        engine = attach(build(kind, KINDS[kind]), config=config)
    assert all((layer.latents is None) == expanded for layer in engine.attachment.layers)
    return engine


def outputs(engine: Engine) -> tuple[Tensor, int]:
    """Logits of a question, steps and a fork behind a document; the host's bytes."""
    session = engine.session()
    session.read(ids(150))
    session.end()
    fork = session.fork()
    rows = [session.score(ids(9, seed=2)), session.score(ids(12, seed=3), step=True)]
    rows.append(fork.score(ids(40, seed=5)))
    return torch.cat(rows), session.stats.host_bytes


@pytest.fixture(autouse=True)
def few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup_by_keys, "CANDIDATES", 16)
    monkeypatch.setattr(lookup_by_keys, "AS_QUICK", 1)
    monkeypatch.setattr(lookup_by_keys, "SHARE", 10**9)
    monkeypatch.setattr(lookup_by_keys, "OF_TOPK", 4)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_latents_give_what_expanded_units_give(kind: str, variant: dict[str, Any]) -> None:
    with engine_of(kind, expanded=True, **variant) as engine:
        want, expanded = outputs(engine)
    with engine_of(kind, **variant) as engine:
        got, kept = outputs(engine)
        layer = engine.attachment.layers[0]
        assert layer.latents is not None
        assert kept * 2 * layer.n_kv_heads * layer.head_dim == expanded * layer.latents.size
    assert torch.equal(got, want)


@pytest.mark.parametrize("kv_dtype", ["int8", "fp8", "bf16"])
def test_latents_in_few_bits_are_as_good_as_what_is_made_of_them(kv_dtype: str) -> None:
    with engine_of("deepseek_v3") as engine:
        exact, _ = outputs(engine)
    errors = []
    for expanded in (True, False):
        with engine_of("deepseek_v3", expanded=expanded, kv_dtype=kv_dtype) as engine:
            errors.append(float((outputs(engine)[0] - exact).pow(2).mean().sqrt()))
    assert errors[1] < 2 * errors[0]


@pytest.mark.parametrize("kv_dtype", ["fp32", "int8"])
def test_a_memory_file_of_latents(kv_dtype: str, tmp_path: Path) -> None:
    with engine_of("deepseek_v3", kv_dtype=kv_dtype, unit_score="moments") as engine:
        session = engine.session()
        session.read(ids(150))
        session.end()
        session.save(tmp_path / "memory")
        assert session.stats.host_bytes == engine.estimate(150).host_bytes
        opened = engine.open(tmp_path / "memory", verify=True)
        for one in (session, opened):
            one.read(ids(50, seed=4))
        want, got = (one.score(ids(9, seed=2)) for one in (session, opened))
        assert torch.equal(got, want)
        want, got = (one.score(ids(9, seed=3), step=True) for one in (session, opened))
        assert torch.equal(got, want)
    with (
        engine_of("deepseek_v3", kv_dtype=kv_dtype, unit_score="moments", expanded=True) as engine,
        pytest.raises(MemoryFileError, match="latents") as told,
    ):
        engine.open(tmp_path / "memory")
    assert told.value.reason == "settings"


@pytest.mark.parametrize("branches", [True, False])
def test_drafted_steps_are_plain_ones(branches: bool) -> None:
    served = serve("deepseek_v3")
    with served.engine:
        plain, drafted = reader(served, {}), reader(served, {})
        want = said(plain, 24)
        oracle = Oracle(want, seed=3, branches=branches)
        assert said(drafted, 24, drafts=oracle) == want
        assert oracle.tried
        rows = [session.score(ids(5, seed=4), step=True) for session in (drafted, plain)]
        torch.testing.assert_close(*rows)  # products of several rows round otherwise


def test_a_model_is_left_as_it_was() -> None:
    with engine_of("deepseek_v3") as engine:
        attention = engine.model.model.layers[0].self_attn
        assert "expand_kv" in vars(attention)
    assert "expand_kv" not in vars(attention)


def test_what_keys_are_not_made_of_is_not_kept() -> None:
    model = build("deepseek_v3", KINDS["deepseek_v3"])
    for layer in model.model.layers:
        shift = layer.self_attn.kv_b_proj
        shift.bias = torch.nn.Parameter(torch.ones(shift.out_features), requires_grad=False)
    with attach(model, config={"model": SMALL_MEMORY, "chunk_size": CHUNK}) as engine:
        assert all(layer.latents is None for layer in engine.attachment.layers)
        assert engine.attachment.limits == [
            "latent attention (MLA): memories keep keys and values expanded, 512 bytes a token in "
            "bfloat16; its latents would be 96"
        ]
