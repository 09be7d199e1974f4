"""Tokens that one call attends one by one: the remainder before it, and its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from infllm.kernels.partial_attention import Band, Part

if TYPE_CHECKING:
    from infllm.engine.attachment import Rotary


class CallTokens:
    """The remainder's tokens and those of the call, rotated in each way that blocks attend them.

    Keys count from the remainder's first at the call's start, queries from the call's first.
    """

    def __init__(
        self,
        n_local: int,
        rotary: Rotary,
        rest: tuple[Tensor, Tensor],
        call: tuple[Tensor, Tensor, Tensor],
        position: int,
        *,
        exact: bool,
    ) -> None:
        """`rest`: k, v [B, Hkv, R, D]; `call`: q [B, H, T, D] and k, v [B, Hkv, T, D]; not
        rotated. `position`: of the call's first token from the session's start. `exact`: keys
        behind the window are attended at their distance and not at the far position."""
        q, k, v = call
        self._n_local = n_local
        self.k = torch.cat([rest[0], k], dim=2)  # [B, Hkv, R + T, D], not rotated
        self.v = torch.cat([rest[1], v], dim=2)
        self.past = rest[0].shape[2]  # index of the call's first token
        self.rest = 0  # index of the remainder's first token, as units are made
        self.k_near = rotary.run(self.k, 0)
        self.k_far = rotary.at(self.k, 0)
        self.q_near = rotary.run(q, self.past)
        self.q_far = rotary.at(q, n_local - 1)
        self._exact = exact
        # Of the remainder's first token, from the session's start.
        self.origin_position = position - self.past

    @property
    def origin(self) -> Tensor:
        """int64 []: position of the remainder's first token from the session's start."""
        # Filled, not copied: a copy makes the host wait.
        return torch.full((), self.origin_position, dtype=torch.int64, device=self.k.device)

    @property
    def last(self) -> Tensor:
        """int64 []: row of the call's last query."""
        return torch.full((), self.k.shape[2] - 1, dtype=torch.int64, device=self.k.device)

    @property
    def n_new(self) -> int:
        """Tokens of the call."""
        return self.k.shape[2] - self.past

    def remainder(self) -> tuple[Tensor, Tensor]:
        """k, v [B, Hkv, R, D] that the next call goes on from, not rotated: copies."""
        return self.k[:, :, self.rest :].clone(), self.v[:, :, self.rest :].clone()

    def near(self, start: int, stop: int) -> slice:
        """Keys within the windows of queries `start` to `stop - 1`."""
        return slice(max(self.rest, self.past + start - self._n_local + 1), self.past + stop)

    def queries(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """[B, H, stop - start, D] for keys near and for keys behind the window.

        One tensor where both are alike: `attend` joins neighbouring parts that share it.
        """
        near = self.q_near[:, :, start:stop]
        return near, near if self._exact else self.q_far[:, :, start:stop]

    def near_part(self, q: Tensor, start: int, stop: int, mass: Literal["column"] | None) -> Part:
        """Keys near `q`, the queries `start` to `stop - 1`; with their masses where asked for."""
        keys = self.near(start, stop)
        band = Band(self.past + start - keys.start, 0, self._n_local)
        return Part(q, self.k_near[:, :, keys], self.v[:, :, keys], band=band, mass=mass)

    def waiting_parts(self, q: Tensor, start: int, stop: int) -> list[Part]:
        """Keys behind the window of `q` that no unit holds yet, as far as there are any."""
        last = self.past + stop - self._n_local
        if last <= self.rest:
            return []
        keys = slice(self.rest, last)
        band = Band(self.past + start - self.rest, self._n_local)
        return [Part(q, self._k_behind[:, :, keys], self.v[:, :, keys], band=band)]

    @property
    def _k_behind(self) -> Tensor:
        return self.k_near if self._exact else self.k_far

    def parts_together(self, start: int, stop: int, size: int) -> tuple[Part, Part]:
        """Near and waiting keys of whole blocks of `size` queries, the blocks in place of the
        batch: all are views.

        Only where windows are full, and each block makes units of as many tokens as it brings.
        """

        def blocks(x: Tensor, first: int, n: int) -> Tensor:
            """[E, heads, n, D] of x [1, heads, S, D]: n rows for each block, `first` on for the
            call's first block."""
            rows = x[0, :, first + start : first + stop - size + n]
            return rows.unfold(1, n, size).permute(1, 0, 3, 2)

        n_local = self._n_local
        oldest, n_near = self.past - n_local + 1, n_local - 1 + size
        n_waiting = self.past + size - n_local  # from the block's first waiting token on
        q = blocks(self.q_near, 0, size)
        near = Part(
            q,
            blocks(self.k_near, oldest, n_near),
            blocks(self.v, oldest, n_near),
            band=Band(n_local - 1, 0, n_local),
        )
        waiting = Part(
            q if self._exact else blocks(self.q_far, 0, size),
            blocks(self._k_behind, 0, n_waiting),
            blocks(self.v, 0, n_waiting),
            band=Band(self.past, n_local),
        )
        return near, waiting
