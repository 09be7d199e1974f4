"""Importances, what is removed, and logits afterwards, as the authors' code gave them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from infllm.engine.prune import prune
from infllm.engine.prune.groups import attention_groups, mlp_groups
from infllm.engine.prune.importance import gradients, importance
from tests.engine.pruned import CASES, load

BLOCKS = [name for name, raw in CASES.items() if raw["config"]["mode"] == "block"]


def all_close(found: Tensor, recorded: Tensor) -> bool:
    return bool(((found - recorded).abs() <= 1e-4 * recorded.abs()).all())


@pytest.mark.parametrize("name", BLOCKS)
def test_importance(name: str) -> None:
    case = load(name)
    model, settings = case.model(), case.settings
    groups = [*attention_groups(model), *mlp_groups(model)]
    weights = [weight for group in groups for weight in group.weights]
    grads = gradients(model, weights, case.calibration, squared=True)
    found = [
        importance(g, settings.criterion, settings.aggregates_by, grads, settings.official)
        for g in groups
    ]
    n = len(found) // 2
    assert all_close(torch.stack(found[:n]), case.arrays["importance_heads"])
    assert all_close(torch.stack(found[n:]), case.arrays["importance_channels"])
    if "loss" in case.arrays:
        assert grads.loss == pytest.approx(float(case.arrays["loss"][-1]), abs=1e-5)
    assert all(weight.grad is None and not weight.requires_grad for weight in weights)


def test_importance_of_the_residual_stream() -> None:
    case = load("lp-mha__channel_param_first")
    removal = prune(case.model(), case.settings, case.calibration)
    (found,) = removal.scores.values()
    assert all_close(found, case.arrays["importance_hidden"])


@pytest.mark.parametrize("name", CASES)
def test_what_is_removed_and_logits_afterwards(name: str) -> None:
    case = load(name)
    model = case.model()
    removal = prune(model, case.settings, case.calibration)
    assert removal.removed == {group: case.removed(group) for group in removal.removed}
    assert list(removal.parameters) == case.raw["parameters"]
    with torch.no_grad():
        logits = model(case.questions).logits
    assert (logits - case.arrays["logits_pruned"]).abs().max() <= 1e-4


@pytest.mark.parametrize("name", ["vectorize", "param_first", "param_mix"])
def test_the_published_fault_scores_other_heads(name: str) -> None:
    """So that the two kinds of recorded cases tell the two ways apart."""
    right, fault = load(f"lp-gqa__{name}"), load(f"lp-gqa__{name}_original")
    assert not all_close(right.arrays["importance_heads"], fault.arrays["importance_heads"])
    assert right.settings.official is False
    assert fault.settings.official is True


def test_what_stays_keeps_its_values_to_the_bit() -> None:
    case = load("lp-gqa__param_mix")
    before, after = case.model(), case.model()
    removal = prune(after, case.settings, case.calibration)
    width = 8
    for layer, (a, b) in enumerate(zip(before.model.layers, after.model.layers, strict=True)):
        gone = removal.removed[f"attention of layer {layer}"]
        kv = [i for i in range(4) if i not in gone]
        rows = [h * width + i for h in kv for i in range(width)]
        queries = [(2 * h + r) * width + i for h in kv for r in range(2) for i in range(width)]
        assert torch.equal(a.self_attn.k_proj.weight[rows], b.self_attn.k_proj.weight)
        assert torch.equal(a.self_attn.v_proj.weight[rows], b.self_attn.v_proj.weight)
        assert torch.equal(a.self_attn.q_proj.weight[queries], b.self_attn.q_proj.weight)
        assert torch.equal(a.self_attn.o_proj.weight[:, queries], b.self_attn.o_proj.weight)
        channels = [i for i in range(64) if i not in removal.removed[f"MLP of layer {layer}"]]
        assert torch.equal(a.mlp.up_proj.weight[channels], b.mlp.up_proj.weight)
        assert torch.equal(a.mlp.down_proj.weight[:, channels], b.mlp.down_proj.weight)
