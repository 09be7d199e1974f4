"""LM-Infinite with its middle: single keys between the initial tokens and the window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from infllm.engine.attachment import UnitUse
from infllm.engine.policies.base import Policy, spans_of
from infllm.engine.policies.off_device import OffDevice
from infllm.engine.policies.window import InfiniteLM
from infllm.engine.units import PAGE, UnitStore
from infllm.kernels.key_topk import key_products
from infllm.kernels.partial_attention import Part

if TYPE_CHECKING:
    from infllm.engine.attachment import Call, Layer
    from infllm.engine.config import ModelConfig

QUERIES = 128  # that choose at once


def infinite_lm(config: ModelConfig, layer: Layer) -> Policy:
    """LM-Infinite in one layer, with the middle where the configuration gives it any."""
    return (MiddleLM if config.has_middle(layer.index) else InfiniteLM)(config, layer)


class MiddleLM(OffDevice, InfiniteLM):
    """LM-Infinite (arXiv 2308.16137) with its optional third part (appendix D).

    A query at i also attends, of the keys j with n_init <= j <= i - n_local, the middle_topk of the
    largest logits, all at the distance middle_position; each query head chooses by itself. Kept
    besides initial tokens and window: all keys and values, in pages of the host's units, and the
    tokens behind the window that do not fill a page yet, with the window.
    """

    steps_in_place = False  # a step's keys are chosen on the host

    def __init__(self, config: ModelConfig, layer: Layer) -> None:
        super().__init__(config, layer)
        self.k = config.middle_topk
        place = config.middle_position
        self.distance = self.n_local // 2 if place is None else place
        self.asks_for_the_end = config.middle_queries == "last"
        self.record: list[tuple[int, Tensor]] | None = None  # position, keys [H, n] by position

    @property
    def unit_size(self) -> int:
        return PAGE

    def open_store(self, batch: int) -> UnitStore:
        of_pages = {"block_size": PAGE, "topk": self.k, "perhead": True, "keep_units": False}
        config = self.config.model_copy(update=of_pages)
        self.units = UnitStore(config, self.layer, batch, indexed=False)
        return self.units

    @property
    def _stored(self) -> int:
        """Middle keys in pages."""
        return 0 if self.units is None else PAGE * self.units.n

    @property
    def _first(self) -> int:
        """Position of the oldest token that is kept with the window."""
        return self.n_init + self._stored if self._stored else 0

    @property
    def draft_room(self) -> int:
        made = self.n_init + self._stored + PAGE  # tokens before the page that is made next
        return max(0, made + self.n_local - 2 - self.count)

    # ---- choose ---------------------------------------------------------------------------------

    def begin(self, q: Tensor, k: Tensor, v: Tensor, call: Call) -> None:
        if self.units is None:
            self.open_store(k.shape[0])
        super().begin(q, k, v, call)
        n = q.shape[2]
        self._call = call
        last = n - 1 if call.closes else n
        self._from = last if self.config.middle_queries == "last" else 0
        # Before position n_local + n_init there is nothing between.
        self._from = min(n, max(self._from, self.n_local + self.n_init - self.count))
        self._q_middle = self.layer.rotary.at(q[:, :, self._from :], self.distance)
        blocks = self._q_middle.split(QUERIES, dim=2)
        first = range(self._from, n, QUERIES)
        self._chosen = [self._choose(*pair) for pair in zip(blocks, first, strict=False)]

    def _choose(self, q: Tensor, first: int) -> Tensor:
        """int64 [B, H, T, <= k]: middle keys of queries [B, H, T, D] from `first` of the call on,
        counted from n_init, best first; a query that has fewer gets others behind its own."""
        assert self.units is not None
        best, index = self.units.top_keys(q, self.k)
        lead = self.n_init + self._stored - self._first  # kept with the window, and in no page
        behind = self._past + first + q.shape[2] - self.n_local - lead
        if behind > 0:
            waiting = key_products(q, self._k[:, :, lead : lead + behind])
            place = torch.arange(behind, device=q.device)
            query = torch.arange(q.shape[2], device=q.device)[:, None]
            near = place > self._past + first + query - self.n_local - lead
            best = torch.cat([best, waiting.masked_fill_(near, float("-inf"))], dim=-1)
            index = torch.cat([index, (place + self._stored).expand_as(waiting)], dim=-1)
            index = index.gather(-1, best.topk(min(self.k, best.shape[-1]), dim=-1).indices)
        return index

    # ---- attend ---------------------------------------------------------------------------------

    def spans(self, tokens: int) -> list[tuple[int, int]]:
        # Queries with keys of their own come one by one.
        ones = [(i, i + 1) for i in range(self._from, tokens)]
        return [*spans_of(self.query_block, self._from), *ones]

    def parts(self, start: int, stop: int) -> list[Part]:
        parts = super().parts(start, stop)
        self._attended: Tensor | None = None
        if start >= self._from:
            row = start - self._from
            n = min(self.k, self.count + start - self.n_local - self.n_init + 1)
            chosen = self._chosen[row // QUERIES][:, :, row % QUERIES, :n].sort(dim=-1).values
            self._attended = chosen
            if self.record is not None:
                self.record.append((self.count + start, chosen[0] + self.n_init))
            k, v = self._fetch(chosen)
            k = self.layer.rotary.at(k, 0)
            mass = "column" if self._call.watch_units else None
            q = self._q_middle[:, :, row : row + 1]
            parts.append(Part(q, k, v, mass=mass))  # type: ignore[arg-type]
        return parts

    def _fetch(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """k, v [B, H, n, D], as stored, of the middle keys `chosen` [B, H, n]."""
        b, h, _ = chosen.shape
        batch = torch.arange(b, device=chosen.device)[:, None, None]
        head = torch.arange(h, device=chosen.device)[None, :, None] // (h // self._k.shape[1])
        row = (chosen + self.n_init - self._first).clamp_min(0)
        k, v = self._k[batch, head, row], self._v[batch, head, row]
        if self._stored == 0:
            return k, v
        assert self.units is not None
        inside = chosen < self._stored
        page = chosen.clamp_max(self._stored - 1)
        slots, table = self.units.fetch(page // PAGE)
        paged = (slots[table, x, head, page % PAGE] for x in (0, 1))
        k, v = (torch.where(inside[..., None], x, y) for x, y in zip(paged, (k, v), strict=True))
        return k, v

    def update(self, start: int, stop: int, masses: list[Tensor | None]) -> None:
        if self._attended is None or masses[-1] is None:
            return
        page = self.n_init + self._attended // PAGE * PAGE  # from the session's start
        page = page + self._call.position - self.count
        self._call.unit_uses.append(UnitUse(self.layer.index, page, masses[-1]))

    # ---- keep -----------------------------------------------------------------------------------

    def end(self) -> None:
        assert self.units is not None
        before = self._first
        self.count += self._k.shape[2] - self._past
        behind = max(0, self.count - self.n_local + 1)  # tokens that no later query has near it
        n = (behind - self.n_init - self._stored) // PAGE
        if n > 0:
            new = self.n_init + self._stored - before
            k, v = (
                x[:, :, new : new + n * PAGE].unflatten(2, (n, PAGE)) for x in (self._k, self._v)
            )
            self.units.append(k, v, k.new_empty(k.shape[0], 0, n, k.shape[-1]))
        kept = slice(self._first - before, None)
        self.recent_k, self.recent_v = (x[:, :, kept].clone() for x in (self._k, self._v))
        self.units.staging.drain()
        del self._k, self._v, self._k_near, self._q_near, self._q_init
        del self._call, self._q_middle, self._chosen, self._attended
