"""Decode steps recorded once and replayed: what a GPU computes without waiting for the host.

Everything a step reads and writes stays where it is: window, units and their slots (see
`StepTokens`, `SlotTable`). A step asks for units that only the device knows; where one was in no
slot, it is brought and the step replayed: what a step writes, it writes again.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from infllm.engine.attachment import Attachment, Call, Memory
from infllm.engine.decode.recordable import Recordable
from infllm.engine.decode.recorder import Record

TIMES = 3  # values of a policy's clock
# After so many replays that lacked units, a step layer by layer is quicker: it brings each layer's
# units when they are known.
REPLAYS = 8


class StepMemory:
    """A session's memory for a step that is recorded: the session learns nothing of it."""

    under_way = True

    def __init__(self, memory: Memory, call: Call) -> None:
        self._call = call
        self.length = memory.length
        self.n_layers = memory.n_layers
        self.attend = memory.attend
        self.logits: Tensor | None = None

    def begin_pass(self, batch: int, tokens: int) -> Call:
        return self._call

    def end_pass(self, logits: Tensor | None) -> None:
        self.logits = logits


def all_recordable(policies: Collection[object]) -> list[Recordable] | None:
    """The layers' policies, if the next steps of all can be recorded."""
    found = [p for p in policies if isinstance(p, Recordable) and p.recordable]
    return found if len(found) == len(policies) else None


class Decoder:
    """The steps of one session, as long as their shapes and addresses stay the same.

    Raises what `record` raises.
    """

    def __init__(
        self,
        attachment: Attachment,
        memory: Memory,
        policies: list[Recordable],
        call: Call,
        record: Record,
    ) -> None:
        """`call`: what each step is told; `policies`: of `memory`, one a layer."""
        self._policies = policies
        self._attachment = attachment
        self.call = call
        self._recorded = self._dependence()
        device = attachment.device
        n = len(self._policies)
        self._token = torch.zeros(1, 1, dtype=torch.int64, device=device)
        self._position = torch.zeros(1, 1, dtype=torch.int64, device=device)
        self._clock = torch.zeros(n, TIMES, dtype=torch.int64, device=device)
        self._counts = [policy.n_asked for policy in self._policies]
        self._asked = torch.zeros(sum(self._counts), dtype=torch.int64, device=device)
        rows = zip(self._policies, self._clock, self._asked.split(self._counts), strict=True)
        for policy, clock, asked in rows:
            policy.open_recording(clock, asked)
        self._found: list[list[int]] | None = None  # what the last step asked for and had
        self._logits = torch.empty(0)
        self.steps = self.replays = 0  # asked for; each replayed once, or more where units lacked
        self._tell(0)
        self._replay = record(lambda: self._run(memory))

    def _run(self, memory: Memory) -> None:
        """One step; all that it reads and writes is on the device."""
        self.call.unit_uses.clear()
        step = StepMemory(memory, self.call)
        self._attachment.forward(self._token, self._position, step)
        assert step.logits is not None
        self._logits = step.logits[0, -1].float()

    def _dependence(self) -> list[object]:
        return [policy.recorded for policy in self._policies]

    def fits(self, *, watch_units: bool) -> bool:
        """Whether the recording is good for the next step."""
        same = self.call.watch_units == watch_units
        return same and self._recorded == self._dependence()

    def step(self, token: int) -> Tensor | None:
        """One step: logits float32 [vocab] after `token`.

        None where too much was missing: then nothing has happened.
        """
        for policy in self._policies:
            policy.refresh()
        self._tell(token)
        self.steps += 1
        for _ in range(REPLAYS):
            self.replays += 1
            self._replay()
            self._touch()  # while the device computes
            asked = self._read_asked()
            if not any(map(lacked, asked)):
                break
            # Exact up to the first layer that lacked a unit; later ones asked on what came of it.
            # So each replay is exact for one layer more, and most often for all.
            for policy, row in zip(self._policies, asked, strict=True):
                policy.bring(row)
        else:
            return None
        self._found = asked
        logits = self._logits.clone()
        for policy in self._policies:
            policy.advance()
        return logits

    def _tell(self, token: int) -> None:
        times = torch.tensor([policy.times() for policy in self._policies])
        if self._clock.is_cuda:
            times = times.pin_memory()
        self._clock.copy_(times, non_blocking=True)
        self._token.fill_(token)

    def _touch(self) -> None:
        if self._found is not None:
            for policy, row in zip(self._policies, self._found, strict=True):
                policy.touch(row)
        self._found = None

    def _read_asked(self) -> list[list[int]]:
        """Of each layer what it asked for: the one wait for the device."""
        values, rows = self._asked.tolist(), []
        for n in self._counts:
            rows.append(values[:n])
            values = values[n:]
        return rows


def lacked(asked: list[int]) -> bool:
    """Whether a layer's step missed a unit."""
    return bool(asked) and asked[0] != 0
