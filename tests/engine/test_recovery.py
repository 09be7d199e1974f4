"""Recovery by LoRA: it learns the text, and is thrown away where it does not help."""

from __future__ import annotations

import pytest
import torch

from infllm.engine.errors import ConfigError
from infllm.engine.prune import PruneSettings, prune, recover
from infllm.engine.prune import recovery as module
from tests.engine.tiny_models import build, ids

pytest.importorskip("peft", reason="of the extra `recover`")
PERIOD = torch.tensor(ids(16)).repeat(64)  # 1,024 tokens that are easy to learn


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LENGTH", 32)
    monkeypatch.setattr(module, "RATE", 3e-3)


def pruned() -> object:
    model = build("llama", {"num_hidden_layers": 3}).requires_grad_(False)
    prune(model, PruneSettings(0.5, "l2", attention_layers=[1], mlp_layers=[1]))
    return model


def test_it_learns_and_is_merged() -> None:
    model = pruned()
    shapes = {name: x.shape for name, x in model.state_dict().items()}
    seen: list[int] = []
    better, told = recover(model, PERIOD, 0.05, told=lambda step, loss: seen.append(step))
    assert told.kept
    assert told.after < told.before
    assert (told.steps, told.tokens) == (len(seen), len(seen) * 4 * 32)
    assert {name: x.shape for name, x in better.state_dict().items()} == shapes
    assert not any(p.requires_grad for p in better.parameters())
    assert not better.training


def test_what_does_not_help_is_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = iter([1.0, 1.5])
    monkeypatch.setattr(module, "_loss", lambda model, examples: next(measured))
    model = pruned()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    same, told = recover(model, PERIOD, 0.01)
    assert not told.kept
    after = same.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(x, after[name]) for name, x in before.items())


def test_a_text_that_is_too_short_is_told() -> None:
    with pytest.raises(ConfigError, match="has 300 tokens, too few"):
        recover(pruned(), PERIOD[:300], 0.01)  # 384 are needed
