"""What proposes tokens ahead while an answer is written: the text that it is about, or the model.

The suffixes of a long document are kept beside its memory, in the user's cache or where `index`
made it: eight bytes a token.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from infllm.cli.memory import Memory, about_memory, digest_of
from infllm.cli.options import Sampling
from infllm.cli.output import Output

if TYPE_CHECKING:
    from infllm.engine import Engine
    from infllm.engine.drafts import Drafts, SuffixArray

NAME = "suffixes-{}.npy"  # in a memory's folder, and no part of it
LEAST_KEPT = 65536  # tokens; what is shorter is put in order as fast as it is found
PROMPT = 4096  # ids that lookahead decoding draws from


def drafts_for(
    engine: "Engine", sampling: Sampling, memory: Memory | None, recent: Sequence[int]
) -> "Drafts | None":
    """What proposes tokens for an answer behind the ids `recent`: from the documents of `memory`,
    or of what is recent alone. None where that is off, or nothing could be drafted."""
    way = sampling.draft or engine.config.draft
    if way == "off" or engine.rounds_rows:
        return None
    from infllm.engine.drafts import DocumentDrafts, Lookahead

    if way == "lookahead":
        return Lookahead(list(recent)[-PROMPT:]) if recent else None
    if memory is None:
        return DocumentDrafts(None, recent)
    return DocumentDrafts(suffixes_of(engine, memory), recent, memory.passages.first)


def tell_of_drafts(engine: "Engine", sampling: Sampling, out: Output) -> None:
    """Say why drafts that were asked for are not tried."""
    if sampling.draft not in (None, "off") and engine.rounds_rows:
        out.note(
            f"--draft {sampling.draft} is left out: decode steps take packed weights, and drafts "
            "would change what they choose (--weights full)"
        )


def suffixes_of(engine: "Engine", memory: Memory, *, keep: bool = False) -> "SuffixArray":
    """Those of a memory's documents, mapped where they are kept; `keep`: beside any memory, and not
    in the user's cache alone."""
    from infllm.engine.drafts import SuffixArray

    if memory.suffixes is not None:
        return memory.suffixes
    path = _path(memory)
    found: SuffixArray | None = None
    if path is not None and path.exists():
        with suppress(OSError, ValueError):  # another program's, or half of one: made anew
            found = SuffixArray.open(path)
    if found is None:
        text = memory.collection.text
        kept = memory.passages.kept
        found = SuffixArray.of([i for a, b in kept for i in engine.tokenizer.encode(text[a:b])])
        if path is not None and len(found) >= LEAST_KEPT and (keep or _is_cached(path)):
            with suppress(OSError):  # a full disk, or another's folder: not worth the answer
                found.save(path)
                for old in path.parent.glob(NAME.format("*")):
                    if old != path:
                        old.unlink()
    memory.suffixes = found
    return found


def _is_cached(path: Path) -> bool:
    from infllm.cli.cache import CacheUnavailable, cache_folder

    try:
        return path.is_relative_to(cache_folder())
    except CacheUnavailable:
        return False


def _path(memory: Memory) -> Path | None:
    """Where the suffixes of a memory lie; of another content, elsewhere."""
    from infllm.engine.errors import MemoryFileError

    if memory.folder is None:
        return None
    try:
        digest = digest_of(memory.folder, about_memory(memory.folder))
    except MemoryFileError:  # replaced since
        return None
    return memory.folder / NAME.format(hashlib.sha256(digest.encode()).hexdigest()[:16])
