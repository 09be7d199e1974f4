"""Policies with a window of recent tokens and, before it, a few initial ones. Constant memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from infllm.engine.decode import StepTokens
from infllm.engine.policies.stepping import SteppingPolicy
from infllm.kernels.partial_attention import Band, Part

if TYPE_CHECKING:
    from infllm.engine.attachment import Call, Layer
    from infllm.engine.config import ModelConfig

QUERY_BLOCK = 128  # tokens; bounds the keys that a block loads beyond its queries' own windows
STEPS = 128  # decode steps between two moves of the window


class Window(SteppingPolicy):
    """The last `n_local` tokens at their true distances, nothing else: sliding-window attention."""

    KEPT = ("count", "recent_k", "recent_v", "init_k", "init_v")
    IN_STEPS = ("recent_k", "recent_v")
    steps_in_place = True  # decode steps keep the window in `StepTokens`

    def __init__(
        self, config: ModelConfig, layer: Layer, n_local: int | None = None, n_init: int = 0
    ) -> None:
        """n_local: None for the configuration's."""
        super().__init__(config, layer)
        self.n_local = config.n_local if n_local is None else n_local
        self.n_init = n_init
        self.recent_k: Tensor | None = None  # [B, Hkv, <= n_local - 1, D], not rotated
        self.recent_v: Tensor | None = None
        self.init_k: Tensor | None = None  # [B, Hkv, <= n_init, D], as `rotate_init` left it
        self.init_v: Tensor | None = None

    @property
    def query_block(self) -> int:
        return min(QUERY_BLOCK, self.n_local)

    def rotate_init(self, k: Tensor, first: int) -> Tensor:
        """Initial keys [B, Hkv, n, D] from position `first` on, as they are attended later."""
        return self.layer.rotary.at(k, 0)

    @property
    def init_distance(self) -> int:
        """Position of the queries that attend the initial tokens."""
        return self.n_local - 1

    def begin(self, q: Tensor, k: Tensor, v: Tensor, call: Call) -> None:
        self._recorded = call.recorded
        known = self.recent_k is not None and self.count >= self.n_init
        if self.steps_in_place and k.shape[2] == 1 and known:
            self._begin_step(q, k, v)
            return
        self._leave_steps()
        rotary = self.layer.rotary
        if self.count < self.n_init:
            fresh = slice(0, self.n_init - self.count)
            init_k = self.rotate_init(k[:, :, fresh], self.count)
            # Copies: views would keep all of the call's keys and values alive, in their strides.
            self.init_k = joined(self.init_k, init_k).contiguous()
            self.init_v = joined(self.init_v, v[:, :, fresh]).contiguous()
        self._k = joined(self.recent_k, k)
        self._v = joined(self.recent_v, v)
        self._past = self._k.shape[2] - k.shape[2]
        self._k_near = rotary.run(self._k, 0)
        self._q_near = rotary.run(q, self._past)
        self._q_init = rotary.at(q, self.init_distance) if self.n_init else None

    # ---- decode steps ---------------------------------------------------------------------------

    def _begin_step(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        if self._steps is None:
            assert self.recent_k is not None
            assert self.recent_v is not None
            past, rows = (self.recent_k, self.recent_v), self.n_local + STEPS
            self._steps = StepTokens(self.n_local, self.layer.rotary, past, rows)
        if not self._recorded:
            self._steps.clock.copy_(torch.tensor(self.times()))
        self._steps.take(q, k, v, recorded=self._recorded)
        q = q.to(self._steps.q_near.dtype)
        self._q_init = self.layer.rotary.at(q, self.init_distance) if self.n_init else None

    def _settle(self) -> None:
        if self._steps is not None:
            first = max(0, self._steps.past - self.n_local + 1)
            self.recent_k, self.recent_v = (x[:, :, first:] for x in self._steps.remainder())

    def advance(self) -> None:
        assert self._steps is not None
        self.count += 1
        if self._steps.past + 1 == self._steps.rows:
            self._steps.rest = self._steps.past + 2 - self.n_local
        self._steps.advance()

    @property
    def draft_room(self) -> int:
        if self._steps is not None:
            return self._steps.rows - 1 - self._steps.past
        return STEPS  # of rooms that are still to be opened

    @property
    def recordable(self) -> bool:
        return super().recordable and self.count >= self.n_local + self.n_init - 1

    # ---------------------------------------------------------------------------------------------

    def parts(self, start: int, stop: int) -> list[Part]:
        if self._steps is not None:
            near_part = self._steps.near_part(self._steps.q_near, start, stop, None)
            return [near_part, *self._init_parts(self.count, self._q_init)]
        first = self._past + start  # index of the first query among the keys
        low = max(0, first - self.n_local + 1)
        keys = slice(low, self._past + stop)
        near = Band(first - low, 0, self.n_local)
        parts = [
            Part(
                self._q_near[:, :, start:stop],
                self._k_near[:, :, keys],
                self._v[:, :, keys],
                band=near,
            )
        ]
        q_init = None if self._q_init is None else self._q_init[:, :, start:stop]
        return [*parts, *self._init_parts(self.count + start, q_init)]

    def _init_parts(self, position: int, q: Tensor | None) -> list[Part]:
        """The initial tokens, as far as they are out of the window of some of the queries
        [B, H, T, D], the first at `position`."""
        if q is None or position + q.shape[2] <= self.n_local:
            return []
        assert self.init_k is not None
        assert self.init_v is not None
        if position >= self.n_local + self.n_init - 1:
            return [Part(q, self.init_k, self.init_v)]
        return [Part(q, self.init_k, self.init_v, band=Band(position, self.n_local))]

    def in_sight(self) -> list[tuple[int, int]]:
        recent = max(0, self.count - self.n_local + 1)
        return [(0, min(self.n_init, self.count)), (recent, self.count)]

    def end(self) -> None:
        if self._steps is not None:
            if not self._recorded:
                self.advance()
            del self._q_init
            return
        self.count += self._k.shape[2] - self._past
        keep = max(0, self._k.shape[2] - self.n_local + 1)
        self.recent_k = self._k[:, :, keep:].clone()
        self.recent_v = self._v[:, :, keep:].clone()
        del self._k, self._v, self._k_near, self._q_near, self._q_init


class InfiniteLM(Window):
    """LM-Infinite (arXiv 2308.16137, section 3): initial keys at one distance."""

    def __init__(self, config: ModelConfig, layer: Layer) -> None:
        super().__init__(config, layer, n_init=config.n_init)

    @property
    def init_distance(self) -> int:
        far = self.config.far_distance
        return far if isinstance(far, int) else self.n_local - (far == "L-1")


class StreamLM(Window):
    """StreamingLLM (arXiv 2309.17453, section 3.2): positions are places in the cache.

    Initial keys stand at 0 to n_init - 1 and every query that attends them at n_local + n_init - 1.
    """

    def __init__(self, config: ModelConfig, layer: Layer) -> None:
        super().__init__(config, layer, n_init=config.n_init)

    def rotate_init(self, k: Tensor, first: int) -> Tensor:
        return self.layer.rotary.run(k, first)

    @property
    def init_distance(self) -> int:
        return self.n_local + self.n_init - 1


def joined(old: Tensor | None, new: Tensor) -> Tensor:
    return new if old is None else torch.cat([old, new], dim=2)
