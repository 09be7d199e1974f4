"""Further documents behind those of a memory."""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from infllm.cli.documents import Collection
from infllm.cli.errors import BudgetExceeded, Interrupted
from infllm.cli.memory import (
    DOCUMENTS,
    OFFSETS,
    Memory,
    about_memory,
    memory_of,
    note_time,
    noted_time,
    open_memory,
)
from infllm.cli.output import Output
from infllm.cli.packing import array_bytes, pack_documents
from infllm.cli.passages import Passages
from infllm.cli.progress import Progress
from infllm.cli.reading import Reading, read_in_chunks
from infllm.cli.text import count

if TYPE_CHECKING:
    from infllm.engine import Engine, Verification


def append_to_memory(
    engine: "Engine", there: "Verification", added: Collection, tail_tokens: int, out: Output
) -> Memory:
    """Read further documents into the memory that is there; a run that dies leaves it as it was.

    `tail_tokens`: as for `plan_reading`.

    Raises:
        BudgetExceeded: more tokens than max_len lets in; what was read cannot be taken out again.
        infllm.engine.errors.MemoryFileError: as for `open_memory`, or it cannot be written.
    """
    from infllm.engine import MemoryWriter

    memory, folder = open_memory(engine, there), there.folder
    old = memory.collection
    collection = old.extended(added.documents)
    text = collection.text[len(old.text) :]
    tokenizer = engine.tokenizer
    ids = tokenizer.encode(text, inner=True)
    try:
        offsets = np.array(tokenizer.offsets(text, ids), dtype=np.int64) + len(old.text)
    except ValueError:
        offsets = np.empty(0, dtype=np.int64)
    session, before = memory.session, memory.passages
    most, together = engine.config.max_len, session.position + len(ids) + tail_tokens
    if most is not None and together > most:
        raise BudgetExceeded(
            f"{count(together)} tokens with those of {folder}, more than max_len {count(most)}",
            "raise max_len, or index all the documents anew with --set truncation=middle",
        )
    # A conversation that was kept stands between the documents and belongs to none.
    between = session.position - before.first - len(before.offsets)
    whole = np.concatenate([before.offsets, np.full(between, len(old.text)), offsets])
    if not (len(offsets) and len(before.offsets)):
        whole = whole[:0]
    kept = [*before.kept, (len(old.text), len(collection.text))]
    passages = Passages(collection, whole, before.first, kept)
    about = {**about_memory(folder), "tokens_given": memory.reading.tokens_given + len(ids)}
    about["sources"] = [document.source for document in collection.documents]
    about["characters"] = kept
    about["digest"] = hashlib.sha256(
        bytes.fromhex(about["digest"]) + pack_documents(collection, names=False)
    ).hexdigest()
    with (
        MemoryWriter(session, folder, extra=about) as writer,
        Progress(out, "reading", len(ids), memory_of(engine, session)) as progress,
    ):
        # One save, at the end: a checkpoint in between would be neither the old nor the new.
        try:
            read_in_chunks(session, ids, engine.config.chunk_size, progress.advance)
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted after reading {count(progress.done)} of {count(len(ids))} tokens",
                "the memory is as it was; the same command starts over",
            ) from None
        files = {DOCUMENTS: pack_documents(collection), OFFSETS: array_bytes(whole)}
        writer.finish(extra=about, extra_files=files)
        elapsed = progress.elapsed
    note_time(folder, noted_time(folder) + elapsed)
    reading = Reading(
        about["tokens_given"],
        session.stats.tokens_read,
        about["tokens_truncated"],
        elapsed,
        memory.reading.tokens_read,
    )
    return Memory(session, passages, reading, folder, choice=about["choice"], turns=about["turns"])
