"""Indexers of sparse attention, put aside while a model is attached.

A model made with a sparse index (DeepSeek-V3.2 and others) has a small network in each layer choose
which tokens of the past its attention sees. A memory chooses in its place.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from infllm.engine.attachment.replacing import all_replaced

LIMIT = "the model's own sparse index is not used: attention sees all that the memory gives it"


def find_indexers(model: nn.Module) -> list[nn.Module]:
    """The indexers of all layers."""
    return [module for module in model.modules() if "Indexer" in type(module).__name__]


def put_aside(indexers: Iterable[nn.Module]) -> AbstractContextManager[None]:
    """Let `indexers` choose nothing; what they give goes to the attention function alone."""
    return all_replaced(indexers, lambda module: _nothing)


def _nothing(*args: Any, **kwargs: Any) -> Tensor:
    hidden = next(x for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
    return torch.zeros(1, 1, 1, dtype=torch.int32, device=hidden.device)


def open_mask(device: torch.device) -> Tensor:
    """bool [1, 1, 1, 1]: for layers that must be given a mask to go on."""
    return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)
