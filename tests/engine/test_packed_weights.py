"""Linear layers in few bits on a CPU: what they are worth, what reading sees of them, undoing."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from infllm.engine import attach, load
from infllm.engine.attachment import best_form, packed_weights, refuse_packed
from infllm.engine.attachment.loading import _load_model
from infllm.engine.attachment.packed_weights import PackedLinear, has_int8, pack_steps
from infllm.engine.config import Config
from infllm.engine.errors import ConfigError
from tests.engine.tiny_models import SERVED, build

IDS = [i * 7 % 96 for i in range(80)]
pytestmark = pytest.mark.skipif(not has_int8(), reason="this torch has no int8 kernels for x86")


@pytest.fixture
def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(64, 48).requires_grad_(False)


def config(**settings: Any) -> Config:
    model = {"n_local": 32, "n_init": 4, "block_size": 8, "topk": 2, "exc_block_size": 16}
    return Config.model_validate({"model": {**model, **settings}, "chunk_size": 32})


@pytest.mark.parametrize("form", ["int8", "int4"])
def test_a_packed_layer_is_worth_what_its_codes_say(layer: nn.Linear, form: Any) -> None:
    packed = PackedLinear(layer, form)
    worth = packed.packed.dense(torch.float32)
    # Half a step of rounding: of 255 over the row's range, of 15 over the group's.
    groups = layer.weight.unflatten(1, (-1, 32))
    span = groups.amax(-1, keepdim=True) - groups.amin(-1, keepdim=True)
    step = {"int8": layer.weight.abs().amax(1, keepdim=True) / 127,
            "int4": (span / 15).expand_as(groups).flatten(1)}[form]  # fmt: skip
    slack = 0.0 if form == "int8" else 0.01 * float(groups.abs().max())  # scales in bfloat16
    assert bool(((worth - layer.weight).abs() <= step / 2 * 1.001 + slack).all())
    x = torch.randn(5, 64)
    assert torch.allclose(packed(x), x @ worth.T + layer.bias, atol=1e-5)
    # One row: the row itself is rounded too, to 7 or 8 bits, or to bfloat16.
    one = packed(x[:1])
    assert one.shape == (1, 48)
    assert one.dtype == torch.float32
    error = (one - (x[:1] @ worth.T + layer.bias)).norm() / one.norm()
    assert 0 < error < 0.03


@pytest.mark.parametrize("outputs", [128, 48])
def test_int4_is_unpacked_as_the_kernel_multiplies(outputs: int) -> None:
    layer = nn.Linear(96, outputs, bias=False).requires_grad_(False)
    packed = PackedLinear(layer, "int4").packed
    each = torch.cat([packed.row(one).float() for one in torch.eye(96).split(1)]).T
    torch.testing.assert_close(packed.dense(torch.float32), each, atol=1e-3, rtol=2**-8)


def test_a_shape_that_int4_does_not_take_goes_to_int8() -> None:
    layer = nn.Linear(20, 7).requires_grad_(False)
    worth = PackedLinear(layer, "int4").packed.dense(torch.float32)
    assert torch.allclose(worth, layer.weight, atol=float(layer.weight.abs().max()) / 200)


def test_steps_alone_are_packed_and_closing_undoes_it() -> None:
    model = build("llama", SERVED["llama"])
    before = {name: x.clone() for name, x in model.state_dict().items()}
    with attach(model, config=config(weights="full"), check=False) as engine:
        session = engine.session()
        session.read(IDS)
        exact = session.fork().score([5, 6, 7, 8])
        steps = session.fork().score([5, 6, 7, 8], step=True)
        key = session.key
    with attach(model, config=config(weights="packed"), check=False) as engine:
        session = engine.session()
        session.read(IDS)
        assert torch.equal(session.fork().score([5, 6, 7, 8]), exact)
        assert session.key == key  # a memory read with either is the same
        rounded = session.fork().score([5, 6, 7, 8], step=True)
        assert not torch.equal(rounded, steps)
        assert float((rounded - steps).norm() / steps.norm()) < 0.05
    assert not any("forward" in vars(one) for one in model.modules())
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


@pytest.mark.parametrize("form", ["int8", "int4"])
def test_a_model_with_nothing_but_packed_weights(tmp_path: Path, form: Any) -> None:
    """It reads as a model whose weights are what the packed ones are worth."""
    build("llama", SERVED["llama"]).save_pretrained(tmp_path)
    path = {"model.path": str(tmp_path), "model.dtype": "float32"}
    chosen = config().with_overrides({**path, "model.weights": form})
    model = _load_model(chosen.model, torch.device("cpu"), torch.float32)
    worth = _load_model(config(weights="full", **bare(path)).model, model.device, torch.float32)
    for one in worth.modules():
        if type(one) is nn.Linear:
            of_it = "int8" if one is worth.get_output_embeddings() else form
            one.weight = nn.Parameter(PackedLinear(one, of_it).packed.dense(torch.float32), False)
    found = []
    for of, settings in ((model, chosen), (worth, config(weights="full"))):
        with attach(of, config=settings) as engine:  # which compares it with itself, unattached
            session = engine.session()
            session.read(IDS)
            found.append((session.key, session.score([5, 6, 7, 8])))
    (key, logits), (other, expected) = found
    assert key != other
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


def bare(settings: dict[str, Any]) -> dict[str, Any]:
    return {key.removeprefix("model."): value for key, value in settings.items()}


def test_what_measured_best_is_taken_for_large_models_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = build("llama", SERVED["llama"])
    assert best_form(model) is None
    monkeypatch.setattr(packed_weights, "SMALL", 1000)
    assert best_form(model) == "packed"
    monkeypatch.setattr(packed_weights, "has_int8", lambda: False)
    assert best_form(model) is None
    with pytest.raises(ConfigError, match="fbgemm"):
        pack_steps(copy.deepcopy(model))


def test_packed_weights_are_refused_elsewhere() -> None:
    with pytest.raises(ConfigError, match="CPU"):
        refuse_packed("int8", torch.device("cuda"))
    with pytest.raises(ConfigError, match="given"):
        attach(build("llama", SERVED["llama"]), config=config(weights="int4"))
    with pytest.raises(ConfigError, match="weights"):
        load("pocket", overrides={"model.weights": "int5"})
