"""Tokens that decode steps attend one by one, in place: nothing moves from one step to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from infllm.kernels.partial_attention import Band, Part
from infllm.kernels.rotate import rotate
from infllm.kernels.rotate_append import rotate_append
from infllm.kernels.take_step import StepRows, take_step

if TYPE_CHECKING:
    from infllm.engine.attachment import Rotary


class StepTokens:
    """The window and what waits behind it, in rooms of fixed size, for calls of one token.

    Row 0 is the oldest token; `take` writes the step's token at row `past`. What changes from step
    to step is told to the device by `clock`, so that a recorded step can be replayed, and a step
    that is replayed writes the same rows again. `advance` makes the step's token one of the past.

    On a CPU a step that is not recorded knows its row: it attends the rows that it sees and no
    others, as they are. Its keys and values near are kept in float32, since a CPU's products of
    few rows are no faster in less and would round the logits.
    """

    n_new = 1

    def __init__(
        self, n_local: int, rotary: Rotary, past: tuple[Tensor, Tensor], rows: int, *,
        behind: int = 0, exact: bool = False,
    ) -> None:  # fmt: skip
        """past: k, v [B, Hkv, R, D], not rotated, R < `rows`; `behind`: tokens that may wait behind
        the window; `exact`: they are attended at their distance and not at the far position."""
        k, v = past
        self.past = k.shape[2]  # row of the step's token
        self.rest = 0  # rows that leave by `advance`
        self.rows = rows
        self._n_local = n_local
        self._behind = behind
        self._exact = exact
        self._rotary = rotary
        self._cos, self._sin = rotary.tables(max(rows, n_local))
        self.k, self.v = (x.new_zeros(*x.shape[:2], rows, x.shape[3]) for x in past)
        self._host = k.device.type == "cpu"
        self._plain = False  # the step under way is of a CPU and not recorded
        near = torch.promote_types(k.dtype, torch.float32) if self._host else k.dtype
        self.k_near = torch.zeros_like(self.k, dtype=near)
        self.v_near = self.v if near == v.dtype else torch.zeros_like(self.v, dtype=near)
        # Equal to k but for YaRN's scale.
        self.k_far = self.k if rotary.rope.scale == 1.0 else torch.zeros_like(self.k)
        self.k[:, :, : self.past] = k
        self.v[:, :, : self.past] = v
        self._rotate()
        # int64 [3]: row of the step's token; units that it may choose; row 0's position.
        self.clock = torch.zeros(3, dtype=torch.int64, device=k.device)

    def _rotate(self) -> None:
        k = self.k[:, :, : self.past]
        self.k_near[:, :, : self.past] = self._rotary.run(k.to(self.k_near.dtype), 0)
        if self.v_near is not self.v:
            self.v_near[:, :, : self.past] = self.v[:, :, : self.past]
        if self.k_far is not self.k:
            self.k_far[:, :, : self.past] = self._rotary.at(k, 0)

    @property
    def origin(self) -> Tensor:
        """int64 [], on the device: position of row 0 from the session's start."""
        return self.clock[2]

    @property
    def last(self) -> Tensor:
        """int64 [], on the device: row of the step's token."""
        return self.clock[0]

    @property
    def n_units(self) -> Tensor:
        """int64 [1], on the device: units that the step may choose."""
        return self.clock[1:2]

    def times(self, units: int, origin: int) -> list[int]:
        """What `clock` is to say in this step."""
        return [self.past, units, origin]

    def take(
        self, q: Tensor, k: Tensor, v: Tensor, sums: Tensor | None = None, *, recorded: bool
    ) -> None:
        """The step's tokens: q [B, H, T, D], k and v [B, Hkv, T, D], not rotated.

        `sums` float32 [B, H, rows + 1, D]: of the far queries of the rows before each, goes on.
        """
        self._plain = self._host and not recorded
        if self._plain:
            self._take_here(q, k, v, sums)
            return
        far = None if self.k_far is self.k else self.k_far
        rows = StepRows(self.k, self.v, self.k_near, far, sums)
        self.q_near, self.q_far = take_step(
            q, k, v, self.clock[:1], self._cos, self._sin, self._n_local - 1, rows,
            self._rotary.rope.layout,
        )  # fmt: skip
        if self.v_near is not self.v:
            rotate_append(v, self._cos[:1, :0], self._sin[:1, :0], self.v_near, self.clock[0])

    def _take_here(self, q: Tensor, k: Tensor, v: Tensor, sums: Tensor | None) -> None:
        """`take` for a row that the host knows; queries in float32."""
        here, far = slice(self.past, self.past + 1), slice(self._n_local - 1, self._n_local)
        layout, heads, wide = self._rotary.rope.layout, q.shape[1], self.k_near.dtype
        self.k[:, :, here] = k
        self.v[:, :, here] = v
        if self.v_near is not self.v:
            self.v_near[:, :, here] = v
        if self.k_far is not self.k:
            self.k_far[:, :, here] = self._rotary.at(k, 0)
        q = q.to(wide)
        near = rotate(torch.cat([q, k.to(wide)], 1), self._cos[here], self._sin[here], layout)
        self.q_near, self.k_near[:, :, here] = near[:, :heads], near[:, heads:]
        self.q_far = rotate(q, self._cos[far], self._sin[far], layout)
        if sums is not None:
            sums[:, :, self.past + 1] = sums[:, :, self.past] + self.q_far[:, :, 0]

    def near(self, start: int, stop: int) -> slice:
        """Rows of `near_part`."""
        if self._plain:
            return slice(max(0, self.past + 1 - self._n_local), self.past + 1)
        return slice(0, self.rows)

    def queries(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """[B, H, 1, D] for keys near and for keys behind the window."""
        return self.q_near, self.q_near if self._exact else self.q_far

    def near_part(self, q: Tensor, start: int, stop: int, mass: Literal["column"] | None) -> Part:
        """Keys within the window; with their masses where asked for."""
        if self._plain:
            rows = self.near(start, stop)
            return Part(q, self.k_near[:, :, rows], self.v_near[:, :, rows], mass=mass)
        band = Band(0, 0, self._n_local)
        return Part(q, self.k_near, self.v, band=band, shift=self.clock[:1], mass=mass)

    def waiting_parts(self, q: Tensor, start: int, stop: int) -> list[Part]:
        """Keys behind the window, as far as there can be any."""
        k = self.k_near if self._exact else self.k_far
        if self._plain:
            rows = slice(0, max(0, self.past + 1 - self._n_local))
            if rows.stop == 0:
                return []
            return [Part(q, k[:, :, rows].to(q.dtype), self.v_near[:, :, rows])]
        k, v = (x[:, :, : self._behind] for x in (k, self.v))
        return [Part(q, k, v, band=Band(0, self._n_local), shift=self.clock[:1])]

    def advance(self) -> None:
        """The step is over: its token is past, rows before `rest` leave."""
        self.past += 1
        if self.rest == 0:
            return
        kept = slice(self.rest, self.past)
        self.past -= self.rest
        self.rest = 0
        for x in (self.k, self.v):
            x[:, :, : self.past] = x[:, :, kept].clone()
        self._rotate()

    def remainder(self) -> tuple[Tensor, Tensor]:
        """k, v [B, Hkv, past, D], not rotated: views, which the next steps leave as they are until
        rows leave."""
        return self.k[:, :, : self.past], self.v[:, :, : self.past]

    @property
    def rotated_bytes(self) -> int:
        """Bytes of what is kept besides k and v."""
        kept = {id(x): x for x in (self.k, self.v, self.k_near, self.v_near, self.k_far)}
        return sum(x.nbytes for x in kept.values()) - self.k.nbytes - self.v.nbytes
