"""Units on the device during one call: those that its lookups choose, and those it makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from infllm.engine.units.store import UnitStore

# Keys [n, Hkv, block_size, D] of units, int64 [n], as they will be attended.
Turn = Callable[[Tensor, Tensor], Tensor]


class CallPages:
    """Pages of a call's units, and where each unit lies, known to the device alone.

    They are made before the call's first lookup, so that what is told to the device while the host
    waits for that lookup does not hold up the copies. What the call's launches may need is known
    before any is computed: all of it is asked for at once, and comes in their order.
    """

    def __init__(
        self, store: UnitStore, most: int, room: int, turn: Turn | None = None,
        table: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        """`most`: units that may be brought; `room`: units that may be made; `turn`: what is done
        to keys once, when they come; `table`: shape of what `tell_table` tells, in place of
        `tell_places`."""
        self._store = store
        self._staging = store.staging
        self._turn = turn
        self._n_old = store.n
        self._room = room
        self._most = most
        page = store.slots.shape[1:]
        # [room for those that are made | for those that are brought, 2, Hkv, block_size, D]
        self.pages = torch.empty(room + most, *page, dtype=store.dtype, device=store.device)
        told = (self._n_old + room,) if table is None else tuple(table)
        self._told = torch.empty(told, dtype=torch.int64, device=store.device)
        self._made = 0
        self._page_of: dict[int, int] = {}  # of units that are brought
        self._marks: list[Any] = []
        self._staging.begin(self.pages, self._told)
        store.follow = self.add

    def bring(self, wanted: Sequence[Sequence[int]]) -> None:
        """Ask for all units of `wanted`, those of each launch, that stand since before the call."""
        stats, n_wanted = self._store.cache, 0
        for units in wanted:
            old = {unit for unit in units if unit < self._n_old}
            n_wanted += len(old)
            new = sorted(old - self._page_of.keys())
            first = self._room + len(self._page_of)
            self._page_of.update(zip(new, range(first, first + len(new)), strict=True))
            self._marks.append(self._load(new, first) if new else None)
        stats.hits += n_wanted - len(self._page_of)
        stats.misses += len(self._page_of)

    def _load(self, units: list[int], first: int) -> Any:
        read = self._store.gathering(units)
        pages = self.pages[first : first + len(units)]

        def put(codes: Tensor, scale: Tensor | None = None) -> None:
            self._fill(pages, self._store.opened(codes, scale), None)

        def put_turned(number: Tensor, codes: Tensor, scale: Tensor | None = None) -> None:
            self._fill(pages, self._store.opened(codes, scale), number)

        def numbered() -> list[Tensor]:
            number = self._staging.empty((len(units),), torch.int64)
            return [number.copy_(torch.tensor(units)), *read()]

        if self._turn is None:
            return self._staging.upload_later(read, put)
        return self._staging.upload_later(numbered, put_turned)

    def _fill(self, pages: Tensor, values: Tensor, number: Tensor | None) -> None:
        if self._turn is None or number is None:
            pages.copy_(values)
            return
        pages[:, 0].copy_(self._turn(values[:, 0], number))
        pages[:, 1].copy_(values[:, 1])

    def add(self, values: Tensor) -> None:
        """Units just made, [n, 2, Hkv, block_size, D], as they would come back from the host."""
        n = values.shape[0]
        number = None
        if self._turn is not None:
            first = self._n_old + self._made
            number = torch.arange(first, first + n, device=values.device)
        self._fill(self.pages[self._made : self._made + n], values, number)
        self._made += n

    def tell_places(self) -> None:
        """Let the device know where each unit lies, for `table`."""
        places = self._staging.empty(self._told.shape, torch.int64).zero_()
        places[torch.tensor(list(self._page_of), dtype=torch.int64)] = torch.tensor(
            list(self._page_of.values()), dtype=torch.int64
        )
        places[self._n_old :] = torch.arange(self._room)
        self._tell(places)

    def tell_table(self, chosen: Sequence[Sequence[int]]) -> Tensor:
        """Let the device know where units lie that the host knows, a row of the table each."""
        pages = [self._page(unit) for units in chosen for unit in units]
        table = self._staging.empty(self._told.shape, torch.int64)
        table.view(-1).copy_(torch.tensor(pages))
        self._tell(table)
        return self._told

    def _tell(self, values: Tensor) -> None:
        self._marks.insert(0, self._staging.upload([values], self._told.copy_))

    def table(self, launch: int, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Pages and the block table of units `chosen` [B, G, n] by the call's launch `launch`."""
        return self.ready(launch), self._told[chosen]

    def _page(self, unit: int) -> int:
        return unit - self._n_old if unit >= self._n_old else self._page_of[unit]

    def ready(self, launch: int) -> Tensor:
        """The pages, once those of the call's launches up to `launch` are there."""
        self._wait(launch + 2)
        return self.pages

    def close(self) -> None:
        """Before the pages go: nothing is still on its way to them."""
        self._store.follow = None
        self._wait(len(self._marks))

    def _wait(self, marks: int) -> None:
        """For the first marks: the table's, and one of each launch."""
        for i, mark in enumerate(self._marks[:marks]):
            if mark is not None:
                self._staging.wait(mark)
                self._marks[i] = None
