"""Policies whose decode steps are alike: they keep recent tokens in place, and can be recorded."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Self

from infllm.engine.decode import Recordable
from infllm.engine.policies.base import Policy

if TYPE_CHECKING:
    from torch import Tensor

    from infllm.engine.attachment import Layer
    from infllm.engine.config import ModelConfig
    from infllm.engine.decode import StepTokens


class SteppingPolicy(Policy, Recordable):
    """A policy that keeps recent tokens in `StepTokens` from the first call of one token to the
    next longer one."""

    IN_STEPS: ClassVar[tuple[str, ...]]  # tensors that lie in the rooms of the steps, by name

    def __init__(self, config: ModelConfig, layer: Layer) -> None:
        super().__init__(config, layer)
        self._steps: StepTokens | None = None

    @abc.abstractmethod
    def _settle(self) -> None:
        """Let what is kept be seen as it is after the last step."""

    def _leave_steps(self) -> None:
        self._settle()
        self._steps = None

    def times(self) -> list[int]:
        assert self._steps is not None
        return self._steps.times(self._n_units, self.count - self._steps.past)

    @property
    def _n_units(self) -> int:
        return 0

    @property
    def recordable(self) -> bool:
        return self._steps is not None

    @property
    def recorded(self) -> tuple[Any, ...]:
        return (self._steps,)

    def open_recording(self, clock: Tensor, asked: Tensor) -> None:
        assert self._steps is not None
        self._steps.clock = clock

    def mark(self) -> Callable[[], None]:
        back, steps = super().mark(), self._steps
        past = 0 if steps is None else steps.past

        def back_in_steps() -> None:
            back()
            self._steps = steps
            if steps is not None:
                steps.past = past

        return back_in_steps

    def fork(self) -> Self:
        other = super().fork()
        if self._steps is not None:
            other._leave_steps()
            for name in self.IN_STEPS:  # the next steps write to the rooms
                if (value := getattr(other, name)) is not None:
                    setattr(other, name, value.clone())
        return other

    def state(self) -> dict[str, Tensor | int]:
        self._settle()
        return super().state()

    @property
    def device_bytes(self) -> int:
        self._settle()
        rotated = 0 if self._steps is None else self._steps.rotated_bytes
        return rotated + super().device_bytes
