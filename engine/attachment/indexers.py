"""Indexers of sparse attention, put aside while a model is attached.

A model made with a sparse index (DeepSeek-V3.2 and others) has a small network in each layer choose
which tokens of the past its attention sees. A memory chooses in its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

LIMIT = "the model's own sparse index is not used: attention sees all that the memory gives it"


def find_indexers(model: nn.Module) -> list[nn.Module]:
    """The indexers of all layers."""
    return [module for module in model.modules() if "Indexer" in type(module).__name__]


@contextmanager
def put_aside(indexers: list[nn.Module]) -> Iterator[None]:
    """Let `indexers` choose nothing; what they give goes to the attention function alone."""
    own = [(module, module.__dict__.get("forward")) for module in indexers]
    for module in indexers:
        module.forward = _nothing
    try:
        yield
    finally:
        for module, forward in own:
            if forward is None:
                del module.forward
            else:
                module.forward = forward


def _nothing(hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return torch.zeros(1, 1, 1, dtype=torch.int32, device=hidden.device)


def open_mask(device: torch.device) -> Tensor:
    """bool [1, 1, 1, 1]: for layers that must be given a mask to go on."""
    return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)
