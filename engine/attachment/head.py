"""The head of a model: logits of hidden states, with all that the model does to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from infllm.engine.attachment.replacing import replaced


def body(model: Any) -> Any:
    """The part whose hidden states the model's own forward makes logits of."""
    inner = (part for part in model.children() if isinstance(part, PreTrainedModel))
    return next(inner) if model.base_model is model else model.base_model


@contextmanager
def hidden_states(model: Any) -> Iterator[list[Tensor]]:
    """Collects the last hidden states [B, T, M] of the passes made inside."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        kept.append(output.last_hidden_state)

    hook = body(model).register_forward_hook(keep)
    try:
        yield kept
    finally:
        hook.remove()


def logits(model: Any, hidden: Tensor) -> Tensor:
    """Logits float32 [B, T, vocab] of hidden states [B, T, M].

    The model's own forward runs with its body standing still: output scaling and soft-capping are
    inherited, whatever the model.
    """
    forward = type(model).forward  # without the hooks of a real pass
    ids = torch.zeros(hidden.shape[:2], dtype=torch.long, device=hidden.device)
    with replaced(body(model), lambda *args, **kwargs: _BodyOutput(hidden)):
        return forward(model, input_ids=ids, return_dict=True).logits.float()


class _BodyOutput:
    """What a body returns: hidden states, and nothing else."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, index: int) -> Tensor:
        return self.last_hidden_state

    def __getattr__(self, name: str) -> None:
        return None
