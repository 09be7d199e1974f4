"""How much each unit matters: the criteria and aggregations of LLM-Pruner (section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from infllm.engine.prune.groups import Group

Criterion = Literal["vector", "element1", "element2", "second", "l1", "l2", "random"]
Aggregation = Literal["sum", "mean", "max", "prod", "first", "second"]
SECOND_ORDER = ("element2", "second")
WITHOUT_GRADIENTS = ("l1", "l2", "random")


@dataclass
class Gradients:
    """Of the mean loss over sequences, and of single sequences squared, by a weight's id."""

    first: dict[int, Tensor] = field(default_factory=dict)
    squared: dict[int, Tensor] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)  # nats a token, one for each sequence

    @property
    def loss(self) -> float:
        """Mean over the sequences."""
        return sum(self.losses) / max(1, len(self.losses))


def gradients(
    model: PreTrainedModel, weights: Sequence[nn.Parameter], sequences: Tensor, squared: bool
) -> Gradients:
    """Gradients of the mean token cross-entropy of sequences int64 [n, T], one after the other.

    `squared`: also the mean over sequences of the squared gradient, elementwise (the diagonal of
    the Fisher information, which stands in for the Hessian).
    """
    found = Gradients()
    n = len(sequences)
    try:
        for weight in weights:
            weight.requires_grad_(True)
        for sequence in sequences.to(weights[0].device):
            logits = model(input_ids=sequence[None], use_cache=False).logits[0].float()
            loss = cross_entropy(logits[:-1], sequence[1:])
            loss.backward()
            found.losses.append(float(loss.detach()))
            for weight in weights:
                grad = weight.grad
                if grad is None:  # nothing of the loss depends on it
                    continue
                _add(found.first, weight, grad / n)
                if squared:
                    _add(found.squared, weight, grad.square() / n)
                weight.grad = None
    finally:
        for weight in weights:
            weight.requires_grad_(False)
            weight.grad = None
    return found


def _add(sums: dict[int, Tensor], weight: nn.Parameter, term: Tensor) -> None:
    if id(weight) in sums:
        sums[id(weight)] += term
    else:
        sums[id(weight)] = term


def importance(
    group: Group,
    criterion: Criterion,
    aggregation: Aggregation,
    grads: Gradients,
    official: bool = False,
) -> Tensor:
    """float32 [units]: each matrix scores its channels, matrices are aggregated channel by channel,
    and a unit is the sum over its channels, whatever the aggregation.

    `official`: see `Attention.scores`.
    """

    def score(weight: nn.Parameter, dim: int) -> Tensor:
        return _scored(weight.detach().float(), dim, criterion, grads, id(weight))

    vectors = torch.stack(group.scores(score, official))  # [matrices, units * width]
    return _aggregated(vectors, aggregation).view(-1, group.width).sum(1)


def _scored(w: Tensor, dim: int, criterion: Criterion, grads: Gradients, key: int) -> Tensor:
    """float32 [size of dim] of one matrix, or of a vector, each entry its own."""

    def summed(x: Tensor) -> Tensor:
        return x.transpose(0, dim).flatten(1).sum(1) if x.ndim > 1 else x

    if criterion == "l1":
        return summed(w.abs())
    if criterion == "l2":
        return summed(w.square())
    zero = torch.zeros_like(w)
    first = w * grads.first.get(key, zero)
    if criterion == "vector":
        return summed(first).abs()
    if criterion == "element1":
        return summed(first.abs())
    second = w.square() * grads.squared.get(key, zero)
    if criterion == "second":
        return summed(second.abs())
    return summed((first - second / 2).abs())


def _aggregated(vectors: Tensor, how: Aggregation) -> Tensor:
    if how == "sum":
        return vectors.sum(0)
    if how == "mean":
        return vectors.mean(0)
    if how == "max":
        return vectors.amax(0)
    if how == "prod":
        return vectors.prod(0)
    return vectors[0] if how == "first" else vectors[1]


def random_importance(groups: Sequence[Group], generator: torch.Generator) -> dict[str, Tensor]:
    """Chance: float32 [units] by group."""
    return {group.name: torch.rand(group.units, generator=generator) for group in groups}


def lowest(
    scores: Mapping[str, Tensor],
    original: Mapping[str, int],
    widths: Mapping[str, int],
    ratio: float,
    everywhere: bool,
) -> dict[str, Tensor]:
    """Units to remove, int64 in rising order, by group.

    Of each group so many that int(C (1 - ratio)) of its `original` C channels stay, rounded up to
    whole units; `everywhere`: of all groups in one list, the lowest whatever their group. One unit
    of each group stays in any case.
    """
    if not everywhere:
        return {
            name: _lowest(s, _surplus(len(s) * widths[name], original[name] * widths[name], ratio)
                          // widths[name])
            for name, s in scores.items()
        }  # fmt: skip
    every = torch.cat(list(scores.values()))
    n = _surplus(len(every), sum(original.values()), ratio)
    if n < 1:
        return {name: torch.zeros(0, dtype=torch.int64) for name in scores}
    threshold = every.sort().values[n - 1]
    return {name: _lowest(s, int((s <= threshold).sum())) for name, s in scores.items()}


def _surplus(now: int, original: int, ratio: float) -> int:
    return now - int(original * (1 - ratio))


def _lowest(scores: Tensor, n: int) -> Tensor:
    n = max(0, min(n, len(scores) - 1))
    return scores.argsort(stable=True)[:n].sort().values.cpu()
