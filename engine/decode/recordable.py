"""What a layer's memory must offer for its decode steps to be recorded and replayed."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class Recordable(abc.ABC):
    """A memory whose decode steps are alike: shapes and addresses stay.

    A recorded step (`Call.recorded`) leaves the host's bookkeeping to whoever replays it: before
    each replay `refresh` and `times`, after it `bring` where it lacked something, and `advance`.
    """

    @property
    @abc.abstractmethod
    def recordable(self) -> bool:
        """Whether the next call, of one token, would do what the last one did."""

    @property
    @abc.abstractmethod
    def recorded(self) -> tuple[Any, ...]:
        """What a recording depends on: it is good as long as this is equal."""

    @abc.abstractmethod
    def open_recording(self, clock: Tensor, asked: Tensor) -> None:
        """Recorded steps read `clock` int64 [3] and write `asked` int64 [n_asked]."""

    @abc.abstractmethod
    def times(self) -> list[int]:
        """What `StepTokens.clock` is to say in the next step."""

    @abc.abstractmethod
    def advance(self) -> None:
        """A step is done: its token becomes one of the past."""

    @property
    def n_asked(self) -> int:
        """Values that a recorded step tells the host: 0, or whether it lacked anything, and what it
        asked for."""
        return 0

    def refresh(self) -> None:  # noqa: B027
        """Others may have changed what is shared with them."""

    def bring(self, asked: Sequence[int]) -> None:  # noqa: B027
        """Have what a step lacked."""

    def touch(self, asked: Sequence[int]) -> None:  # noqa: B027
        """A step had what it asked for."""
