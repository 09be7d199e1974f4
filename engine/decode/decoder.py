"""Decode steps recorded once and replayed: what a GPU computes without waiting for the host.

Everything a step reads and writes stays where it is: window, units and their slots (see
`StepTokens`, `SlotTable`). A step asks for units that only the device knows; where one was in no
slot, it is brought and the step replayed: what a step writes, it writes again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from infllm.engine.attachment import Call, SessionCache
from infllm.engine.policies.stepping import SteppingPolicy

if TYPE_CHECKING:
    from infllm.engine.policies import Policy
    from infllm.engine.session import Session

Replay = Callable[[], object]
Record = Callable[[Callable[[], None]], Replay]
TIMES = 3  # values of a policy's clock
# After so many replays that lacked units, a step layer by layer is quicker: it brings each layer's
# units when they are known.
REPLAYS = 8


class StepCache(SessionCache):
    """A session's memory for a step that is recorded: the session learns nothing of it."""

    def __init__(self, session: Session, call: Call) -> None:
        super().__init__(session)
        self._step = call
        self.logits: Tensor | None = None

    def begin(self, batch: int, tokens: int) -> Call:
        return self._step

    def end(self, logits: Tensor | None) -> None:
        self.logits = logits

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object,
               **kwargs: object) -> tuple[Tensor, Tensor]:  # fmt: skip
        return key_states, value_states


def stepping(policies: Iterable[Policy]) -> list[SteppingPolicy] | None:
    """The policies, if all layers' next steps can be recorded."""
    found = [p for p in policies if isinstance(p, SteppingPolicy) and p.recordable]
    return found if len(found) == len(list(policies)) else None


class Decoder:
    """The steps of one session, as long as their shapes and addresses stay the same.

    Raises what `record` raises.
    """

    def __init__(
        self, session: Session, policies: list[SteppingPolicy], record: Record, *, watch_units: bool
    ) -> None:
        engine = session.engine
        self._policies = policies
        self._engine = engine
        self.call = Call(0, session.position, watch_units, recorded=True)
        self._recorded = self._dependence()
        device = engine.device
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
        self._tell(0)
        self._replay = record(lambda: self._run(session))

    def _run(self, session: Session) -> None:
        """One step; all that it reads and writes is on the device."""
        self.call.unit_uses.clear()
        cache = StepCache(session, self.call)
        attachment = self._engine.attachment
        keep = {"logits_to_keep": 1} if attachment.keeps_logits else {}
        with torch.no_grad():
            self._engine.model(
                input_ids=self._token, position_ids=self._position, use_cache=True,
                **{attachment.cache_name: cache}, **keep,
            )  # fmt: skip
        assert cache.logits is not None
        self._logits = cache.logits[0, -1].float()

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
        for _ in range(REPLAYS):
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


def record_cuda(run: Callable[[], None]) -> Replay:
    """A CUDA graph of `run`, which is run once before: kernels are compiled and tuned by it.

    Raises RuntimeError where something in it cannot be captured.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # What other threads do with the device meanwhile is none of the capture's concern.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        run()
    return graph.replay
