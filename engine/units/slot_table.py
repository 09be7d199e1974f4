"""Where units lie among the device's slots, for recorded decode steps: known to the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from infllm.kernels.unit_topk import top_places, top_units

if TYPE_CHECKING:
    from infllm.engine.units.store import UnitStore


class SlotTable:
    """The slots of a store of one sequence, as a recorded step looks them up.

    A recorded step cannot wait for a unit that is in no slot. It says so and goes on with another
    one in its place; what came of it is thrown away, and the step replayed once the unit is there.
    """

    def __init__(self, store: UnitStore, asked: Tensor) -> None:
        """`asked`: int64 [1 + units of a lookup] on the device: whether any was missing, and which
        were looked up."""
        self._store = store
        self._asked = asked
        n = sum(store.rows)
        self._slot_of = torch.full((n,), -1, dtype=torch.int64)  # on the host
        self._unit_in: dict[int, int] = {}
        self._on_device = torch.full((n,), -1, dtype=torch.int64, device=store.device)
        self._loads = -1  # of the cache, when the table was last equal to it

    def best(self, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k units of best scores [1, G, N], and their slots, int64 [1, G, k]; on the device
        alone."""
        if scores.shape[1] == 1:
            return top_places(scores, k, self._on_device, self._asked)
        chosen = top_units(scores, k)
        slots = self._on_device[chosen]
        self._asked[:1] = (slots < 0).any()
        self._asked[1:] = chosen.flatten()
        return chosen, slots.clamp_(min=0)

    def refresh(self) -> None:
        """Take over what others that share the slots have changed."""
        cache = self._store.cache
        if self._loads == cache.misses:
            return
        self._slot_of.fill_(-1)
        self._unit_in.clear()
        first = {view.slab.number: (view.first, view.count) for view in self._store.views}
        for (number, row, _), slot in cache.slots():
            start, count = first.get(number, (0, 0))
            if row < count:
                self._note(start + row, slot)
        self._tell()

    def touch(self, units: Sequence[int]) -> None:
        """Units were looked up and found."""
        self._store.cache.touch(self._store.keys(sorted(set(units))))

    def bring(self, units: Sequence[int]) -> None:
        """Have units in slots, at most as many different ones as there are slots."""
        store = self._store
        # What a step computed on a slot's earlier content may be no number: its choices are none.
        wanted = sorted({unit for unit in units if unit < store.n})
        _, loads = store.cache.place(store.keys(wanted))
        if not loads:
            return
        missing, slots = [wanted[i] for i, _ in loads], [slot for _, slot in loads]
        store.load(missing, slots)
        for unit, slot in zip(missing, slots, strict=True):
            self._note(unit, slot)
        self._tell()

    def _note(self, unit: int, slot: int) -> None:
        before = self._unit_in.get(slot)
        if before is not None:
            self._slot_of[before] = -1
        self._slot_of[unit] = slot
        self._unit_in[slot] = unit

    def _tell(self) -> None:
        self._on_device.copy_(self._slot_of)
        self._loads = self._store.cache.misses
