"""What a model thinks of tokens: logits and losses from the hidden states of a pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from infllm.engine.attachment import Attachment

LOGIT_BYTES = 256 * 2**20  # of one block of logits


def blocks_of_logits(attachment: Attachment, states: Tensor) -> Iterator[Tensor]:
    """float32 [n, vocab] blocks of hidden states [1, T, M], each of bounded size."""
    rows = max(1, LOGIT_BYTES // (4 * attachment.vocab_size))
    for part in states.split(rows, dim=1):
        yield attachment.head(part)[0]


def losses(
    attachment: Attachment, ids: Sequence[int], states: Tensor, before: Tensor | None, first: int
) -> Tensor:
    """Negative log-likelihood in nats of the tokens of a pass from `first` on: float32 [n].

    `states` [1, T, M] of all its tokens; `before` [vocab]: the logits after the token before them.
    Where there is none, the first token has no entry.
    """
    target = torch.tensor(ids, device=states.device)  # which a model's last layers may have alone
    found = []
    if first == 0:
        if before is not None:
            found.append(_nll(before[None].to(target.device), target[:1]))
        first = 1
    row = first
    for logits in blocks_of_logits(attachment, states[:, first - 1 : -1]):
        found.append(_nll(logits, target[row : row + len(logits)]))
        row += len(logits)
    return torch.cat(found) if found else torch.empty(0)


def _nll(logits: Tensor, target: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(logits, target, reduction="none")
