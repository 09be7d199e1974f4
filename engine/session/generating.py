"""Generating: one token after another, each chosen from what the step before gave."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from infllm.engine.decode import Sampler
from infllm.engine.errors import UnsupportedCall
from infllm.engine.policies import OffDevice
from infllm.engine.session.results import Token, UnitMass, unit_masses
from infllm.engine.session.steps import Stepping


class Generating(Stepping):
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
    ) -> Iterator[Token]:
        """Close the segment and generate, one decode step a token.

        Ends before a token of the model's end-of-text set or of `stop_ids`. The last token yielded
        has not been fed: it waits and begins the next segment. `temperature` 0 is greedy;
        `repetition_penalty` counts generated tokens only, since a document repeats everything.
        With `units`, each token tells the memory units that chose it.

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
            for n in range(max_new_tokens):
                if n > 0:
                    self._answering = True
                    try:
                        self._step(self._take_pending()[0])
                    finally:
                        self._answering = False
                assert self._last_logits is not None
                token = sampler.choose(self._last_logits)
                if token in stop:
                    return
                self._pending = [token]
                self._given += 1
                yield Token(token, self._unit_masses() if units else [])
        finally:
            self._watch_units = False
            self._seconds_generating += time.perf_counter() - began

    def _unit_masses(self) -> list[UnitMass]:
        """Units of the last pass with their mass, largest first."""
        if self._call is None or not self._call.unit_uses:
            return []
        sizes = [p.unit_size for p in self.policies.values() if isinstance(p, OffDevice)]
        shared = len(sizes) * max(1, self._tokens)
        return unit_masses(self._call.unit_uses, max(sizes), shared)
