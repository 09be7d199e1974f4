"""Generating: one token after another, each chosen from what the step before gave."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from infllm.engine.decode import Sampler
from infllm.engine.errors import UnsupportedCall
from infllm.engine.policies import OffDevice
from infllm.engine.session.drafting import Drafting
from infllm.engine.session.results import Token, UnitMass, unit_masses

if TYPE_CHECKING:
    from infllm.engine.drafts import Drafts

SEEN = 4  # units of a token in which drafts are looked for first


class Generating(Drafting):
    """Tokens of the model's own, beside reading those that are given."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._seconds_generating = 0.0

    @torch.no_grad()
    def generate(
        self,
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        repetition_penalty: float = 1.0,
        stop_ids: Iterable[int] | None = None,
        seed: int | None = None,
        units: bool = False,
        drafts: Drafts | None = None,
    ) -> Iterator[Token]:
        """Close the segment and generate, one decode step a token.

        Ends before a token of the model's end-of-text set or of `stop_ids`. The last token yielded
        has not been fed: it waits and begins the next segment. `temperature` 0 is greedy;
        `repetition_penalty` counts generated tokens only, since a document repeats everything.
        With `units`, each token tells the memory units that chose it.

        `drafts` propose what may follow: a step then tries several tokens at once. Tokens and state
        are those of plain steps, up to how products of several rows round: a draft counts where it
        is what would have been chosen. Sampling draws as without drafts, so that a token is taken
        with the probability that the model gives it, which is the rejection rule (arXiv
        2211.17192) for a draft that is sure of itself.

        Raises:
            UnsupportedCall: nothing has been read, so that there is nothing to go on from.
        """
        sampler = Sampler(temperature, top_p, top_k, repetition_penalty, seed)
        stop = self.backing.eos_ids | frozenset(stop_ids or ())
        began = time.perf_counter()
        try:
            self.end(units)
            self._watch_units = units
            if self._last_logits is None:
                raise UnsupportedCall("nothing has been read", "read a prompt before generating")
            seen: list[UnitMass] = []
            for n in range(max_new_tokens):
                if n > 0:
                    self._answering = True
                    try:
                        self._feed(drafts, max_new_tokens - n, seen)
                    finally:
                        self._answering = False
                assert self._last_logits is not None
                token = sampler.choose(self._last_logits)
                if token in stop:
                    return
                self._pending = [token]
                self._given += 1
                if drafts is not None:
                    drafts.take(token)
                seen = self._unit_masses() if units else []
                yield Token(token, seen)
        finally:
            self._watch_units = False
            self._ahead = None
            self._seconds_generating += time.perf_counter() - began

    def _feed(self, drafts: Drafts | None, room: int, seen: list[UnitMass]) -> None:
        """The token that waits as a decode step, with what is drafted behind it where anything is.

        `room`: tokens that are still wanted.
        """
        if drafts is None:
            self._step(self._take_pending()[0])
        elif not self._go_ahead(self._pending[0]):
            # What is seen of most is tried first; a few units, or it says nothing.
            ranges = [(unit.start, unit.stop) for unit in seen[:SEEN]]
            tree = drafts.propose(min(room, self.draft_room), ranges)
            if tree is None:
                self._step(self._take_pending()[0])
            else:
                self._draft(tree)
                assert self._ahead is not None
                drafts.learn(tree, self._ahead.logits)

    def _unit_masses(self) -> list[UnitMass]:
        """Units of the last pass with their mass, largest first."""
        if self._call is None or not self._call.unit_uses:
            return []
        sizes = [p.unit_size for p in self.policies.values() if isinstance(p, OffDevice)]
        shared = len(sizes) * max(1, self._tokens)
        return unit_masses(self._call.unit_uses, max(sizes), shared)
