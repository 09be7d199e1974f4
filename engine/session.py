"""One reading of one document: what was given, what was read, and what comes next."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from infllm.engine.attachment import Call, SessionCache
from infllm.engine.decode import Decoder, Sampler, stepping
from infllm.engine.errors import EngineError, UnsupportedCall
from infllm.engine.files import MemoryWriter, settings_key
from infllm.engine.policies import InfLLM, Policy, make_policy
from infllm.engine.results import Stats, Token, UnitMass, unit_masses

if TYPE_CHECKING:
    from infllm.engine.config import ModelConfig
    from infllm.engine.engine import Engine
    from infllm.engine.files import Manifest

LOGIT_BYTES = 256 * 2**20  # of one block of logits while scoring


class Session:
    """Memory of one sequence. Reading follows a grid counted from each segment's start.

    A segment is a document, a question, a turn: it ends by `end`, `score` or `generate`. An
    incomplete chunk waits as token ids, so that any cut of the same ids gives the same state.
    """

    def __init__(
        self, engine: Engine, config: ModelConfig, chunk_size: int, start: int = 0
    ) -> None:
        self.engine = engine
        self.config = config
        self.chunk_size = chunk_size
        self.start = start
        self.policies: dict[int, Policy] = {
            layer.index: make_policy(config, layer) for layer in engine.attachment.layers
        }
        self._pending: list[int] = []
        self._offset = 0  # tokens of the open segment that have been forwarded
        self._read = 0
        self._given = 0
        self._last_logits: Tensor | None = None  # float32 [vocab], after the last token read
        self._decoder: Decoder | None = None  # of the last steps, where they were recorded
        self._watch_units = False
        self._call: Call | None = None
        self._own_pass = False
        self.under_way = False  # a forward pass of the attached model
        self._broken = False
        self._seconds_reading = 0.0
        self._seconds_generating = 0.0
        self.manifest: Manifest | None = None  # of the memory file last opened or saved

    @property
    def cache(self) -> SessionCache:
        """This session as transformers' models take it, in the argument `cache` (before release
        5.24 `past_key_values`; the attached model takes it under either name)."""
        return SessionCache(self)

    # ---- feeding --------------------------------------------------------------------------------

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
        self._refuse_broken()
        chunk = self._take_pending()
        if chunk:
            self._watch_units = units
            try:
                self._forward(chunk)
            finally:
                self._watch_units = False
        self._offset = 0

    def _accept(self, ids: Iterable[int]) -> list[int]:
        ids = [int(i) for i in ids] if not isinstance(ids, list) else ids
        self._refuse_broken()
        self.engine.check_ids(ids)
        self._pending.extend(ids)
        self._given += len(ids)
        return ids

    def _whole_chunks(self) -> Iterator[list[int]]:
        """Takes complete chunks from what waits."""
        size = self.chunk_size
        while len(self._pending) >= size:
            chunk = self._pending[:size]
            # Before the pass: who looks in between (a fork, `stats`) must not see them twice.
            del self._pending[:size]
            yield chunk

    def _take_pending(self) -> list[int]:
        chunk, self._pending = self._pending, []
        return chunk

    # ---- passes ---------------------------------------------------------------------------------

    def begin_pass(self, batch: int, tokens: int) -> Call:
        """A forward pass of `tokens` tokens starts; of the model's, see `SessionCache`."""
        self._refuse_broken()
        if batch != 1:
            raise UnsupportedCall(
                f"a session holds one sequence, not {batch} (a batch, or beams)",
                "open one session for each sequence",
            )
        if not self._own_pass:  # a pass made by transformers is a segment of its own
            if self._pending:
                raise UnsupportedCall(
                    f"{len(self._pending)} tokens were read and not yet forwarded",
                    "call session.end() before handing the memory to generate()",
                )
            self._offset = 0
            self._given += tokens
        self._call = Call(self._offset, self.start + self._read, self._watch_units)
        self._tokens = tokens
        self._broken = True  # until the pass is complete
        self.under_way = True
        return self._call

    def _refuse_broken(self) -> None:
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

    def _forward(self, ids: Sequence[int], hidden: list[Tensor] | None = None) -> None:
        """One pass over `ids`; collects the hidden states [1, T, M] in `hidden` when given."""
        began = time.perf_counter()
        attachment = self.engine.attachment
        tokens = torch.tensor([ids], device=self.engine.device)
        keep = {"logits_to_keep": 1} if attachment.keeps_logits else {}
        self._own_pass = True
        try:
            with torch.no_grad(), attachment.hidden_states() as states:
                self.engine.model(
                    input_ids=tokens,
                    position_ids=torch.arange(len(ids), device=tokens.device)[None],
                    use_cache=True,
                    **{attachment.cache_name: self.cache},
                    **keep,
                )
        except torch.OutOfMemoryError as error:
            raise self.engine.out_of_memory(self.start + self._read) from error
        finally:
            self._own_pass = False
        if hidden is not None:
            hidden.append(states[0])
        self._seconds_reading += time.perf_counter() - began

    def _step(self, token: int) -> None:
        """One token as a segment of its own: a decode step."""
        self._refuse_broken()
        if not self._replay_step(token):
            self._forward([token])
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
            raise self.engine.out_of_memory(self.start + self._read) from error
        self._broken = False
        if logits is not None:
            self._last_logits = logits
            self._call, self._tokens = decoder.call, 1
            self._read += 1
        self._seconds_reading += time.perf_counter() - began
        return logits is not None

    @property
    def replays_steps(self) -> bool:
        """Whether the last decode steps were recorded, see `engine.decoder`; why not:
        `Engine.not_recorded`, `cuda_graphs` is off, or lookups are of a kind that needs the
        host."""
        return self._decoder is not None

    def _recording(self) -> Decoder | None:
        """Recorded steps that the next one may be, made where they can be."""
        engine, watch = self.engine, self._watch_units
        record = engine.record if self.config.cuda_graphs else None
        policies = None if record is None else stepping(self.policies.values())
        if policies is None or record is None:
            self._decoder = None
        elif self._decoder is None or not self._decoder.fits(watch_units=watch):
            self._decoder = None  # its memory goes before there is another
            try:
                self._decoder = Decoder(self, policies, record, watch_units=watch)
            except RuntimeError as error:
                engine.record, engine.not_recorded = None, str(error)
        return self._decoder

    # ---- logits ---------------------------------------------------------------------------------

    @torch.no_grad()
    def score(self, ids: Sequence[int], *, step: bool = False) -> Tensor:
        """Logits float32 [T, vocab] after each of the T tokens of `ids`; closes the segment.

        With `step`, each token is a decode step: a segment of its own. What waited from `read`
        belongs to the segment (and is closed before the first step) and gets no row.
        """
        if step:
            tokens = self._listed(ids)
            self.end()
            rows = []
            for token in tokens:
                self._step(token)
                assert self._last_logits is not None
                rows.append(self._last_logits)
            return torch.stack(rows) if rows else self._no_logits()
        waiting = len(self._pending)
        ids = self._accept(ids)
        hidden: list[Tensor] = []
        for chunk in self._whole_chunks():
            self._forward(chunk, hidden)
        rest = self._take_pending()
        if rest:
            self._forward(rest, hidden)
        self._offset = 0
        if not ids:
            return self._no_logits()
        states = torch.cat(hidden, dim=1)[:, waiting:]
        return torch.cat(list(self._logits(states)))

    def _listed(self, ids: Iterable[int]) -> list[int]:
        ids = [int(i) for i in ids]
        self._refuse_broken()
        self.engine.check_ids(ids)
        self._given += len(ids)
        return ids

    def _no_logits(self) -> Tensor:
        return torch.empty(0, self.engine.vocab_size)

    def _logits(self, states: Tensor) -> Iterator[Tensor]:
        """float32 [n, vocab] blocks of hidden states [1, T, M], each of bounded size."""
        rows = max(1, LOGIT_BYTES // (4 * self.engine.vocab_size))
        for part in states.split(rows, dim=1):
            yield self.engine.attachment.head(part)[0]

    @torch.no_grad()
    def nll(self, ids: Sequence[int]) -> Iterator[Tensor]:
        """Negative log-likelihood in nats of `ids`, token by token, in blocks float32 [n].

        A token is predicted from all before it; the very first of a session from nothing, and has
        no entry. Constant memory. The state afterwards is that of `read(ids)`: the segment stays
        open, and an incomplete chunk at the end is scored on a fork. Tokens that waited from
        `read` are forwarded and not scored.
        """
        unscored = len(self._pending)
        ids = self._accept(ids)
        if not ids:
            return
        for chunk in self._whole_chunks():
            block = self._chunk_nll(chunk, unscored)
            unscored = max(0, unscored - len(chunk))
            if block.numel():
                yield block
        if len(self._pending) > unscored:
            tail = self.fork()
            block = tail._chunk_nll(tail._take_pending(), unscored)
            if block.numel():
                yield block

    def _chunk_nll(self, chunk: Sequence[int], unscored: int) -> Tensor:
        """NLL of a chunk's tokens after the first `unscored`; forwards the chunk."""
        before = self._last_logits
        hidden: list[Tensor] = []
        self._forward(chunk, hidden)
        if unscored >= len(chunk):
            return torch.empty(0)
        target = torch.tensor(chunk, device=self.engine.device)
        first = max(unscored, 1)
        losses = []
        if unscored == 0 and before is not None:
            losses.append(_nll(before[None], target[:1]))
        row = first
        for logits in self._logits(hidden[0][:, first - 1 : -1]):
            losses.append(_nll(logits, target[row : row + len(logits)]))
            row += len(logits)
        return torch.cat(losses).cpu() if losses else torch.empty(0)

    # ---- generation -----------------------------------------------------------------------------

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
        stop = self.engine.eos_ids | frozenset(stop_ids or ())
        began = time.perf_counter()
        try:
            self.end(units)
            self._watch_units = units
            if self._last_logits is None:
                raise UnsupportedCall("nothing has been read", "read a prompt before generating")
            for n in range(max_new_tokens):
                if n > 0:
                    self._step(self._take_pending()[0])
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
        n_layers = sum(isinstance(p, InfLLM) for p in self.policies.values())
        size = self.config.block_size
        return unit_masses(self._call.unit_uses, size, n_layers * max(1, self._tokens))

    def in_sight(self) -> list[tuple[int, int]]:
        """Token ranges (start, stop), absolute and in order, that the next step attends without a
        lookup in at least one layer: the initial tokens and the recent ones."""
        merged: list[tuple[int, int]] = []
        for start, stop in sorted({r for p in self.policies.values() for r in p.in_sight()}):
            start, stop = start + self.start, stop + self.start
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
            elif start < stop:
                merged.append((start, stop))
        return merged

    # ---- copies and counts ----------------------------------------------------------------------

    def fork(self) -> Session:
        """A session in the same state that goes its own way; units are shared, never copied."""
        other = object.__new__(Session)
        other.__dict__.update(self.__dict__)
        other.policies = {i: p.fork() for i, p in self.policies.items()}
        other._pending = list(self._pending)
        other._watch_units = False
        return other

    def save(
        self,
        folder: str | Path,
        *,
        extra: Any = None,
        extra_files: Mapping[str, bytes | Path] | None = None,
    ) -> None:
        """Write all that this session knows to a memory file, for `Engine.open`.

        At the folder that it came from, only what is new is written. `extra`, `extra_files`: see
        `MemoryWriter`, which also saves during a long reading.

        Raises:
            MemoryFileError: `locked`, `foreign`, `newer`, `full`, `storage`. What was there stays.
        """
        with MemoryWriter(self, folder, extra=extra, extra_files=extra_files) as writer:
            writer.finish()

    @property
    def key(self) -> dict[str, Any]:
        """What this memory depends on: model, tokenizer and the settings that change numbers."""
        engine = self.engine
        settings = settings_key(self.config, self.chunk_size, engine.dtype)
        return {**engine.digests, "settings": settings}

    @property
    def stats(self) -> Stats:
        """Counts so far; see `Stats`."""
        policies = self.policies.values()
        stores = [p.units for p in policies if isinstance(p, InfLLM) and p.units is not None]
        return Stats(
            tokens_given=self._given,
            tokens_read=self._read,
            tokens_pending=len(self._pending),
            units=stores[0].n if stores else 0,
            cache_hits=sum(store.cache.hits for store in stores),
            cache_misses=sum(store.cache.misses for store in stores),
            device_bytes=sum(p.device_bytes for p in policies),
            host_bytes=sum(p.host_bytes for p in policies),
            disk_bytes=sum(p.disk_bytes for p in policies),
            seconds_reading=self._seconds_reading,
            seconds_generating=self._seconds_generating,
        )


def _nll(logits: Tensor, target: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(logits, target, reduction="none")
