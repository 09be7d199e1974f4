"""Decode steps of an `InfLLM` layer, in place: the way of a call of one token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from infllm.engine.decode import StepTokens
from infllm.engine.policies.lookup_scores import LookupScores, RecordedScores
from infllm.engine.policies.representatives import open_step_scores
from infllm.engine.policies.ways import Way
from infllm.engine.units import SlotTable

if TYPE_CHECKING:
    from infllm.engine.attachment import Call
    from infllm.engine.policies.inf_llm import InfLLM
    from infllm.kernels.partial_attention import Part


class UnitSteps:
    """Rooms of fixed size for a layer's window and its scores, where steps are made.

    They do not hold the layer, which holds them: it is to go when it is let go.
    """

    def __init__(self, layer: InfLLM) -> None:
        cfg = layer.config
        assert layer.rest_k is not None
        assert layer.rest_v is not None
        assert layer.account is not None
        rows = cfg.n_local + cfg.block_size
        self.tokens = StepTokens(
            cfg.n_local, layer.layer.rotary, (layer.rest_k, layer.rest_v), rows,
            behind=cfg.block_size, exact=cfg.far_position == "exact",
        )  # fmt: skip
        self.scores = open_step_scores(cfg, layer.account, rows)
        self.slot_table: SlotTable | None = None  # of recorded steps

    def advance(self, layer: InfLLM) -> None:
        """The step is done: its token is of the past, and what waits may become a unit."""
        tokens, scores, cfg = self.tokens, self.scores, layer.config
        assert layer.units is not None
        layer.visible = layer.units.n
        scores.settle()
        n = (tokens.past + 1 - cfg.n_local) // cfg.block_size
        if n > 0:
            layer.tokens, layer.repr_scores = tokens, scores
            layer.cut(n)
            layer.units.staging.drain()
        layer.count += 1
        leaving = tokens.rest
        tokens.advance()
        if leaving:
            scores.leave(leaving, tokens.past)

    def settle(self, layer: InfLLM) -> None:
        """Let the layer see what is kept as it is after the last step."""
        layer.rest_k, layer.rest_v = self.tokens.remainder()
        layer.account = self.scores.rest(0)


class Step(Way):
    """One step. A recorded one takes units from the slots where they are, as the slot table says,
    and is brought to its end by who replays it."""

    def __init__(
        self, layer: InfLLM, steps: UnitSteps, call: Call, times: list[int],
        qkv: tuple[Tensor, Tensor, Tensor],
    ) -> None:  # fmt: skip
        """`qkv`: q [B, H, 1, D], k and v [B, Hkv, 1, D], not rotated; `times`: for the clock."""
        tokens, scores = steps.tokens, steps.scores
        assert layer.units is not None
        self._layer, self._steps = layer, steps
        if not call.recorded:
            tokens.clock.copy_(torch.tensor(times))
        tokens.take(*qkv, scores.sums_of_queries)
        layer.call, layer.tokens, layer.repr_scores = call, tokens, scores
        layer.by_keys = layer.config.unit_score != "representatives"
        about = layer.config, layer.units, tokens.q_far, layer.layer.n_kv_heads
        if call.recorded:
            layer.unit_scores = RecordedScores(*about, tokens.n_units)
        else:
            layer.unit_scores = LookupScores(*about, ahead=False)

    def parts(self, start: int, stop: int) -> list[Part]:
        return self._layer.attend(start, stop, self._bring)

    def best(self, scores: Tensor, k: int) -> Tensor:
        assert self._steps.slot_table is not None
        chosen, self._slots = self._steps.slot_table.best(scores, k)
        return chosen

    def _bring(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        units = self._layer.units
        assert units is not None
        if not self._layer.call.recorded:
            return units.fetch(chosen)
        return units.slots, self._layer.per_head(self._slots)

    def update(self, start: int, stop: int, masses: list[Tensor | None]) -> None:
        self._layer.account_for(start, stop, masses)

    def end(self) -> None:
        if not self._layer.call.recorded:
            self._steps.advance(self._layer)
