"""Memory files: a session on disk, written while it reads, and opened without reading again."""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from infllm.engine.errors import MemoryFileError
from infllm.engine.files import storage
from infllm.engine.files.draft import Draft
from infllm.engine.files.manifest import (
    LOCK,
    MANIFEST,
    OURS,
    TEMPORARY,
    Entry,
    Manifest,
    Segment,
    read_manifest,
)
from infllm.engine.files.snapshot import draft_state, draft_units, unit_count

if TYPE_CHECKING:
    from infllm.engine.session import Session

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
BLOCK = 2**20  # bytes of a copied file that are held at once
LEAST_TOKENS = 8192  # between checkpoints: a million tokens make at most some hundred files
READING_PER_SAVING = 20  # seconds read for each second spent on the last checkpoint
ROOM_LEFT = 2**20  # bytes that stay free, for the manifest and the file system's own needs


class MemoryWriter:
    """Writes one session to one folder, again and again; a context manager that holds its lock.

    Units already in the folder stay as they are; each save adds a file with the new ones and
    replaces the small state. A writer that dies leaves the last save that was complete.

    Args:
        session: what to save; may be read with, ended and asked in between.
        folder: made if it is not there (mode 0700, files 0600).
        every: tokens between checkpoints of `read`, at least; None: as many as keep saving to
            about 5% of the time, at least 8192.
        extra: anything that JSON can say, kept in the manifest.
        extra_files: name -> bytes or the path of a file, kept and checked beside the memory.
            Saving a session to where it came from keeps the extras that are not given anew.

    Raises MemoryFileError: `locked`, `foreign`, `newer`, `storage`.
    """

    def __init__(
        self,
        session: Session,
        folder: str | Path,
        *,
        every: int | None = None,
        extra: Any = None,
        extra_files: Mapping[str, bytes | Path] | None = None,
    ) -> None:
        self.session = session
        self.folder = Path(folder)
        self.every = every
        self.extra = extra
        self._sources = dict(extra_files or {})
        self._extra: dict[str, tuple[str, Entry]] = {}  # name -> file, of those written
        self._saved_at = session.progress.given
        self._saved_when = time.perf_counter()
        self._cost = 0.0  # seconds, of the last checkpoint
        self._lock: int | None = None
        with self._explained():
            self._manifest = self._take()
        there = self._manifest
        if there is not None and there == session.manifest:  # the memory that the session is of
            self.extra = there.extra if extra is None else extra
            self._extra = {
                name: (file, there.files[file])
                for name, file in there.extra_files.items()
                if name not in self._sources
            }

    def _take(self) -> Manifest | None:
        """Lock the folder; gives the manifest that is there."""
        if self.folder.exists() and not self.folder.is_dir():
            raise MemoryFileError(f"{self.folder} is a file", "name a folder", reason="foreign")
        if self.folder.exists() and self._published() is None:
            strange = [p.name for p in self.folder.iterdir() if not _is_ours(p.name)]
            if strange:
                raise MemoryFileError(
                    f"{self.folder} holds other files ({strange[0]}) and no memory",
                    "name a new folder",
                    reason="foreign",
                )
        storage.make_folder(self.folder)
        self._lock = storage.lock(self.folder / LOCK)
        if self._lock is None:
            raise MemoryFileError(
                f"{self.folder} is being written by someone else",
                "wait for the other run to end, or name another folder",
                reason="locked",
            )
        try:
            return self._published()
        except MemoryFileError:
            self.close()
            raise

    def _published(self) -> Manifest | None:
        try:
            return read_manifest(self.folder)
        except MemoryFileError as error:
            if error.reason in ("missing", "damaged", "older"):
                return None
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others write; saves nothing."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def read(self, ids: Iterable[int], after_chunk: Callable[[], None] | None = None) -> None:
        """As `session.read`, with a checkpoint every so often. `after_chunk` is told of progress.

        Raises MemoryFileError: as `checkpoint`. What was read until then is in the session.
        """
        ids = ids if isinstance(ids, list) else [int(i) for i in ids]
        self.session.check_ids(ids)
        done = 0
        while done < len(ids):
            # To the end of a chunk: what is saved should not depend on how `ids` was cut.
            size = self.session.chunk_size
            take = size - len(self.session.progress.pending) % size
            self.session.read(ids[done : done + take])
            done += take
            if after_chunk is not None:
                after_chunk()
            if len(self.session.progress.pending) % size == 0 and self._is_due():
                self.checkpoint()

    def _is_due(self) -> bool:
        tokens = self.session.progress.given - self._saved_at
        if self.every is not None:
            return tokens >= self.every
        reading = time.perf_counter() - self._saved_when
        return tokens >= LEAST_TOKENS and reading >= READING_PER_SAVING * self._cost

    def checkpoint(self) -> None:
        """Save what there is as something unfinished: for `Engine.resume`, not `Engine.open`.

        Raises MemoryFileError: `full`, `storage`; the folder is then as it was before.
        """
        self._save(complete=False)

    def finish(
        self, *, extra: Any = None, extra_files: Mapping[str, bytes | Path] | None = None
    ) -> None:
        """Save what there is as a whole memory. `extra` and `extra_files` add to those given.

        Raises MemoryFileError: `full`, `storage`; the folder is then as it was before.
        """
        if extra is not None:
            self.extra = extra
        self._sources.update(extra_files or {})
        for name in extra_files or ():
            self._extra.pop(name, None)
        self._save(complete=True)

    # ---- one save -------------------------------------------------------------------------------

    def _save(self, *, complete: bool) -> None:
        if self._lock is None:
            raise MemoryFileError(f"{self.folder} is not held any more", reason="locked")
        session = self.session
        session.refuse_broken()
        began = time.perf_counter()
        with self._explained():
            kept = self._segments_there()
            done, n = sum(segment.count for segment in kept), unit_count(session)
            units = draft_units(session, done, n) if n > done else None
            state = draft_state(session)
            sources = {name: x for name, x in self._sources.items() if name not in self._extra}
            self._refuse_if_full(units, state, sources)
            try:
                files = {segment.file: entry for segment, entry in kept.items()}
                segments = list(kept)
                if units is not None:
                    name, files[name] = self._put_tensors("units", units)
                    segments.append(Segment(done, n - done, name))
                extra = self._extra | {name: self._put_extra(x) for name, x in sources.items()}
                files |= dict(extra.values())
                name, files[name] = self._put_tensors("state", state)
                manifest = self._describe(complete, n, name, segments, extra, files)
                storage.sync_folder(self.folder)
                self._put([manifest.to_bytes()], lambda: MANIFEST)
                storage.sync_folder(self.folder)
            except BaseException:
                # Which manifest is in place, the new one or that before, only the disk can tell.
                with suppress(MemoryFileError):
                    self._manifest = self._published()
                    self._sweep()
                raise
            self._extra = extra
            self._manifest = session.manifest = manifest
            self._sweep()
        self._saved_at = session.progress.given
        self._saved_when = time.perf_counter()
        self._cost = self._saved_when - began

    def _describe(
        self,
        complete: bool,
        units: int,
        state: str,
        segments: list[Segment],
        extra: Mapping[str, tuple[str, Entry]],
        files: dict[str, Entry],
    ) -> Manifest:
        manifest = Manifest(
            complete=complete,
            key=self.session.key,
            tokens_given=self.session.progress.given,
            tokens_read=self.session.progress.read,
            units=units,
            state=state,
            segments=segments,
            extra_files={name: file for name, (file, _) in extra.items()},
            files=files,
            extra=self.extra,
            written_by=_version(),
        )
        # As it will be read: JSON knows no tuples, and this is compared with what is on the disk.
        return Manifest.of_bytes(manifest.to_bytes(), self.folder / MANIFEST)

    def _segments_there(self) -> dict[Segment, Entry]:
        """Files of the folder that hold this session's first units."""
        mine, there = self.session.manifest, self._manifest
        kept: dict[Segment, Entry] = {}
        if mine is None or there is None:
            return kept
        for segment, other in zip(mine.segments, there.segments, strict=False):
            entry, path = mine.files[segment.file], self.folder / segment.file
            same = segment == other and entry == there.files[other.file]
            if not same or not path.exists() or path.stat().st_size != entry.size:
                break
            kept[segment] = entry
        return kept

    def _refuse_if_full(
        self, units: Draft | None, state: Draft, files: Mapping[str, bytes | Path]
    ) -> None:
        need = (units.size if units else 0) + state.size + ROOM_LEFT
        need += sum(len(x) if isinstance(x, bytes) else x.stat().st_size for x in files.values())
        free = storage.free_bytes(self.folder)
        if free < need:
            raise MemoryFileError(
                f"{self.folder}: saving needs {need / 2**20:.0f} MiB, "
                f"{free / 2**20:.0f} MiB are free",
                "make room, or store units as kv_dtype int8",
                reason="full",
            )

    def _put_tensors(self, kind: str, draft: Draft) -> tuple[str, Entry]:
        digest = sha256(draft.header).hexdigest()
        name = f"{kind}-{digest[:16]}.safetensors"
        self._put(draft.blocks(), lambda: name)
        return name, Entry(draft.size, len(draft.header), digest)

    def _put_extra(self, source: bytes | Path) -> tuple[str, Entry]:
        digest, size = sha256(), 0

        def blocks() -> Iterator[bytes]:
            nonlocal size
            for block in _blocks(source):
                digest.update(block)
                size += len(block)
                yield block

        name = self._put(blocks(), lambda: f"extra-{digest.hexdigest()[:16]}")
        return name, Entry(size, size, digest.hexdigest())

    def _put(self, blocks: Iterable[Any], name: Callable[[], str]) -> str:
        """Write a durable file, and only then give it its name, known when all is written."""
        temporary = self.folder / f"{TEMPORARY}{os.getpid()}-{uuid.uuid4().hex}"
        descriptor = storage.create(temporary)
        try:
            for block in blocks:
                storage.write(descriptor, block)
            storage.fsync(descriptor)
        finally:
            storage.close(descriptor)
        final = name()
        storage.replace(temporary, self.folder / final)
        return final

    def _sweep(self) -> None:
        """Remove what belongs to no manifest: of earlier saves, and of writers that died."""
        keep = {MANIFEST, LOCK, *(self._manifest.files if self._manifest else ())}
        for path in sorted(self.folder.iterdir()):
            if path.name not in keep and _is_ours(path.name):
                try:
                    storage.unlink(path)
                except OSError:
                    continue  # it costs room, no answer; the next save tries again

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What the file system refuses, as the engine's own error."""
        try:
            yield
        except OSError as error:
            full = error.errno in FULL
            raise MemoryFileError(
                f"{error.filename or self.folder}: {error.strerror or error}",
                "make room on the disk" if full else "name a folder that you may write to",
                reason="full" if full else "storage",
            ) from error


def save(
    session: Session,
    folder: str | Path,
    *,
    extra: Any = None,
    extra_files: Mapping[str, bytes | Path] | None = None,
) -> None:
    """Write all that a session knows to a memory file, see `Session.save`."""
    with MemoryWriter(session, folder, extra=extra, extra_files=extra_files) as writer:
        writer.finish()


def _is_ours(name: str) -> bool:
    known = name in (MANIFEST, LOCK) or name.startswith(TEMPORARY)
    return known or OURS.fullmatch(name) is not None


def _blocks(source: bytes | Path) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while block := file.read(BLOCK):
            yield block


def _version() -> str:
    try:
        return f"infllm {version('infllm')}"
    except PackageNotFoundError:
        return "infllm"
