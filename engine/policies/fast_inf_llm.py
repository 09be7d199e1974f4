"""`InfLLM` as sessions use it: calls go the fastest way that gives what the plain one gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from infllm.engine.policies.base import spans_of
from infllm.engine.policies.inf_llm import InfLLM
from infllm.engine.policies.stepping import SteppingPolicy
from infllm.engine.policies.unit_steps import Step, UnitSteps
from infllm.engine.policies.ways import Way, faster_way
from infllm.engine.units import SlotTable

if TYPE_CHECKING:
    from torch import Tensor

    from infllm.engine.attachment import Call, Layer
    from infllm.engine.config import ModelConfig
    from infllm.kernels.partial_attention import Part, State


class FastInfLLM(InfLLM, SteppingPolicy):
    """Chooses the way at each call; the rest is what recorded steps ask of a layer."""

    IN_STEPS = ("rest_k", "rest_v", "rest_latents", "account")

    def __init__(self, config: ModelConfig, layer: Layer) -> None:
        super().__init__(config, layer)
        self._way: Way | None = None  # of the call under way; None: the plain one
        self._unit_steps: UnitSteps | None = None

    def begin(self, q: Tensor, k: Tensor, v: Tensor, call: Call) -> None:
        if q.shape[2] == 1 and self._steps_in_place:
            self._way = Step(self, self._open_steps(), call, self.times(), (q, k, v))
            return
        self._leave_steps()
        super().begin(q, k, v, call)
        self._way = faster_way(self)

    @property
    def _steps_in_place(self) -> bool:
        """Whether a call of one token makes no initial token: those are kept apart from rooms."""
        if self.account is None:
            return False
        if self._steps is not None:
            past = self._steps.past
        else:
            past = 0 if self.rest_k is None else self.rest_k.shape[2]
        return self.n_init == self.config.n_init or past < self.config.n_local

    def spans(self, tokens: int) -> list[tuple[int, int]]:
        blocks = 1 if self._way is None else self._way.blocks
        return spans_of(blocks * self.query_block, tokens)

    def parts(self, start: int, stop: int) -> list[Part]:
        way = self._way
        return super().parts(start, stop) if way is None else way.parts(start, stop)

    def before(self, start: int, stop: int) -> State | None:
        return None if self._way is None else self._way.before(start, stop)

    def update(self, start: int, stop: int, masses: list[Tensor | None]) -> None:
        if self._way is None:
            super().update(start, stop, masses)
        else:
            self._way.update(start, stop, masses)

    def end(self) -> None:
        if self._way is None:
            super().end()
            return
        recorded = self.call.recorded
        self._way.end()
        if not recorded:
            assert self.units is not None
            self.units.staging.drain()
        self.forget_call()
        self._way = None

    def in_sight(self) -> list[tuple[int, int]]:
        self._settle()
        return super().in_sight()

    def best(self, scores: Tensor, k: int) -> Tensor:
        step = self._way if self.call.recorded else None
        return super().best(scores, k) if step is None else step.best(scores, k)

    # ---- steps that can be taken back -----------------------------------------------------------

    @property
    def draft_room(self) -> int:
        waiting = self.count - self.config.n_init - self._n_units * self.config.block_size
        return self.config.n_local + self.config.block_size - 1 - waiting

    def mark(self) -> Callable[[], None]:
        back, steps = super().mark(), self._unit_steps
        step_back = None if steps is None else steps.mark()
        looked_up = None if self.record is None else len(self.record)

        def back_in_steps() -> None:
            back()
            self._unit_steps = steps
            if step_back is not None:
                step_back()
            if self.record is not None:
                del self.record[looked_up:]

        return back_in_steps

    # ---- decode steps ---------------------------------------------------------------------------

    def _open_steps(self) -> UnitSteps:
        if self._unit_steps is None:
            self._unit_steps = UnitSteps(self)
            self._steps = self._unit_steps.tokens
            self._settle()
        return self._unit_steps

    def _settle(self) -> None:
        if self._unit_steps is not None:
            self._unit_steps.settle(self)

    def _leave_steps(self) -> None:
        super()._leave_steps()
        self._unit_steps = None

    @property
    def device_bytes(self) -> int:
        far = None if self._unit_steps is None else self._unit_steps.far_rows
        return super().device_bytes + (0 if far is None else far.nbytes)

    @property
    def _n_units(self) -> int:
        return 0 if self.units is None else self.units.n

    def advance(self) -> None:
        assert self._unit_steps is not None
        self._unit_steps.advance(self)

    @property
    def recordable(self) -> bool:
        cfg, units = self.config, self.units
        return (
            super().recordable
            and units is not None
            and units.batch == 1
            and units.n > self._n_looked_up
            and self.faiss is None
            and self.record is None
            and cfg.unit_score == "representatives"
            and cfg.cache_strategy != "lru-s"  # which wants each step's masses on the host
        )

    @property
    def recorded(self) -> tuple[Any, ...]:
        assert self.units is not None
        slabs = (view.slab.number for view in self.units.views)
        return (*super().recorded, *slabs, *self.units.rows)

    @property
    def _n_looked_up(self) -> int:
        """Units of a decode step's lookup."""
        return self.config.short_topk * (1 if self.held_units() is None else 2)

    @property
    def n_asked(self) -> int:
        heads = self.layer.n_heads if self.config.perhead else 1
        return 1 + self._n_looked_up * heads

    def open_recording(self, clock: Tensor, asked: Tensor) -> None:
        super().open_recording(clock, asked)
        assert self.units is not None
        assert self._unit_steps is not None
        self._unit_steps.slot_table = SlotTable(self.units, asked)
        if self.held is not None:  # the units of the last block that was read: steps want the like
            units = self.held.flatten().unique().tolist()
            self._unit_steps.slot_table.bring(units[: self.units.cache.capacity // 2])

    @property
    def _slot_table(self) -> SlotTable:
        assert self._unit_steps is not None
        assert self._unit_steps.slot_table is not None
        return self._unit_steps.slot_table

    def refresh(self) -> None:
        self._slot_table.refresh()

    def bring(self, asked: Sequence[int]) -> None:
        self._slot_table.bring(asked[1:])

    def touch(self, asked: Sequence[int]) -> None:
        self._slot_table.touch(asked[1:])
