"""Units on the device during one call: those that its lookups may choose, and those it makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from infllm.kernels.quantize import dequantize

if TYPE_CHECKING:
    from infllm.engine.units.store import UnitStore


class CallPages:
    """Pages of a call's units, and where each unit lies, known to the device alone.

    The best units of a lookup are among the best of those that stood at the call's start and those
    made since. So what the call's blocks may need is known before any is computed: the host asks
    for it once, and brings the units of a block to the device while the block before is computed.
    """

    def __init__(self, store: UnitStore, wanted: Sequence[Sequence[int]], room: int) -> None:
        """`wanted`: units that each execution block may choose; `room`: units that may be made."""
        self._store = store
        self._staging = store.staging
        self._loads: list[list[int]] = []  # units that no block before has brought, ascending
        seen: set[int] = set()
        for units in wanted:
            self._loads.append(sorted(set(units) - seen))
            seen.update(units)
        self.n_wanted = sum(len(set(units)) for units in wanted)
        self.n_loaded = len(seen)
        page = store.slots.shape[1:]
        self.pages = torch.empty(
            self.n_loaded + room, *page, dtype=store.dtype, device=store.device
        )  # [pages, 2, Hkv, block_size, D]
        self._place = torch.empty(store.n + room, dtype=torch.int64, device=store.device)
        self._made = self.n_loaded  # pages in use by loaded and made units
        self._done = 0  # blocks whose units have been asked for
        self._marks: list[Any] = []
        self._staging.begin(self.pages, self._place)
        self._place_mark = self._tell_places(room)
        store.cache.hits += self.n_wanted - self.n_loaded
        store.cache.misses += self.n_loaded
        store.follow = self.add

    def _tell_places(self, room: int) -> Any:
        place = self._staging.empty(self._place.shape, torch.int64).zero_()
        loaded = torch.tensor([u for units in self._loads for u in units], dtype=torch.int64)
        place[loaded] = torch.arange(self.n_loaded)
        place[self._store.n :] = torch.arange(self.n_loaded, self.n_loaded + room)
        return self._staging.upload([place], self._place.copy_)

    def load(self, block: int) -> None:
        """Ask for the units of the call's blocks up to `block`; those of the last are the last."""
        while self._done <= min(block, len(self._loads) - 1):
            units = self._loads[self._done]
            first = sum(map(len, self._loads[: self._done]))
            self._marks.append(self._load(units, first) if units else None)
            self._done += 1

    def _load(self, units: Sequence[int], first: int) -> Any:
        def put(codes: Tensor, scale: Tensor | None = None) -> None:
            pages = self.pages[first : first + len(units)]
            pages.copy_(dequantize(codes, scale, pages.dtype))

        return self._staging.upload(self._store.gather(units), put)

    def add(self, values: Tensor) -> None:
        """Units just made, [n, 2, Hkv, block_size, D], as they would come back from the host."""
        self.pages[self._made : self._made + values.shape[0]].copy_(values)
        self._made += values.shape[0]

    def table(self, block: int, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Pages and the block table of units `chosen` [B, G, n] by the call's block `block`."""
        self.load(block)
        self._wait(block + 1)
        return self.pages, self._place[chosen]

    def close(self) -> None:
        """Before the pages go: nothing is still on its way to them."""
        self._store.follow = None
        self._wait(len(self._marks))

    def _wait(self, blocks: int) -> None:
        for mark in (self._place_mark, *self._marks[:blocks]):
            if mark is not None:
                self._staging.wait(mark)
