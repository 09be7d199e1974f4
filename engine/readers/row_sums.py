"""What some rows of one layer attend, summed over heads; never the whole map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from infllm.engine.attachment import Attachment, Call, Layer, OnePass
from infllm.engine.policies import make_policy, run_policy

if TYPE_CHECKING:
    from infllm.engine.config import ModelConfig


class RowSums(OnePass):
    """A pass under full attention that keeps the rows of one layer.

    That layer gives nothing on: what comes after it is not wanted.
    """

    def __init__(self, config: ModelConfig, attachment: Attachment, watched: Layer, first: int):
        super().__init__(attachment)
        layers = attachment.layers
        self._policies = {layer.index: make_policy(config, layer) for layer in layers}
        self._watched = watched
        self._first = first
        self.sums = torch.empty(0)

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, call: Call, scale: float,
        softcap: float | None, sink: Tensor | None,
    ) -> Tensor:  # fmt: skip
        if layer != self._watched.index:
            return run_policy(self._policies[layer], q, k, v, call, scale, softcap, sink)
        rotary = self._watched.rotary
        q, k = rotary.run(q, 0)[0, :, self._first :], rotary.run(k, 0)[0]
        self.sums = row_sums(q, k, self._first, scale, softcap, sink)
        return v.new_zeros(1, v.shape[2], q.shape[0], v.shape[3])


def row_sums(
    q: Tensor, k: Tensor, first: int, scale: float, softcap: float | None, sink: Tensor | None
) -> Tensor:
    """Causal softmax of rows q [H, R, D], the first at `first`, on k [Hkv, N, D], both rotated:
    float32 [R, N], summed over the query heads."""
    rows, keys = q.shape[1], k.shape[1]
    at = torch.arange(first, first + rows, device=q.device)
    later = torch.arange(keys, device=q.device)[None] > at[:, None]
    sums = torch.zeros(rows, keys, device=q.device)
    share = q.shape[0] // k.shape[0]
    for head in range(q.shape[0]):
        logits = (q[head].float() @ k[head // share].float().T) * scale
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        logits.masked_fill_(later, float("-inf"))
        if sink is None:
            sums += logits.softmax(-1)
        else:
            without = sink[head].float().expand(rows, 1)
            sums += torch.cat([logits, without], 1).softmax(-1)[:, :-1]
    return sums


def attention_rows(
    attachment: Attachment, config: ModelConfig, ids: Sequence[int], first: int
) -> Tensor:
    """What tokens `first` on of `ids` attend in the last layer: float32 [len(ids) - first,
    len(ids)], summed over query heads.

    Every layer attends all, at true distances; layers that are made for a sliding window keep to
    it, and the last one that is not is looked at. `config`: any; its policy does not count.

    Raises ConfigError: ids outside of the vocabulary.
    """
    attachment.check_ids(ids)
    layers = attachment.layers
    watched = [layer for layer in layers if layer.sliding_window is None] or layers
    origin = config.model_copy(update={"type": "origin"})
    memory = RowSums(origin, attachment, watched[-1], first)
    tokens = torch.tensor([ids], device=attachment.device)
    attachment.forward(tokens, torch.arange(len(ids), device=attachment.device)[None], memory)
    return memory.sums
