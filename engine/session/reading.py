"""Reading: tokens are given, whole chunks of them go through the model, the rest waits."""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from infllm.engine.attachment import Call
from infllm.engine.errors import EngineError, OutOfMemory, UnsupportedCall
from infllm.engine.policies import (
    KeptTokens,
    Policy,
    make_policy,
    random_scores,
    refuse_turns,
    run_policy,
)
from infllm.engine.session.losses import losses

if TYPE_CHECKING:
    from infllm.engine.config import ModelConfig
    from infllm.engine.session.backing import Backing


@dataclass(frozen=True)
class Progress:
    """How far a session has come, memory apart: counts are in tokens."""

    start: int  # absolute position of the first token
    offset: int  # of the open segment, forwarded
    read: int
    given: int
    pending: list[int]  # ids that wait
    logits: Tensor | None  # float32 [vocab], after the last token read
    kept: KeptTokens | None = None  # where the policy keeps tokens by their surprise


class Reading:
    """Memory of one sequence and how it grows.

    It is a `Memory` for the passes of the attached model.
    """

    def __init__(
        self, backing: Backing, config: ModelConfig, chunk_size: int, start: int = 0
    ) -> None:
        self.backing = backing
        self.config = config
        self.chunk_size = chunk_size
        self.start = start
        self.policies: dict[int, Policy] = {
            layer.index: make_policy(config, layer) for layer in backing.attachment.layers
        }
        self.states = backing.attachment.fresh_states()
        by_surprise = any(p.keeps_by_surprise for p in self.policies.values())
        self._kept = KeptTokens.none() if by_surprise else None
        if self._kept is not None:
            refuse_turns(config, chunk_size)
        self._pending: list[int] = []
        self._offset = 0  # tokens of the open segment that have been forwarded
        self._read = 0
        self._given = 0
        self._last_logits: Tensor | None = None  # float32 [vocab], after the last token read
        self._watch_units = False
        self._call: Call | None = None
        self._own_pass = False
        self._closes = False  # the pass is the segment's last
        self._answering = False  # with tokens of the model's own
        self.under_way = False  # a forward pass of the attached model
        self._broken = False
        self._seconds_reading = 0.0

    # ---- feeding --------------------------------------------------------------------------------

    @property
    def progress(self) -> Progress:
        """How far this session has come."""
        return Progress(
            self.start, self._offset, self._read, self._given, self._pending, self._last_logits,
            self._kept,
        )  # fmt: skip

    def restore(self, progress: Progress) -> None:
        """Go on from where another session was; only for one that was given nothing yet."""
        self.start, self._offset = progress.start, progress.offset
        self._read, self._given = progress.read, progress.given
        self._pending, self._last_logits = progress.pending, progress.logits
        if progress.kept is not None:
            self._kept = progress.kept

    @property
    def position(self) -> int:
        """Absolute position of the next token to be given."""
        return self.start + self._read + len(self._pending)

    def read(self, ids: Iterable[int]) -> None:
        """Take tokens in; whole chunks go through the model, the rest waits."""
        self._accept(ids)
        for chunk in self._whole_chunks():
            self._forward(chunk)

    def end(self, units: bool = False) -> None:
        """Close the segment: what waits goes through the model, and the grid starts anew.

        With `units`, the first token of a `generate` that follows tells the units of this pass.
        """
        self.refuse_broken()
        chunk = self._take_pending()
        if chunk:
            self._watch_units = units
            try:
                self._forward(chunk, closes=True)
            finally:
                self._watch_units = False
        self._offset = 0

    def check_ids(self, ids: Sequence[int]) -> None:
        """Raises ConfigError for ids outside of the model's vocabulary."""
        self.backing.attachment.check_ids(ids)

    def _accept(self, ids: Iterable[int]) -> list[int]:
        ids = [int(i) for i in ids] if not isinstance(ids, list) else ids
        self.refuse_broken()
        self.check_ids(ids)
        self._pending.extend(ids)
        self._given += len(ids)
        return ids

    def _whole_chunks(self) -> Iterator[list[int]]:
        """Takes complete chunks from what waits."""
        size = self.chunk_size
        ahead = 1 if any(p.asks_for_the_end for p in self.policies.values()) else 0
        while len(self._pending) >= size + ahead:
            chunk = self._pending[:size]
            # Before the pass: who looks in between (a fork, `stats`) must not see them twice.
            del self._pending[:size]
            yield chunk

    def _take_pending(self) -> list[int]:
        chunk, self._pending = self._pending, []
        return chunk

    # ---- passes ---------------------------------------------------------------------------------

    def begin_pass(self, batch: int, tokens: int) -> Call:
        """A forward pass of `tokens` tokens starts; of the model's, see `Memory`."""
        self.refuse_broken()
        if batch != 1:
            raise UnsupportedCall(
                f"a session holds one sequence, not {batch} (a batch, or beams)",
                "open one session for each sequence",
            )
        stays = self._make_room(tokens)
        if not self._own_pass:  # a pass made by transformers is a segment of its own
            if self._pending:
                raise UnsupportedCall(
                    f"{len(self._pending)} tokens were read and not yet forwarded",
                    "call session.end() before handing the memory to generate()",
                )
            self._offset = 0
            self._given += tokens
        closes = self._closes or not self._own_pass
        position = self.start + self._read
        self._call = Call(self._offset, position, self._watch_units, closes=closes, stays=stays)
        self._tokens = tokens
        self._broken = True  # until the pass is complete
        self.under_way = True
        return self._call

    def _make_room(self, tokens: int) -> Tensor | None:
        """Places of what is kept beside a turn of `tokens` tokens, where that is not all."""
        if self._kept is None:
            return None
        if not self._own_pass:
            raise UnsupportedCall(
                f"{self.config.type} must see the ids of a pass, and its logits for all of them",
                "read and generate with the session instead: session.read(ids), session.generate()",
            )
        decays = not self._answering
        self._kept, stays = self._kept.make_room(self.config, tokens, decays=decays)
        return stays

    def _surprise(self, ids: Sequence[int], states: Tensor, before: Tensor | None) -> Tensor:
        """float32 [T]: how little the model expected the tokens of a pass, in nats; or chance.

        Of the very first token nothing is known: it counts as the most surprising of its turn.
        """
        first = self._read - len(ids)
        if self.config.score == "random":
            return random_scores(self.config.score_seed, first, len(ids))
        found = losses(self.backing.attachment, ids, states, before, 0).cpu()
        if len(found) < len(ids):
            found = torch.cat([found.max()[None] if len(found) else torch.zeros(1), found])
        return found

    def refuse_broken(self) -> None:
        """Raises EngineError where a pass was interrupted: the layers have come to differ."""
        if self._broken:
            raise EngineError(
                "this session was interrupted in the middle of a chunk and cannot go on",
                "start a new session, or fork one before a step that may be interrupted",
            )

    def end_pass(self, logits: Tensor | None) -> None:
        """A pass is over, with logits [B, T, vocab] of its last tokens; None after an error."""
        self.under_way = False
        if logits is None:
            return
        self._broken = False
        self._last_logits = logits[0, -1].detach().float()
        self._read += self._tokens
        self._offset = self._offset + self._tokens if self._own_pass else 0

    @property
    def length(self) -> int:
        """Absolute position of the next token to be forwarded."""
        return self.start + self._read

    @property
    def n_layers(self) -> int:
        """Attention layers of the model."""
        return len(self.policies)

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, call: Call, scale: float,
        softcap: float | None, sink: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """Attention of one layer in a pass, see `run_policy`."""
        return run_policy(self.policies[layer], q, k, v, call, scale, softcap, sink)

    def _forward(
        self,
        ids: Sequence[int],
        hidden: list[Tensor] | None = None,
        *,
        closes: bool = False,
        step: bool = False,
    ) -> None:
        """One pass over `ids`; collects the hidden states [1, T, M] in `hidden` when given.
        `closes`: the segment ends with it. `step`: a decode step, which no guide adds to."""
        began = time.perf_counter()
        attachment = self.backing.attachment
        tokens = torch.tensor([ids], device=attachment.device)
        positions = self._places(len(ids)).to(tokens.device)[None]
        guide = None if step else self.backing.guide
        added = None if guide is None else guide(ids)
        before = self._last_logits
        self._own_pass, self._closes = True, closes
        try:
            with attachment.hidden_states() as states:
                attachment.forward(tokens, positions, self, added)
            if self._kept is not None:
                self._broken = True  # until the list has the tokens that the layers have
                surprise = self._surprise(ids, states[0], before)
                self._kept = self._kept.append(self._read - len(ids), surprise)
                self._broken = False
        except torch.OutOfMemoryError as error:
            raise self._out_of_memory() from error
        finally:
            self._own_pass = self._closes = False
        if hidden is not None:
            hidden.append(states[0])
        self._seconds_reading += time.perf_counter() - began

    def _places(self, tokens: int) -> Tensor:
        """int64 [tokens]: positions that the model is told of the next tokens.

        Rotations are the policies' affair, and know no position but distances; but some models
        sharpen their attention as more is attended: no more than what a policy lets them see.
        """
        cfg, places = self.config, torch.arange(self._read, self._read + tokens)
        if cfg.type == "origin":
            return places
        return places.clamp_max(cfg.n_init + cfg.n_local + cfg.topk * cfg.block_size)

    def _out_of_memory(self) -> OutOfMemory:
        """The error that tells how far reading came and what would help."""
        gc.collect()
        return OutOfMemory(
            f"out of memory on {self.backing.attachment.device} at token {self.length}",
            "lower chunk_size, topk or max_cached_block, or store units as kv_dtype int8",
        )

    # ---- what it holds --------------------------------------------------------------------------

    def in_sight(self) -> list[tuple[int, int]]:
        """Token ranges (start, stop), absolute and in order, that the next step attends without a
        lookup in at least one layer: the initial tokens and the recent ones."""
        merged: list[tuple[int, int]] = []
        ranges = {r for p in self.policies.values() for r in p.in_sight()}
        ranges |= set(self._kept.ranges() if self._kept is not None else ())
        for start, stop in sorted(ranges):
            start, stop = start + self.start, stop + self.start
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
            elif start < stop:
                merged.append((start, stop))
        return merged

    def fork(self) -> Self:
        """A session in the same state that goes its own way; units are shared, never copied."""
        other = copy.copy(self)
        other.policies = {i: p.fork() for i, p in self.policies.items()}
        other.states = self.states.fork()
        other._pending = list(self._pending)
        other._watch_units = False
        return other
