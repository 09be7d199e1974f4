"""Layers made for attention within chunks (Llama 4): a query sees its own. Constant memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from infllm.engine.policies.base import Policy, spans_of
from infllm.engine.policies.window import QUERY_BLOCK, joined
from infllm.kernels.partial_attention import Band, Part

if TYPE_CHECKING:
    from infllm.engine.attachment import Call, Layer
    from infllm.engine.config import ModelConfig


class Chunk(Policy):
    """The tokens of the open chunk of `size` tokens, counted from the session's start, at their
    true distances; those of chunks before it are dropped."""

    KEPT = ("count", "chunk_k", "chunk_v")

    def __init__(self, config: ModelConfig, layer: Layer, size: int) -> None:
        super().__init__(config, layer)
        self.size = size
        self.chunk_k: Tensor | None = None  # [B, Hkv, < size, D], not rotated
        self.chunk_v: Tensor | None = None

    def begin(self, q: Tensor, k: Tensor, v: Tensor, call: Call) -> None:
        rotary = self.layer.rotary
        self._k, self._v = joined(self.chunk_k, k), joined(self.chunk_v, v)
        self._past = self._k.shape[2] - k.shape[2]
        self._q_near, self._k_near = rotary.run(q, self._past), rotary.run(self._k, 0)

    def spans(self, tokens: int) -> list[tuple[int, int]]:
        """No span crosses from one chunk into the next."""
        first = self.size - self._past % self.size
        starts = [0, *range(first, tokens, self.size)]
        stops = [*starts[1:], tokens]
        return [
            (start + a, start + z)
            for start, stop in zip(starts, stops, strict=True)
            for a, z in spans_of(QUERY_BLOCK, stop - start)
        ]

    def parts(self, start: int, stop: int) -> list[Part]:
        first = self._past + start  # index of the first query among the keys
        begin = first // self.size * self.size
        keys = slice(begin, self._past + stop)
        band = Band(first - begin, 0, self.size)
        q = self._q_near[:, :, start:stop]
        return [Part(q, self._k_near[:, :, keys], self._v[:, :, keys], band=band)]

    def end(self) -> None:
        n = self._k.shape[2]
        self.count += n - self._past
        keep = n // self.size * self.size
        self.chunk_k, self.chunk_v = (x[:, :, keep:].clone() for x in (self._k, self._v))
        del self._k, self._v, self._k_near, self._q_near

    def in_sight(self) -> list[tuple[int, int]]:
        return [(self.count - self.count % self.size, self.count)]
