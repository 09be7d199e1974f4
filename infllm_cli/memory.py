"""Documents that were read: what every question starts from, in this process or on disk.

collection ─ plan_reading ─> Plan ─ read_memory ─> Memory ─ fork ─> a question
                                       │   ▲
                                       ▼   │ open_memory
                                     a folder
"""

import hashlib
import io
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from infllm.cli.checkpoints import tokens_between
from infllm.cli.documents import Collection
from infllm.cli.errors import Interrupted
from infllm.cli.output import Output
from infllm.cli.packing import array_bytes, pack_documents, unpack_documents
from infllm.cli.passages import Passages, characters_of_kept
from infllm.cli.progress import Progress, peak_memory_bytes
from infllm.cli.reading import Reading, check_budget, feed, kept_ranges, tell_memory
from infllm.cli.text import count

if TYPE_CHECKING:
    from infllm.engine import Engine, Session, Verification
    from infllm.engine.drafts import SuffixArray
    from infllm.engine.files import Manifest

DOCUMENTS = "documents.json"  # in a memory's folder: texts and where each character came from
OFFSETS = "offsets.npy"  # character of the text at which each token that was read begins
READING = "reading.json"  # beside the memory and not part of it: how long reading took
CONTENT = "infllm documents 1"  # tells our folders from other sessions that someone saved


@dataclass(frozen=True)
class Plan:
    """What of a collection goes through the model: head_ids, then ids.

    `characters` are the ranges of the collection's text that ids spell; `given` counts head and
    document before truncation.
    """

    collection: Collection
    head_ids: list[int]
    ids: list[int]
    characters: list[tuple[int, int]]
    offsets: np.ndarray  # int64 [len(ids)], characters; empty where the tokenizer cannot tell
    given: int

    @property
    def passages(self) -> Passages:
        return Passages(self.collection, self.offsets, len(self.head_ids), self.characters)

    @property
    def tokens(self) -> int:
        return len(self.head_ids) + len(self.ids)

    @property
    def unread(self) -> "Unread":
        return Unread(self.passages, len(self.ids), self.given, self.given - self.tokens)

    @property
    def digest(self) -> str:
        """Of the ids and of what they are cited as, but for the names of the sources: a document
        that is moved, or named from another folder, is the same."""
        whole = hashlib.sha256(np.array([*self.head_ids, *self.ids], dtype="<u4").tobytes())
        whole.update(pack_documents(self.collection, names=False))
        return whole.hexdigest()


@dataclass
class Memory:
    """A session that has read a collection. Questions go to forks of it.

    `folder`: where it is kept, if it is. `reused`: it was not read now. `choice`: preset and
    overrides that it was read with, as the command line had them. `turns`: of a conversation that
    was kept with it. `suffixes`: of the documents, once they were asked for, see `tasks.drafting`.
    """

    session: "Session"
    passages: Passages
    reading: Reading
    folder: Path | None = None
    reused: bool = False
    choice: dict[str, Any] = field(default_factory=dict)
    turns: int = 0
    suffixes: "SuffixArray | None" = None

    @property
    def collection(self) -> Collection:
        return self.passages.collection


@dataclass(frozen=True)
class Unread:
    """Documents as a reader takes them: their text, and the tokens that are read of it.

    `given` counts a prompt's head as well, and the `truncated` that max_len leaves out.
    """

    passages: Passages
    tokens: int
    given: int
    truncated: int


def documents_of(folder: Path) -> Unread:
    """The documents that a memory was made of, without opening it.

    Raises:
        infllm.engine.errors.MemoryFileError: it is damaged, or no memory of documents.
    """
    from infllm.engine.files import read_manifest

    manifest = read_manifest(folder)
    about = about_memory(folder, manifest)
    given, truncated = about["tokens_given"], about["tokens_truncated"]
    tokens = given - about["head"] - truncated
    return Unread(_passages(folder, manifest, about), tokens, given, truncated)


def _passages(folder: Path, manifest: "Manifest", about: dict[str, Any]) -> Passages:
    from infllm.engine.files import read_extra

    collection = unpack_documents(read_extra(folder, DOCUMENTS, manifest))
    offsets = np.load(io.BytesIO(read_extra(folder, OFFSETS, manifest)), allow_pickle=False)
    return Passages(collection, offsets, about["head"], about["characters"])


def plan_reading(
    engine: "Engine", collection: Collection, tail_tokens: int, budget: int | None = None
) -> Plan:
    """`tail_tokens`: room for a question, where the configuration's max_len bounds the whole.

    Raises:
        BudgetExceeded: more tokens than `budget`, or than max_len lets in uncut.
    """
    from infllm.engine.text import build_prompt

    tokenizer = engine.tokenizer
    head = build_prompt(tokenizer, engine.config, "ask", question="").head_ids
    ids = tokenizer.encode(collection.text)
    kept = kept_ranges(len(ids), engine.config, len(head) + tail_tokens)
    chosen = [i for a, b in kept for i in ids[a:b]] if kept != [(0, len(ids))] else ids
    check_budget(len(head) + len(chosen) + tail_tokens, budget)
    offsets, characters = characters_of_kept(tokenizer, collection.text, ids, kept)
    return Plan(collection, head, chosen, characters, offsets, len(head) + len(ids))


def read_memory(
    engine: "Engine",
    plan: Plan,
    out: Output,
    folder: Path | None = None,
    choice: dict[str, Any] | None = None,
    or_unkept: bool = False,
) -> Memory:
    """Read what is planned; with `folder`, into a memory file, going on where one was left.

    `or_unkept`: where writing fails on the way, say so and go on reading without.

    Raises:
        Interrupted: Ctrl-C; says how far reading came and what is kept of it.
        infllm.engine.errors.MemoryFileError: the folder cannot be written.
    """
    tell_memory(engine, engine.config.model.type, plan.tokens, out)
    passages = plan.passages
    ids = [*plan.head_ids, *plan.ids]
    if folder is None:
        session = engine.session()
        with Progress(out, "reading", len(ids), memory_of(engine, session)) as progress:
            feed(session, ids, engine.config.chunk_size, progress)
            elapsed = progress.elapsed
        reading = Reading(plan.given, session.stats.tokens_read, plan.given - len(ids), elapsed)
        return Memory(session, passages, reading, choice=choice or {})

    from infllm.engine import MemoryWriter

    session, done, spent = _begun(engine, folder, plan)
    if done:
        out.note(f"going on at token {count(done)} of {count(len(ids))}, where reading had stopped")
    extra = _about(plan, choice or {})
    with (
        MemoryWriter(
            session,
            folder,
            every=tokens_between(engine, len(ids)),
            extra=extra,
            extra_files=_extra_files(plan),
        ) as writer,
        Progress(out, "reading", len(ids), memory_of(engine, session)) as progress,
    ):
        progress.skip(done)
        kept: Path | None = folder
        try:
            for start in range(done, len(ids), engine.config.chunk_size):
                stop = min(start + engine.config.chunk_size, len(ids))
                if kept is not None:
                    kept = _written(partial(writer.read, ids[start:stop]), folder, or_unkept, out)
                if session.stats.tokens_given < stop:
                    session.read(ids[session.stats.tokens_given : stop])
                progress.advance(stop - start)
                note_time(folder, spent + progress.elapsed)
            session.end()
            if kept is not None:
                kept = _written(writer.finish, folder, or_unkept, out)
        except KeyboardInterrupt:
            saved = session.manifest.tokens_given if session.manifest else 0
            raise Interrupted(
                f"interrupted after reading {count(session.stats.tokens_read)} of "
                f"{count(len(ids))} tokens",
                f"the same command goes on at token {count(saved)}"
                if saved
                else "the same command starts over",
            ) from None
        elapsed = progress.elapsed
    note_time(folder, spent + elapsed)
    reading = Reading(plan.given, session.stats.tokens_read, plan.given - len(ids), elapsed, done)
    return Memory(session, passages, reading, kept, choice=choice or {})


def _written(write: Callable[[], None], folder: Path, or_unkept: bool, out: Output) -> Path | None:
    """The folder that was written, or None where it could not be and need not."""
    from infllm.engine.errors import MemoryFileError

    try:
        write()
    except MemoryFileError as error:
        if not or_unkept:
            raise
        out.warn(f"this memory is not kept: {error.message}")
        return None
    return folder


def open_memory(engine: "Engine", memory: "Path | Verification", *, whole: bool = False) -> Memory:
    """A memory that was kept, without reading anything again; every byte of it is checked.

    Of a memory above `CHECKED_WHOLE` bytes, units are checked before their first use instead,
    unless `whole`. `memory`: its folder, or a check of it that was begun before.

    Raises:
        infllm.engine.errors.MemoryFileError: it is damaged, unfinished, of another model,
            tokenizer or configuration, or no memory of documents.
    """
    from infllm.engine.errors import MemoryFileError
    from infllm.engine.files import CHECKED_WHOLE, read_manifest

    if isinstance(memory, Path):
        folder = memory
        whole = whole or read_manifest(folder).size <= CHECKED_WHOLE
    else:
        folder = memory.folder
    try:
        session = engine.open(memory, verify=whole)
    except MemoryFileError as error:
        if error.reason == "unfinished":
            error.hint = "the index command that was stopped goes on when it is given again"
        raise
    about = about_memory(folder, session.manifest)
    passages = _passages(folder, session.manifest, about)
    seconds = noted_time(folder)
    reading = Reading(
        about["tokens_given"], session.stats.tokens_read, about["tokens_truncated"], seconds
    )
    return Memory(session, passages, reading, folder, True, about["choice"], about["turns"])


def save_memory(session: "Session", memory: Memory, turns: int, folder: Path) -> None:
    """Keep a session that went on from `memory`, to `turns` in all, in a folder of its own.

    Raises:
        infllm.engine.errors.MemoryFileError: the folder cannot be written.
    """
    passages = memory.passages
    about = {
        "content": CONTENT,
        "sources": [document.source for document in memory.collection.documents],
        "head": passages.first,
        "characters": passages.kept,
        "tokens_given": memory.reading.tokens_given,
        "tokens_truncated": memory.reading.tokens_truncated,
        "digest": hashlib.sha256(str(session.position).encode()).hexdigest(),
        "choice": memory.choice,
        "turns": turns,
    }
    offsets = np.asarray(passages.offsets)
    files = {DOCUMENTS: pack_documents(memory.collection), OFFSETS: array_bytes(offsets)}
    session.save(folder, extra=about, extra_files=files)
    note_time(folder, memory.reading.seconds)


def about_memory(folder: Path, manifest: "Manifest | None" = None) -> dict[str, Any]:
    """What a memory says of itself, from its manifest alone: sources, tokens, choice, head.

    `manifest`: where it has been read already.

    Raises:
        infllm.engine.errors.MemoryFileError: there is no memory, or not one of documents.
    """
    from infllm.engine.errors import MemoryFileError
    from infllm.engine.files import read_manifest

    extra = (manifest or read_manifest(folder)).extra
    if not isinstance(extra, dict) or extra.get("content") != CONTENT:
        raise MemoryFileError(
            f"{folder} is a memory without documents",
            "make one with: infllm index SOURCE -o NAME.mem",
            reason="foreign",
        )
    return extra


def digest_of(folder: Path, about: dict[str, Any]) -> str:
    """What a memory is of, told apart from others: a conversation in it counts, too."""
    from infllm.engine.files import MANIFEST

    if not about["turns"]:
        return str(about["digest"])
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def noted_time(folder: Path) -> float:
    """Seconds that reading a memory took; 0 where that is not known any more."""
    try:
        return float(json.loads((folder / READING).read_text())["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def note_time(folder: Path, seconds: float) -> None:
    """Keep how long reading took so far, for `noted_time`."""
    from infllm.engine.files import MANIFEST

    if not (folder / MANIFEST).exists():
        return  # a folder without a memory holds nothing of ours
    path = folder / READING
    temporary = path.with_suffix(".new")
    with suppress(OSError):  # on a full disk: not worth the reading
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps({"seconds": round(seconds, 3), "when": round(time.time())}))
        temporary.replace(path)


def _begun(engine: "Engine", folder: Path, plan: Plan) -> tuple["Session", int, float]:
    """The session of an unfinished reading of the same, its tokens and seconds; or a new one."""
    from infllm.engine.errors import MemoryFileError
    from infllm.engine.files import CHECKED_WHOLE, read_manifest

    try:
        manifest = read_manifest(folder)
        same = isinstance(manifest.extra, dict) and manifest.extra.get("digest") == plan.digest
        if same and not manifest.complete:
            whole = manifest.size <= CHECKED_WHOLE
            session, done = engine.resume(folder, verify=whole)
            return session, done, noted_time(folder)
    except MemoryFileError:
        pass  # of something else, or damaged: it is written anew
    return engine.session(), 0, 0.0


def _about(plan: Plan, choice: dict[str, Any]) -> dict[str, Any]:
    return {
        "content": CONTENT,
        "sources": [document.source for document in plan.collection.documents],
        "head": len(plan.head_ids),
        "characters": plan.characters,
        "tokens_given": plan.given,
        "tokens_truncated": plan.given - plan.tokens,
        "digest": plan.digest,
        "choice": choice,
        "turns": 0,
    }


def _extra_files(plan: Plan) -> dict[str, bytes]:
    return {DOCUMENTS: pack_documents(plan.collection), OFFSETS: array_bytes(plan.offsets)}


def memory_of(engine: "Engine", session: "Session") -> Callable[[], int]:
    """What tells the bytes that a session holds, for the progress of reading."""

    def memory() -> int:
        stats = session.stats
        on_gpu = engine.device.type != "cpu"
        return stats.device_bytes + stats.host_bytes if on_gpu else peak_memory_bytes()

    return memory
