"""Decode steps of a session: one token each, replayed as recorded where they can be."""

from __future__ import annotations

import time
from typing import Any

import torch

from infllm.engine.attachment import Call
from infllm.engine.decode import Decoder, all_recordable
from infllm.engine.session.reading import Reading


class Stepping(Reading):
    """Reading, token by token."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._decoder: Decoder | None = None  # of the last steps, where they were recorded

    def _step(self, token: int) -> None:
        """One token as a segment of its own: a decode step."""
        self.refuse_broken()
        if not self._replay_step(token):
            self._forward([token], closes=True, step=True)
            self._offset = 0

    def _replay_step(self, token: int) -> bool:
        """A step as the one before was, if that was recorded: whether it was done."""
        decoder = self._recording()
        if decoder is None:
            return False
        began = time.perf_counter()
        self._broken = True  # until the step is complete
        try:
            logits = decoder.step(token)
        except torch.OutOfMemoryError as error:
            raise self._out_of_memory() from error
        self._broken = False
        if logits is not None:
            self._last_logits = logits
            self._call, self._tokens = decoder.call, 1
            self._read += 1
        self._seconds_reading += time.perf_counter() - began
        return logits is not None

    @property
    def replays_a_step(self) -> float | None:
        """How often a recorded step was replayed on average: 1, and more where units lacked."""
        decoder = self._decoder
        return None if decoder is None or not decoder.steps else decoder.replays / decoder.steps

    @property
    def replays_steps(self) -> bool:
        """Whether the last decode steps were recorded, see `Decoder`; why not:
        `Engine.not_recorded`, `cuda_graphs` is off, or lookups are of a kind that needs the
        host, as those of infinitehip: what it chose is gathered there."""
        return self._decoder is not None

    def _recording(self) -> Decoder | None:
        """Recorded steps that the next one may be, made where they can be."""
        recorder, watch = self.backing.recorder, self._watch_units
        record = recorder.record if self.config.cuda_graphs else None
        policies = None if record is None else all_recordable(self.policies.values())
        if policies is None or record is None:
            self._decoder = None
        elif self._decoder is None or not self._decoder.fits(watch_units=watch):
            self._decoder = None  # its memory goes before there is another
            call = Call(0, self.position, watch, recorded=True)
            try:
                self._decoder = Decoder(self.backing.attachment, self, policies, call, record)
            except RuntimeError as error:
                recorder.give_up(str(error))
        return self._decoder
