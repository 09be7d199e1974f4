"""Which memory units stay in the device's slots, and which gives way."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Literal

Strategy = Literal["lru", "fifo", "lru-s"]


class BlockCache:
    """Bookkeeping of `capacity` slots; holds no tensors and changes no number.

    `lru` evicts the unit used longest ago, `fifo` the one loaded first, `lru-s` the one with the
    least attention mass, decayed by `decay` at every use of the cache (InfLLM, section 3.3). A
    unit's mass is remembered while it is out of the cache.
    """

    def __init__(self, capacity: int, strategy: Strategy = "lru", decay: float = 0.1) -> None:
        self.capacity = capacity
        self.strategy = strategy
        self.decay = decay
        self.hits = 0
        self.misses = 0
        self._slot: dict[Hashable, int] = {}  # insertion order is eviction order for lru and fifo
        self._free = list(range(capacity - 1, -1, -1))
        self._mass: dict[Hashable, tuple[float, int]] = {}  # unit -> mass, as of which use
        self._clock = 0

    def __len__(self) -> int:
        return len(self._slot)

    def __contains__(self, unit: Hashable) -> bool:
        return unit in self._slot

    def slots(self) -> Iterator[tuple[Any, int]]:
        """The cached units and their slots."""
        yield from self._slot.items()

    def place(self, units: Sequence[Hashable]) -> tuple[list[int], list[tuple[int, int]]]:
        """Slots of `units` (distinct, at most `capacity`), and what must be loaded.

        Returns the slot of each unit, and pairs (index into units, slot) of those that were not
        cached. No unit of this call is evicted by this call.
        """
        self._clock += 1
        slots = [-1] * len(units)
        missing = []
        for i, unit in enumerate(units):
            slot = self._slot.get(unit)
            if slot is None:
                missing.append(i)
                continue
            slots[i] = slot
            if self.strategy == "lru":
                self._slot[unit] = self._slot.pop(unit)
        self.hits += len(units) - len(missing)
        self.misses += len(missing)
        if len(missing) > len(self._free):
            self._evict(len(missing) - len(self._free), frozenset(units))
        loads = []
        for i in missing:
            slots[i] = self._slot[units[i]] = self._free.pop()
            loads.append((i, slots[i]))
        return slots, loads

    def touch(self, units: Sequence[Hashable]) -> None:
        """Units were used again, as far as they are still cached."""
        self._clock += 1
        for unit in units:
            if unit in self._slot:
                self.hits += 1
                if self.strategy == "lru":
                    self._slot[unit] = self._slot.pop(unit)

    def _evict(self, n: int, keep: frozenset[Hashable]) -> None:
        candidates = [unit for unit in self._slot if unit not in keep]
        if self.strategy == "lru-s":
            candidates.sort(key=self.mass)  # stable: among equals the one loaded first goes
        for unit in candidates[:n]:
            self._free.append(self._slot.pop(unit))

    def credit(self, mass: Mapping[Any, float]) -> None:
        """Add the attention mass that units received in the block just computed (for `lru-s`)."""
        for unit, received in mass.items():
            self._mass[unit] = (self.mass(unit) + received, self._clock)

    def mass(self, unit: Hashable) -> float:
        """Decayed attention mass of a unit."""
        value, clock = self._mass.get(unit, (0.0, self._clock))
        return value * self.decay ** (self._clock - clock)
