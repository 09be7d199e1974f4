"""Full causal attention: the baseline, and the oracle of the other policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from weakref import ref

from torch import Tensor

from infllm.engine.policies.base import Policy
from infllm.kernels.partial_attention import Band, Part

if TYPE_CHECKING:
    from infllm.engine.attachment import Call, Layer
    from infllm.engine.config import ModelConfig

QUERY_BLOCK = 512  # tokens


class Origin(Policy):
    """Every token attends all before it, at their true distances; memory grows with length."""

    def __init__(self, config: ModelConfig, layer: Layer) -> None:
        super().__init__(config, layer)
        self._cache: Tensor | None = None  # [2, B, Hkv, capacity, D]: rotated keys, values
        self._owner = ref(self)  # who may write behind the keys in use

    @property
    def query_block(self) -> int:
        return QUERY_BLOCK

    def begin(self, q: Tensor, k: Tensor, v: Tensor, call: Call) -> None:
        rotary = self.layer.rotary
        self._q = rotary.run(q, self.count)
        self._tokens = k.shape[2]
        cache = self._room(k)
        cache[0, :, :, self.count : self.count + self._tokens] = rotary.run(k, self.count)
        cache[1, :, :, self.count : self.count + self._tokens] = v

    def _room(self, k: Tensor) -> Tensor:
        """The cache with space for the new keys, copied first when another session writes to it."""
        need = self.count + k.shape[2]
        old = self._cache
        if old is not None and self._owner() is self and need <= old.shape[3]:
            return old
        b, h, _, d = k.shape
        capacity = max(1024, need + need // 2)
        self._cache = k.new_empty(2, b, h, capacity, d)
        if old is not None:
            self._cache[:, :, :, : self.count] = old[:, :, :, : self.count]
        self._owner = ref(self)
        return self._cache

    def parts(self, start: int, stop: int) -> list[Part]:
        assert self._cache is not None
        k, v = self._cache
        q = self._q[:, :, start:stop]
        here, after = self.count + start, self.count + stop
        own = Part(q, k[:, :, here:after], v[:, :, here:after], band=Band(0, 0))
        if here == 0:
            return [own]
        return [Part(q, k[:, :, :here], v[:, :, :here]), own]

    def in_sight(self) -> list[tuple[int, int]]:
        return [(0, self.count)]

    def end(self) -> None:
        self.count += self._tokens
        del self._q

    def mark(self) -> Callable[[], None]:
        back, cache, owner = super().mark(), self._cache, self._owner

        def back_to_cache() -> None:
            back()
            self._cache, self._owner = cache, owner

        return back_to_cache

    def state(self) -> dict[str, Tensor | int]:
        if self._cache is None:
            return super().state()
        cache = self._cache[:, :, :, : self.count]
        return {**super().state(), "cache": cache, "capacity": self._cache.shape[3]}

    def restore(self, state: Mapping[str, Tensor | int]) -> None:
        self.count = int(state["count"])
        cache = state.get("cache")
        if isinstance(cache, Tensor):
            # With the same room: in other strides, products could round otherwise.
            _, b, h, n, d = cache.shape
            self._cache = cache.new_empty(2, b, h, int(state["capacity"]), d)
            self._cache[:, :, :, :n] = cache

    @property
    def device_bytes(self) -> int:
        if self._cache is None:
            return 0
        return self.count * self._cache[:, :, :, :1].numel() * self._cache.element_size()
