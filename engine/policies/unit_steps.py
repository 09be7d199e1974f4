"""Decode steps of an `InfLLM` layer, in place: the way of a call of one token."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from infllm.engine.decode import StepTokens
from infllm.engine.policies.far_rows import FarRows
from infllm.engine.policies.lookup_scores import LookupScores, RecordedScores
from infllm.engine.policies.representatives import open_step_scores
from infllm.engine.policies.ways import Way
from infllm.engine.units import SlotTable
from infllm.kernels.attend_cpu import row_logits

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
            behind=cfg.block_size, exact=cfg.far_position != "capped",
        )  # fmt: skip
        self.scores = open_step_scores(cfg, layer.account, rows)
        self.latents = None if layer.rest_latents is None else _room(layer.rest_latents, rows)
        self.slot_table: SlotTable | None = None  # of recorded steps
        self.far_rows: FarRows | None = None  # of others, on a CPU

    def advance(self, layer: InfLLM) -> None:
        """The step is done: its token is of the past, and what waits may become a unit."""
        tokens, scores, cfg = self.tokens, self.scores, layer.config
        assert layer.units is not None
        layer.visible = layer.units.n
        scores.settle()
        n = (tokens.past + 1 - cfg.n_local) // cfg.block_size
        if n > 0:
            layer.tokens, layer.repr_scores = tokens, scores
            layer.latents = self.latents
            layer.cut(n)
            layer.latents = None
            layer.units.staging.drain()
        layer.count += 1
        leaving = tokens.rest
        tokens.advance()
        if leaving:
            if self.latents is not None:
                stay = self.latents[:, :, leaving : leaving + tokens.past]
                self.latents[:, :, : tokens.past] = stay.clone()
            scores.leave(leaving, tokens.past)

    def mark(self) -> Callable[[], None]:
        """As `Policy.mark`, of the scores and of where units lie."""
        scores, far_rows = self.scores.mark(), self.far_rows
        rows = None if far_rows is None else far_rows.mark()

        def back() -> None:
            scores()
            self.far_rows = far_rows
            if rows is not None:
                rows()

        return back

    def settle(self, layer: InfLLM) -> None:
        """Let the layer see what is kept as it is after the last step."""
        layer.rest_k, layer.rest_v = self.tokens.remainder()
        layer.account = self.scores.rest(0)
        if self.latents is not None:
            layer.rest_latents = self.latents[:, :, : self.tokens.past]


def _room(x: Tensor, rows: int) -> Tensor:
    """x [B, 1, R, L] with room for more rows."""
    room = x.new_zeros(*x.shape[:2], rows, x.shape[3])
    room[:, :, : x.shape[2]] = x
    return room


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
        tokens.take(*qkv, scores.sums_of_queries, recorded=call.recorded)
        latents = call.latents.pop(layer.layer.index, None)
        if steps.latents is not None and latents is not None:
            steps.latents.index_copy_(2, tokens.clock[:1], latents)
        self._origin = times[2]
        layer.call, layer.tokens, layer.repr_scores = call, tokens, scores
        layer.exact = layer.config.far_position != "capped"
        layer.by_keys = layer.config.unit_score != "representatives"
        layer.looks_up, layer.topk = True, layer.config.short_topk
        about = layer.config, layer.units, tokens.q_far, layer.layer.n_kv_heads
        if call.recorded:
            layer.unit_scores = RecordedScores(*about, tokens.n_units)
        else:
            layer.unit_scores = LookupScores(*about, ahead=False)

    def parts(self, start: int, stop: int) -> list[Part]:
        far = self._far_rows()
        return self._layer.attend(start, stop, self._bring) if far is None else self._attend(far)

    def _far_rows(self) -> FarRows | None:
        """Where this step finds initial tokens and units side by side."""
        layer, steps = self._layer, self._steps
        assert layer.units is not None
        here = layer.layer.device.type == "cpu" and not layer.call.recorded
        # Units beyond the limit lie behind the others, of all sequences the same ones.
        alike = layer.config.far_position != "within" or layer.units.batch == 1
        if not here or not alike or layer.config.perhead:
            return None
        if steps.far_rows is None:
            steps.far_rows = FarRows(layer, steps.tokens)
        return steps.far_rows

    def _attend(self, far: FarRows) -> list[Part]:
        """As `InfLLM.attend`, of keys that lie where products need them."""
        layer, tokens = self._layer, self._steps.tokens
        far.begin(tokens, self._origin)
        q_near, q = tokens.queries(0, 1)
        parts = [tokens.near_part(q_near, 0, 1, layer.repr_scores.mass), *far.init_parts()]
        waiting = tokens.waiting_parts(q, 0, 1)
        if layer.by_keys:  # the lookup and the softmax want the same logits
            known = row_logits([*parts, *waiting], layer.softmax.scale, layer.softmax.softcap)
            parts, waiting = known[: len(parts)], known[len(parts) :]
        chosen = layer.look_up(0, 1, [*parts, *waiting])
        if chosen is not None:
            layer.chosen = chosen
            far.bring(chosen)
            parts += far.unit_parts(watched=layer.watches)
        return [*parts, *waiting]

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
        far = self._far_rows()
        if far is not None:
            first, *others = masses
            units = [x for x in others if x is not None]
            masses = [first, far.by_unit(units)] if units else [first]
        self._layer.account_for(start, stop, masses)

    def end(self) -> None:
        if not self._layer.call.recorded:
            self._steps.advance(self._layer)
