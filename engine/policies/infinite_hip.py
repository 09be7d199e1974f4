"""InfiniteHiP (arXiv 2502.08910): all tokens are kept, stages of pruning choose those attended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from infllm.engine.config import Pruning, pruning_of
from infllm.engine.policies.base import Policy
from infllm.engine.policies.window import joined
from infllm.engine.units import TokenStore
from infllm.kernels.descent import (
    ABSENT,
    Intervals,
    best_intervals,
    descend,
    first_intervals,
    mean_queries,
)
from infllm.kernels.partial_attention import Band, Part, parts_behind
from infllm.kernels.rotate import rotate

if TYPE_CHECKING:
    from infllm.engine.attachment import Call, Layer
    from infllm.engine.config import ModelConfig


class InfiniteHiP(Policy):
    """A block of queries attends a window, n_init first tokens, and chunks that stages chose. In a
    step, a stage whose turn it is not leaves the chunks of its last run as they are."""

    KEPT = ("count", "steps", "recent_k", "recent_v")

    def __init__(self, config: ModelConfig, layer: Layer) -> None:
        super().__init__(config, layer)
        self.stages = pruning_of(config, layer.index)
        self.chunk_indexed = layer.index in config.early_layers
        self.prune_window = max(0, config.n_local - self.stages[0].chunk)
        self.tokens = TokenStore(config, layer)
        self.steps = 0  # since the last call of several tokens
        self.recent_k: Tensor | None = None  # [1, Hkv, < window, D], not rotated
        self.recent_v: Tensor | None = None
        # Of the last step: what enters each stage, and at last what is attended: int64 [1, n].
        self.entering: dict[int, Tensor] = {}
        self.far: tuple[Tensor, Tensor] | None = None  # k, v [1, Hkv, n, D] of what steps attend

    @property
    def query_block(self) -> int:
        return self.stages[-1].query_block

    def begin(self, q: Tensor, k: Tensor, v: Tensor, call: Call) -> None:
        self._past = 0 if self.recent_k is None else self.recent_k.shape[2]
        self._k, self._v = joined(self.recent_k, k), joined(self.recent_v, v)
        self._k_near = self.layer.rotary.run(self._k, 0)
        self._q_near = self.layer.rotary.run(q, self._past)
        self.tokens.append(k, v)
        self._new = k.shape[2]
        self._chosen = self._prune(q)

    # ---- pruning --------------------------------------------------------------------------------

    def _prune(self, q: Tensor) -> Tensor:
        """Starts of the chunks that each block may attend: int64 [E, n], ascending, then `ABSENT`;
        on the host."""
        step, n_stages, capacity = self._new == 1, len(self.stages), self.config.prune_capacity
        due = (i for i, s in enumerate(self.stages) if not step or self.steps % s.refresh == 0)
        first = next(due, n_stages)
        keys = self.tokens.probes()
        device, layout = keys.keys.device, self.layer.rotary.rope.layout
        lists = dict(self.entering) if first > 0 else {}
        for i, stage in list(enumerate(self.stages))[first:]:
            starts = torch.arange(0, self._new, stage.query_block, device=device)
            last_left = (self.count + starts - self.prune_window).clamp_min_(0)
            if i == 0:
                end = None if capacity is None else capacity - self.config.n_local
                lists[0], n = first_intervals(self.config.n_init, stage.chunk, last_left, end)
            else:
                lists[i] = lists[i].to(device)[starts // self.stages[i - 1].query_block]
                n = (lists[i] < ABSENT).sum(dim=1)
            # With a capacity as published: what the call brings is all there.
            ends = starts + (stage.query_block if capacity is None else self._new)
            last_key = self.count + ends.clamp_max_(self._new) - 1
            query, turn = self._queries(q, stage, n.cpu(), lists[i].shape[1])
            turn = None if turn is None else turn.to(device)
            some = Intervals(lists[i], stage.chunk, last_left, last_key)
            score, _ = descend(query.to(device), keys, some, turn, layout)
            kept = best_intervals(score, lists[i], stage.keep)
            size = stage.chunk if i + 1 == n_stages else self.stages[i + 1].chunk
            inner = torch.arange(0, stage.chunk, size, device=device)
            lists[i + 1] = (kept[..., None] + inner).flatten(1)
        self.entering = lists if step else {}
        if first < n_stages:
            self.far = None
        return lists[n_stages].cpu()

    def _queries(
        self, q: Tensor, stage: Pruning, n: Tensor, n_most: int
    ) -> tuple[Tensor, Tensor | None]:
        """`descend`'s query, and its turn, for lists of n [E] intervals, at most `n_most`."""
        rotary = self.layer.rotary
        mean, first = mean_queries(q[0], stage.query_block, stage.query_group)
        mean = mean * self.softmax.scale
        if not self.chunk_indexed:
            # The left probe at 0, the right one at 1, queries at prune_window + 1.
            near = [rotary.at(mean, self.prune_window + 1 - i) for i in (0, 1)]
            return (torch.stack(near) * rotary.rope.scale).to(q.dtype), None
        place = (self.count + first).minimum(n[:, None] + self.prune_window)
        table = rotary.rope.cos_sin(place[:, None].to(q.device))
        query = rotate(mean, *table, rotary.rope.layout).to(q.dtype)
        turn = torch.stack([x[:n_most] for x in rotary.tables(n_most)])
        return query.expand(2, -1, -1, -1, -1), turn

    # ---- attention ------------------------------------------------------------------------------

    def parts(self, start: int, stop: int) -> list[Part]:
        first = self._past + start
        low = max(0, first - self.config.n_local + 1)
        keys, q = slice(low, self._past + stop), self._q_near[:, :, start:stop]
        band = Band(first - low, 0, self.config.n_local)
        near = Part(q, self._k_near[:, :, keys], self._v[:, :, keys], band=band)
        some = self._chosen[start // self.query_block]
        return [near, *self._far_parts(q, self.count + start, some[some < ABSENT])]

    def _far_parts(self, q: Tensor, position: int, chosen: Tensor) -> list[Part]:
        """First tokens and chunks from `chosen` on, for a block [1, H, T, D] at `position`."""
        tokens, place = self._packed(position, chosen)
        n = int((tokens < position + q.shape[2] - self.config.n_local).sum())
        if self.far is None or self._new > 1 or self.far[0].shape[2] < n:
            there = n if self._new > 1 else int((tokens < self.tokens.n).sum())
            self.far = self.tokens.fetch(tokens[:there])
        k, v = (x[:, :, :n] for x in self.far)
        here = (place[:n] - (self.count - self._past)).to(k.device)
        k = rotate(k, *self.layer.rotary.rope.cos_sin(here), self.layer.rotary.rope.layout)
        return parts_behind(q, k, v, tokens[:n], position, self.config.n_local)

    def _packed(self, position: int, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """All far tokens of a block at `position`, and where their keys stand: int64 [n] each.

        As published they stand right before the first query's window, clipped at 0. `exact`: so do
        those behind that window, as they are, and the others where they are.
        """
        n_init, size = self.config.n_init, self.stages[-1].chunk
        tokens = torch.cat([torch.arange(n_init), (chosen[:, None] + torch.arange(size)).flatten()])
        number, behind = torch.arange(len(tokens)), position - self.config.n_local
        if self.config.far_position == "exact":
            n_far = int((tokens <= behind).sum())
            return tokens, torch.where(tokens <= behind, behind - n_far + 1 + number, tokens)
        return tokens, (behind - len(tokens) + 1 + number).clamp_min(0)

    def end(self) -> None:
        self.count += self._new
        self.steps = self.steps + 1 if self._new == 1 else 0
        oldest = max(0, self._k.shape[2] - self.config.n_local + 1)
        self.recent_k, self.recent_v = (x[:, :, oldest:].clone() for x in (self._k, self._v))
        if self._new > 1:
            self.far = None
        del self._k, self._v, self._k_near, self._q_near, self._chosen

    def in_sight(self) -> list[tuple[int, int]]:
        recent = 0 if self.recent_k is None else self.recent_k.shape[2]
        return [(0, min(self.config.n_init, self.count)), (self.count - recent, self.count)]

    def mark(self) -> Callable[[], None]:
        back, entering, far, n = super().mark(), self.entering, self.far, self.tokens.n

        def back_to_tokens() -> None:
            back()
            self.entering, self.far, self.tokens.n = entering, far, n

        return back_to_tokens

    def fork(self) -> Self:
        other = super().fork()
        other.tokens = self.tokens.fork()
        return other

    def state(self) -> dict[str, Tensor | int]:
        lists = {f"entering.{i}": x for i, x in self.entering.items()}
        lists |= {f"tokens.{name}": x for name, x in self.tokens.state().items()}
        return super().state() | lists

    def restore(self, state: Mapping[str, Tensor | int]) -> None:
        kept = {name: x for name, x in state.items() if isinstance(x, Tensor)}
        super().restore({name: x for name, x in state.items() if name in self.KEPT})
        self.tokens.restore({n[7:]: x for n, x in kept.items() if n.startswith("tokens.")})
        self.entering = {int(n[9:]): x for n, x in kept.items() if n.startswith("entering.")}

    @property
    def host_bytes(self) -> int:
        return self.tokens.bytes_of(on_device=False)

    @property
    def device_bytes(self) -> int:
        far = sum(x.nbytes for x in self.far or ())
        return super().device_bytes + far + self.tokens.bytes_of(on_device=True)
