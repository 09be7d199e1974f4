"""Policies that keep keys and values off the device, in units of a `UnitStore`."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from infllm.engine.policies.base import Policy

if TYPE_CHECKING:
    from torch import Tensor

    from infllm.engine.units import Run, UnitStore


class OffDevice(Policy):
    """What forks, memory files and counts need to know of such a policy."""

    units: UnitStore | None = None

    @property
    @abc.abstractmethod
    def unit_size(self) -> int:
        """Tokens of a unit."""

    @abc.abstractmethod
    def open_store(self, batch: int) -> UnitStore:
        """The store of so many sequences, made anew."""

    def fork(self) -> Self:
        other = super().fork()
        if self.units is not None:
            other.units = self.units.fork()
        return other

    def adopt(self, capacity: int, index: list[Tensor], runs: list[Run], *, growing: bool) -> None:
        """Take over units that files hold, see `UnitStore.adopt`."""
        store = self.open_store(1) if self.units is None else self.units
        store.adopt(capacity, index, runs, growing=growing)

    def restore(self, state: Mapping[str, Tensor | int]) -> None:
        super().restore(state)
        if self.units is None and state.get("count", 0) > 0:
            self.open_store(1)

    @property
    def disk_bytes(self) -> int:
        return 0 if self.units is None else self.units.disk_bytes

    @property
    def host_bytes(self) -> int:
        return 0 if self.units is None else self.units.host_bytes

    @property
    def device_bytes(self) -> int:
        return super().device_bytes + (0 if self.units is None else self.units.device_bytes)
