"""Initial tokens and units of decode steps on a CPU, side by side in float32, from step to step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from infllm.kernels.partial_attention import Part
from infllm.kernels.rotate import rotate

if TYPE_CHECKING:
    from infllm.engine.decode import StepTokens
    from infllm.engine.policies.unit_memory import UnitMemory

Lying = tuple[int, int]  # a unit, and where its first key is rotated to: as seen from row 0


class FarRows:
    """What a layer's steps attend behind the window, where a product takes it without a copy.

    Most units of a step are those of the step before: only others are copied, into the rows of
    those that are attended no longer. Their keys lie rotated: where tokens have one distance, as
    published, to position 0; where they have their own, as seen from the window's first row, and
    those beyond the limit (`far_limit`) to 0 and behind the others, for a query at the limit.
    """

    def __init__(self, layer: UnitMemory, tokens: StepTokens) -> None:
        cfg = layer.config
        assert layer.units is not None
        self._units, self._rope = layer.units, layer.layer.rotary.rope
        self._size, self._n_init = cfg.block_size, cfg.n_init
        self._exact = cfg.far_position != "capped"
        self._limit: int | None = None
        if cfg.far_position == "within" and cfg.far_limit is not None:
            self._limit = max(cfg.far_limit, 2 * cfg.n_local)
            turn = torch.tensor([self._limit - cfg.n_local])  # from the far position on
            self._turn = replace(self._rope, scale=1.0).cos_sin(turn)
        like = tokens.k_near
        self._unit_of: list[list[int]] = []  # by sequence and place: as the steps so far want it
        self._lying: list[list[Lying | None]] = []  # likewise: also as steps taken back left it
        self._wanted: list[list[int]] = []  # brought last, by sequence
        self._n_near = 0  # places of units within the limit, before the others
        b, heads, _, d = like.shape
        self._k, self._v = like.new_empty(2, b, heads, 0, d).unbind()
        self._init: tuple[Tensor, Tensor] | None = None
        self._init_raw: Tensor | None = None
        self._init_start: int | None = None
        if layer.init_k is not None:
            assert layer.init_v is not None
            self._init_raw = layer.init_k.to(like.dtype)
            self._init = torch.empty_like(self._init_raw), layer.init_v.to(like.dtype)
        # Of the step under way.
        self._origin = self._last = 0
        self._q_near = self._q_far = torch.empty(0)

    def begin(self, tokens: StepTokens, origin: int) -> None:
        """A step begins whose window's first row is at `origin`."""
        self._origin, self._last = origin, tokens.past
        self._q_near, self._q_far = tokens.queries(0, 1)
        if self._limit is not None:
            self._q_far = tokens.q_far
            self._turned = False

    def _start(self, position: int) -> int | None:
        """Where a key at `position` is rotated to; None beyond the limit."""
        if not self._exact:
            return 0
        start = position - self._origin
        beyond = self._limit is not None and start <= self._last - self._limit
        return None if beyond else start

    def _query(self, *, beyond: bool) -> Tensor:
        if not beyond:
            return self._q_far if self._limit is None else self._q_near
        if not self._turned:
            self._q_far, self._turned = rotate(self._q_far, *self._turn, self._rope.layout), True
        return self._q_far

    def init_parts(self) -> list[Part]:
        """The initial tokens, as far as there are any."""
        if self._init is None:
            return []
        start = self._start(0)
        if (start or 0) != self._init_start:
            assert self._init_raw is not None
            self._init_start = start or 0
            self._init[0].copy_(self._rotated(self._init_raw, self._init_start))
        return [Part(self._query(beyond=start is None), *self._init)]

    def bring(self, chosen: Tensor) -> None:
        """Have units `chosen` int64 [B, 1, n], in whatever order.

        Of several sequences none may be beyond a limit.
        """
        pages, table = self._units.fetch(chosen)
        wanted, slots = chosen[:, 0].tolist(), table[:, 0].tolist()
        n = len(wanted[0])
        if self._k.shape[2] != n * self._size:
            b, heads, _, d = self._k.shape
            self._k, self._v = self._k.new_empty(2, b, heads, n * self._size, d).unbind()
            self._lying = [[None] * n for _ in range(b)]
        if not self._unit_of or len(self._unit_of[0]) != n:
            self._unit_of = [[-1] * n for _ in self._lying]
        for b, held in enumerate(self._unit_of):
            starts = {unit: self._start(unit * self._size + self._n_init) for unit in wanted[b]}
            near = {unit for unit, start in starts.items() if start is not None}
            self._n_near = len(near)
            _place(held, near, range(self._n_near))
            _place(held, starts.keys() - near, range(self._n_near, n))
            slot_of = dict(zip(wanted[b], slots[b], strict=True))
            lying = self._lying[b]
            for place, unit in enumerate(held):
                one = unit, starts[unit] or 0
                if lying[place] != one:
                    self._load(b, place, pages[slot_of[unit]], one[1])
                    lying[place] = one
        self._wanted = wanted

    def by_unit(self, masses: Sequence[Tensor]) -> Tensor:
        """Masses [B, H, n] of the units brought last, in their order, of those of their keys."""
        mass = torch.cat([x.unflatten(2, (-1, self._size)).sum(dim=3) for x in masses], dim=2)
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

    def _load(self, b: int, place: int, page: Tensor, start: int) -> None:
        """Put page [2, Hkv, block_size, D] into a place."""
        rows = slice(place * self._size, (place + 1) * self._size)
        self._k[b, :, rows] = self._rotated(page[0].to(self._k.dtype), start)
        self._v[b, :, rows] = page[1]

    def _rotated(self, k: Tensor, start: int) -> Tensor:
        """Keys k [..., n, D], the first of them at `start`."""
        if not self._exact and self._rope.scale == 1.0:
            return k
        n = k.shape[-2] if self._exact else 1  # at one position, or at their own
        return rotate(k, *self._rope.cos_sin(start + torch.arange(n)), self._rope.layout)

    def unit_parts(self, *, watched: bool) -> list[Part]:
        """The units brought last; with the masses of their keys where they are watched."""
        parts, cut = [], self._n_near * self._size
        for rows, beyond in ((slice(0, cut), False), (slice(cut, self._k.shape[2]), True)):
            if rows.start < rows.stop:
                k, v = self._k[:, :, rows], self._v[:, :, rows]
                mass: Literal["column"] | None = "column" if watched else None
                parts.append(Part(self._query(beyond=beyond), k, v, mass=mass))
        return parts

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept here."""
        kept = (self._k, self._v, *(self._init or ()))
        return sum(x.nbytes for x in kept)


def _place(held: list[int], units: set[int], places: range) -> None:
    """Let `places` of `held` be of `units`, as many; those that are there stay."""
    free = [place for place in places if held[place] not in units]
    missing = sorted(units.difference(held[p] for p in places))
    for place, unit in zip(free, missing, strict=True):
        held[place] = unit
