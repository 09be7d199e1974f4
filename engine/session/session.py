"""One reading of one document: what was given, what was read, and what comes next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infllm.engine.session.generating import Generating
from infllm.engine.session.results import Stats
from infllm.engine.session.scoring import Scoring

if TYPE_CHECKING:
    from infllm.engine.attachment import SessionCache


class Session(Scoring, Generating):
    """Memory of one sequence. Reading follows a grid counted from each segment's start.

    A segment is a document, a question, a turn: it ends by `end`, `score` or `generate`. An
    incomplete chunk waits as token ids, so that any cut of the same ids gives the same state.
    """

    manifest: Any = None  # of the memory file last opened or saved: for those who do

    @property
    def cache(self) -> SessionCache:
        """This session as transformers' models take it, in the argument `cache` (before release
        5.24 `past_key_values`; the attached model takes it under either name)."""
        return self.backing.attachment.cache(self)

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
        self.backing.save(self, folder, extra=extra, extra_files=extra_files)

    @property
    def key(self) -> dict[str, Any]:
        """What this memory depends on: model, tokenizer and the settings that change numbers."""
        return self.backing.key(self.config, self.chunk_size)

    @property
    def stats(self) -> Stats:
        """Counts so far; see `Stats`."""
        policies = self.policies.values()
        stores = [p.units for p in policies if p.units is not None]
        return Stats(
            tokens_given=self._given,
            tokens_read=self._read,
            tokens_pending=len(self._pending),
            units=stores[0].n if stores else 0,
            cache_hits=sum(store.cache.hits for store in stores),
            cache_misses=sum(store.cache.misses for store in stores),
            device_bytes=sum(p.device_bytes for p in policies) + self.states.device_bytes,
            host_bytes=sum(p.host_bytes for p in policies),
            disk_bytes=sum(p.disk_bytes for p in policies),
            seconds_reading=self._seconds_reading,
            seconds_generating=self._seconds_generating,
        )
