"""Initial tokens and units of decode steps on a CPU, side by side in float32, from step to step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from infllm.kernels.partial_attention import Part

if TYPE_CHECKING:
    from infllm.engine.policies.unit_memory import UnitMemory


class FarRows:
    """What a layer's steps attend behind the window, where a product takes it without a copy.

    Most units of a step are those of the step before: only others are copied, into the rows of
    those that are attended no longer.
    """

    def __init__(self, layer: UnitMemory, like: Tensor) -> None:
        """`like`: keys [B, Hkv, ..., D] in the dtype to keep."""
        assert layer.units is not None
        self._units, self._rotary = layer.units, layer.layer.rotary
        self._size = layer.config.block_size
        self._unit_of: list[list[int]] = []  # by sequence and place: as the steps so far want it
        self._lying: list[list[int]] = []  # likewise: what lies there, also of steps taken back
        self._wanted: list[list[int]] = []  # brought last, by sequence
        b, heads, _, d = like.shape
        self._k, self._v = (like.new_empty(2, b, heads, 0, d)).unbind()
        self._init: tuple[Tensor, Tensor] | None = None
        if layer.init_k is not None:
            assert layer.init_v is not None
            k, v = (x.to(like.dtype) for x in (layer.init_k, layer.init_v))
            self._init = self._rotary.at(k, 0), v

    def init_parts(self, q: Tensor) -> list[Part]:
        """The initial tokens, as far as there are any, for far queries [B, H, 1, D]."""
        return [] if self._init is None else [Part(q, *self._init)]

    def bring(self, chosen: Tensor) -> None:
        """Have units `chosen` int64 [B, 1, n], in whatever order."""
        pages, table = self._units.fetch(chosen)
        wanted, slots = chosen[:, 0].tolist(), table[:, 0].tolist()
        n = len(wanted[0])
        if self._k.shape[2] != n * self._size:
            b, heads, _, d = self._k.shape
            self._k, self._v = self._k.new_empty(2, b, heads, n * self._size, d).unbind()
            self._lying = [[-1] * n for _ in range(b)]
        if not self._unit_of or len(self._unit_of[0]) != n:
            self._unit_of = [[-1] * n for _ in self._lying]
        for b, held in enumerate(self._unit_of):
            kept = set(wanted[b])
            free = [place for place, unit in enumerate(held) if unit not in kept]
            for place, unit in zip(free, sorted(kept.difference(held)), strict=True):
                held[place] = unit
            if held == self._lying[b]:
                continue
            slot_of = dict(zip(wanted[b], slots[b], strict=True))
            for place, unit in enumerate(held):
                if self._lying[b][place] != unit:
                    self._load(b, place, pages[slot_of[unit]])
                    self._lying[b][place] = unit
        self._wanted = wanted

    def by_unit(self, mass: Tensor) -> Tensor:
        """Masses [B, H, n] of the units brought last, in their order, of those of their keys."""
        mass = mass.unflatten(2, (-1, self._size)).sum(dim=3)
        places = [
            [held.index(unit) for unit in wanted]
            for held, wanted in zip(self._unit_of, self._wanted, strict=True)
        ]
        return mass.gather(2, torch.tensor(places)[:, None].expand_as(mass))

    def mark(self) -> Callable[[], None]:
        """What takes the order in which units lie back, and forward again, to what it is now."""
        unit_of = [list(held) for held in self._unit_of]

        def back() -> None:
            self._unit_of = [list(held) for held in unit_of]

        return back

    def _load(self, b: int, place: int, page: Tensor) -> None:
        """Put page [2, Hkv, block_size, D] into a place."""
        rows = slice(place * self._size, (place + 1) * self._size)
        k = page[0]
        if self._rotary.rope.scale != 1.0:
            k = self._rotary.at(k[None].to(self._k.dtype), 0)[0]
        self._k[b, :, rows] = k
        self._v[b, :, rows] = page[1]

    def unit_part(self, q: Tensor, watched: bool) -> Part:
        """The units brought last; with the masses of their keys where they are watched."""
        return Part(q, self._k, self._v, mass="column" if watched else None)

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept here."""
        kept = (self._k, self._v, *(self._init or ()))
        return sum(x.nbytes for x in kept)
