"""Scaled rotations are inherited from the model; `base` and `distance_scale` replace them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from infllm.engine import attach
from infllm.engine.attachment import Attachment
from tests.engine.served import CHUNK, SMALL_MEMORY, assert_as_stock
from tests.engine.tiny_models import SERVED, build, ids

TEXT = ids(80)
ROOMY = {"model": {**SMALL_MEMORY, "n_local": 96, "kv_dtype": "fp32"}, "chunk_size": CHUNK}

SCALINGS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 500.0},
    "linear": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
    "yarn": {
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0,
        "original_max_position_embeddings": 64,
    },
    "llama3": {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
    },
    "longrope": {
        "rope_type": "longrope", "rope_theta": 10000.0, "factor": 4.0,
        "short_factor": [1.0 + 0.1 * i for i in range(8)],
        "long_factor": [2.0 + 0.5 * i for i in range(8)],
        "original_max_position_embeddings": 128,
    },
}  # fmt: skip


def scaled(name: str) -> Any:
    return build("llama", {**SERVED["llama"], "rope_parameters": SCALINGS[name]})


@torch.no_grad()
def stock_logits(model: Any, tokens: list[int]) -> torch.Tensor:
    return model(torch.tensor([tokens])).logits[0]


@pytest.mark.parametrize("policy", ["inf-llm", "stream-lm", "infinite-lm", "origin"])
@pytest.mark.parametrize("name", SCALINGS)
def test_in_the_window_it_is_the_stock_model(name: str, policy: str) -> None:
    stock = stock_logits(scaled(name), TEXT)
    with attach(scaled(name), config=ROOMY) as engine:
        session = engine.session(overrides={"type": policy})
        rows = [session.score(TEXT[:50]), session.score(TEXT[50:70])]
        rows.append(session.score(TEXT[70:], step=True))
    assert_as_stock(torch.cat(rows), stock)


def test_the_scalings_are_different_models() -> None:
    rows = [stock_logits(scaled(name), TEXT)[-1] for name in SCALINGS]
    for i, a in enumerate(rows):
        for b in rows[:i]:
            if not torch.equal(a, b):
                assert not torch.allclose(a, b, atol=1e-4)
    assert len({tuple(row.tolist()) for row in rows}) >= 5  # dynamic is plain while short


@pytest.mark.parametrize("name", ["yarn", "longrope"])
def test_an_attention_factor_is_part_of_the_rotation(name: str) -> None:
    model = scaled(name)
    with Attachment(model) as attachment:
        scale = model.model.rotary_emb.attention_scaling
        assert scale > 1.01
        for layer in attachment.layers:
            assert layer.rotary.rope.scale == pytest.approx(scale, rel=1e-5)


@pytest.mark.parametrize("name", SCALINGS)
def test_frequencies_are_those_of_the_model(name: str) -> None:
    model = scaled(name)
    with Attachment(model) as attachment:
        want = model.model.rotary_emb.inv_freq.double()
        for layer in attachment.layers:
            torch.testing.assert_close(layer.rotary.rope.freq, want, rtol=1e-6, atol=0)


def test_longrope_keeps_the_table_of_the_window() -> None:
    """Beyond its original length transformers changes all angles; distances in a window stay."""
    with attach(scaled("longrope"), config=ROOMY) as engine:
        session = engine.session(overrides={"type": "window"})
        session.read(ids(400, seed=1))
        session.end()
        short = SCALINGS["longrope"]["short_factor"]
        own = 10000.0 ** (-torch.arange(8, dtype=torch.float64) / 8)
        freq = engine.attachment.layers[0].rotary.rope.freq
        torch.testing.assert_close(freq, own / torch.tensor(short), rtol=1e-5, atol=0)


# ---- base and distance_scale -----------------------------------------------------------------


def with_settings(**settings: Any) -> torch.Tensor:
    config = {"model": {**ROOMY["model"], **settings}, "chunk_size": CHUNK}  # type: ignore[dict-item]
    with attach(build("llama", SERVED["llama"]), config=config) as engine:
        return engine.session().score(TEXT)


def test_base_replaces_the_models_own() -> None:
    stock = stock_logits(build("llama", SERVED["llama"]), TEXT)
    assert_as_stock(with_settings(base=10000.0), stock)
    other = stock_logits(scaled("default"), TEXT)  # a model of base 500
    assert_as_stock(with_settings(base=500.0), other)
    assert not torch.allclose(stock, other, atol=1e-3)


@pytest.mark.parametrize("factor", [4.0])
def test_distance_scale_is_linear_interpolation(factor: float) -> None:
    stock = stock_logits(scaled("linear"), TEXT)
    assert_as_stock(with_settings(distance_scale=1 / factor), stock)


def test_base_and_distance_scale_together() -> None:
    parameters = {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}
    model = build("llama", {**SERVED["llama"], "rope_parameters": parameters})
    assert_as_stock(with_settings(base=500.0, distance_scale=0.25), stock_logits(model, TEXT))
