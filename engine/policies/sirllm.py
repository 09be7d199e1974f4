"""SirLLM (arXiv 2405.12528): initial tokens, surprising ones and recent ones. Constant memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from infllm.engine.policies.base import Policy
from infllm.kernels.partial_attention import Band, Part

if TYPE_CHECKING:
    from infllm.engine.attachment import Call, Layer
    from infllm.engine.config import ModelConfig

QUERY_BLOCK = 512  # tokens


class SirLLM(Policy):
    """Keys and values of the tokens in the session's `KeptTokens`, which says at each call what
    stays (`Call.stays`). A turn attends all that is kept and itself; positions are places in the
    cache, so that what was evicted leaves no gap."""

    KEPT = ("count", "k", "v")
    keeps_by_surprise = True

    def __init__(self, config: ModelConfig, layer: Layer) -> None:
        super().__init__(config, layer)
        self.k: Tensor | None = None  # [B, Hkv, S, D], not rotated
        self.v: Tensor | None = None

    @property
    def query_block(self) -> int:
        return QUERY_BLOCK

    @property
    def draft_room(self) -> int:
        return 0  # what leaves depends on the logits of the step before

    def begin(self, q: Tensor, k: Tensor, v: Tensor, call: Call) -> None:
        self._tokens, self._past = k.shape[2], 0
        if self.k is not None and self.v is not None:
            past_k, past_v = self.k, self.v
            if call.stays is not None:
                places = call.stays.to(k.device)
                past_k, past_v = (x.index_select(2, places) for x in (past_k, past_v))
            self._past = past_k.shape[2]
            k, v = torch.cat([past_k, k], dim=2), torch.cat([past_v, v], dim=2)
        # Copies: views would keep all of the call's keys and values alive, in their strides.
        self.k, self.v = k.contiguous(), v.contiguous()
        self._k_here = self.layer.rotary.run(self.k, 0)
        self._q = self.layer.rotary.run(q, self._past)

    def parts(self, start: int, stop: int) -> list[Part]:
        assert self.v is not None
        q, first, after = self._q[:, :, start:stop], self._past + start, self._past + stop
        k, v = self._k_here, self.v
        own = Part(q, k[:, :, first:after], v[:, :, first:after], band=Band(0, 0))
        if first == 0:
            return [own]
        return [Part(q, k[:, :, :first], v[:, :, :first]), own]

    def in_sight(self) -> list[tuple[int, int]]:
        return []  # the session knows which tokens these are

    def end(self) -> None:
        self.count += self._tokens
        del self._k_here, self._q
