"""Removing what matters least, in one step or in several with new gradients in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from infllm.engine.errors import ConfigError
from infllm.engine.prune.groups import (
    Group,
    attention_groups,
    mlp_groups,
    refuse_joint_norms,
    stream_group,
)
from infllm.engine.prune.importance import (
    SECOND_ORDER,
    WITHOUT_GRADIENTS,
    Aggregation,
    Criterion,
    Gradients,
    gradients,
    importance,
    lowest,
    random_importance,
)


@dataclass(frozen=True)
class PruneSettings:
    """What is removed, and how it is chosen. `aggregation` None: mean for l1 and l2, else sum.

    `attention_layers`, `mlp_layers`: which layers lose heads and channels; None: `spared` leaves
    the first and the last ones as published. `group`: `blocks`, heads and channels layer by layer,
    or `hidden`, the residual stream of the whole model.
    """

    ratio: float
    criterion: Criterion = "element1"
    aggregation: Aggregation | None = None
    group: Literal["blocks", "hidden"] = "blocks"
    attention_layers: Sequence[int] | None = None
    mlp_layers: Sequence[int] | None = None
    everywhere: bool = False  # one list over all groups, else each group loses its share
    steps: int = 1
    official: bool = False
    seed: int = 0

    @property
    def needs_text(self) -> bool:
        """Whether importance comes from gradients."""
        return self.ratio > 0 and self.criterion not in WITHOUT_GRADIENTS

    @property
    def aggregates_by(self) -> Aggregation:
        if self.aggregation is not None:
            return self.aggregation
        return "mean" if self.criterion in ("l1", "l2") else "sum"


@dataclass
class Removal:
    """What was measured and removed. Indices are those of the model as it was given."""

    scores: dict[str, Tensor] = field(default_factory=dict)  # float32 [units], of the first step
    removed: dict[str, list[int]] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)  # nats a token on the text, before each step
    parameters: tuple[int, int] = (0, 0)  # before, after


def spared(n_layers: int) -> list[int]:
    """Layers that are pruned by default: as published, 4 to 29 of 32, in proportion."""
    if n_layers < 4:
        return list(range(n_layers))
    first, last = max(1, round(n_layers / 8)), max(1, round(n_layers / 16))
    return list(range(first, n_layers - last))


def prune(
    model: PreTrainedModel, settings: PruneSettings, sequences: Tensor | None = None
) -> Removal:
    """Prune `model` in place. `sequences`: int64 [n, T], where the criterion takes gradients.

    What stays keeps its values. Raises ConfigError, and UnsupportedModel for layers of another form
    than Llama's.
    """
    if not 0 <= settings.ratio < 1:
        raise ConfigError(f"a ratio of {settings.ratio} is not a share from 0 to below 1")
    if settings.steps < 1:
        raise ConfigError(f"pruning takes at least one step, not {settings.steps}")
    if settings.needs_text and sequences is None:
        raise ConfigError(f"{settings.criterion} needs text to take gradients of")
    before = count_parameters(model)
    groups = _groups(model, settings)
    if not groups:
        raise ConfigError("no layer is left to prune", "name some, e.g. --layers all")
    original = {group.name: group.units for group in groups}
    alive = {group.name: torch.arange(group.units) for group in groups}
    generator = torch.Generator().manual_seed(settings.seed)
    done = Removal()
    for step in range(1, settings.steps + 1):
        scores = _scores(model, groups, settings, sequences, generator, done)
        done.scores = done.scores or scores
        share = settings.ratio * step / settings.steps
        widths = {group.name: group.width for group in groups}
        doomed = lowest(scores, original, widths, share, settings.everywhere)
        for group in groups:
            alive[group.name] = _remove(group, doomed[group.name], alive[group.name])
    for group in groups:
        left = set(alive[group.name].tolist())
        done.removed[group.name] = [i for i in range(original[group.name]) if i not in left]
        done.kept[group.name] = group.units
    done.parameters = before, count_parameters(model)
    return done


def _scores(
    model: PreTrainedModel,
    groups: Sequence[Group],
    settings: PruneSettings,
    sequences: Tensor | None,
    generator: torch.Generator,
    done: Removal,
) -> dict[str, Tensor]:
    if settings.criterion == "random":
        return random_importance(groups, generator)
    grads = Gradients()
    if settings.needs_text and sequences is not None:
        weights = [weight for group in groups for weight in group.weights]
        squared = settings.criterion in SECOND_ORDER
        grads = gradients(model, weights, sequences, squared)
        done.losses.append(grads.loss)
    return {
        group.name: importance(
            group, settings.criterion, settings.aggregates_by, grads, settings.official
        ).cpu()
        for group in groups
    }


def _remove(group: Group, doomed: Tensor, alive: Tensor) -> Tensor:
    if not len(doomed):
        return alive
    stays = torch.ones(group.units, dtype=torch.bool)
    stays[doomed] = False
    kept = stays.nonzero().flatten()
    group.keep(kept.to(group.weights[0].device))
    return alive[kept]


def _groups(model: Any, settings: PruneSettings) -> list[Group]:
    if settings.group == "hidden":
        return [stream_group(model)]
    n = model.config.num_hidden_layers
    attention = spared(n) if settings.attention_layers is None else settings.attention_layers
    mlp = spared(n) if settings.mlp_layers is None else settings.mlp_layers
    for layer in (*attention, *mlp):
        if not 0 <= layer < n:
            raise ConfigError(f"there is no layer {layer}: the model has {n}, from 0 to {n - 1}")
    of_heads = attention_groups(model, attention) if attention else []
    refuse_joint_norms(of_heads)
    return [*of_heads, *(mlp_groups(model, mlp) if mlp else [])]


def count_parameters(model: PreTrainedModel) -> int:
    """Weights, a tied one once."""
    return sum({id(p): p.numel() for p in model.parameters()}.values())
