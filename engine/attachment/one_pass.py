"""A memory of a single pass, for looking at what a model attends."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from infllm.engine.attachment.layer import Call

if TYPE_CHECKING:
    from infllm.engine.attachment.attachment import Attachment


class OnePass(abc.ABC):
    """A `Memory` that begins empty and is read into once; `attend` says what its layers attend.

    `logits`: float32 [vocab] behind the pass's last token.
    """

    length = 0
    under_way = False

    def __init__(self, attachment: Attachment) -> None:
        self.n_layers = len(attachment.layers)
        self.states = attachment.fresh_states()
        self.logits = torch.empty(0)

    def begin_pass(self, batch: int, tokens: int) -> Call:
        """As `Memory.begin_pass`."""
        self.under_way = True
        return Call(0, 0)

    def end_pass(self, logits: Tensor | None) -> None:
        """As `Memory.end_pass`."""
        self.under_way = False
        if logits is not None:
            self.logits = logits[0, -1].detach().float()

    @abc.abstractmethod
    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, call: Call, scale: float,
        softcap: float | None, sink: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """As `Memory.attend`."""
