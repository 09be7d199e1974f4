"""Policies whose decode steps are alike: shapes and addresses stay, so they can be recorded."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from infllm.engine.policies.base import Policy

if TYPE_CHECKING:
    from torch import Tensor

    from infllm.engine.attachment import Layer
    from infllm.engine.config import ModelConfig
    from infllm.engine.decode import StepTokens


class SteppingPolicy(Policy):
    """A policy that keeps recent tokens in `StepTokens` from the first call of one token to the
    next longer one.

    A recorded step (`Call.recorded`) leaves the host's bookkeeping to whoever replays it: before
    each replay `refresh` and `times`, after it `bring` where it lacked something, and `advance`.
    """

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

    @abc.abstractmethod
    def advance(self) -> None:
        """A step is done: its token becomes one of the past."""

    def times(self) -> list[int]:
        """What `StepTokens.clock` is to say in the next step."""
        assert self._steps is not None
        return self._steps.times(self._n_units, self.count - self._steps.past)

    @property
    def _n_units(self) -> int:
        return 0

    @property
    def recordable(self) -> bool:
        """Whether the next call, of one token, would do what the last one did."""
        return self._steps is not None

    @property
    def recorded(self) -> tuple[Any, ...]:
        """What a recording depends on: it is good as long as this is equal."""
        return (self._steps,)

    @property
    def n_asked(self) -> int:
        """Values that a recorded step tells the host: 0, or whether it lacked anything, and what it
        asked for."""
        return 0

    def open_recording(self, clock: Tensor, asked: Tensor) -> None:
        """Recorded steps read `clock` int64 [3] and write `asked` int64 [n_asked]."""
        assert self._steps is not None
        self._steps.clock = clock

    def refresh(self) -> None:
        """Others may have changed what is shared with them."""

    def bring(self, asked: Sequence[int]) -> None:
        """Have what a step lacked."""

    def touch(self, asked: Sequence[int]) -> None:
        """A step had what it asked for."""

    def fork(self) -> Self:
        other = super().fork()
        if self._steps is not None:
            other._leave_steps()
            for name in self.IN_STEPS:  # the next steps write to the rooms
                setattr(other, name, getattr(other, name).clone())
        return other

    def state(self) -> dict[str, Tensor | int]:
        self._settle()
        return super().state()

    @property
    def device_bytes(self) -> int:
        self._settle()
        rotated = 0 if self._steps is None else self._steps.rotated_bytes
        return rotated + super().device_bytes
