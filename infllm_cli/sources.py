"""The sources that a command names, read and told of."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from infllm.cli.errors import UsageError
from infllm.cli.options import DocumentFlags
from infllm.cli.output import Output
from infllm.cli.progress import Spinner
from infllm.cli.streams import stdin_bytes
from infllm.cli.text import one_line, plural

if TYPE_CHECKING:
    from infllm.cli.documents import Collection, LeftOut

WARNINGS_SHOWN = 5


def read_documents(sources: Sequence[str], documents: DocumentFlags, out: Output) -> "Collection":
    """The text of all sources; warnings, skipped files, and what of the sources is not in the text
    are told on stderr."""
    collection = gather(sources, documents, out)
    tell_left_out(collection, out, f"infllm inspect {_named(sources)} shows them")
    return collection


def gather(sources: Sequence[str], documents: DocumentFlags, out: Output) -> "Collection":
    """As `read_documents`, for commands that tell in full what is not in the text."""
    from infllm.cli.documents import is_memory, read_sources

    for source in sources:
        if is_memory(source):
            raise UsageError(
                f"{source} is a memory of documents, which are read already",
                f'ask it: infllm ask {source} "QUESTION", or see: infllm memory show {source}',
            )
    stdin = stdin_bytes("a document") if "-" in sources else None
    with Spinner(out, f"reading {plural(len(sources), 'source')}") as spinner:

        def told(source: str, done: int, pages: int) -> None:
            spinner.update(f"reading {source}: page {done} of {pages}")

        collection = read_sources(sources, **vars(documents), stdin=stdin, on_progress=told)
    notices = [
        f"{document.source}: {warning}"
        for document in collection.documents
        for warning in document.warnings
    ]
    shown = notices if out.verbose else notices[:WARNINGS_SHOWN]
    for notice in shown:
        out.warn(notice)
    if len(notices) > len(shown):
        out.warn(f"{plural(len(notices) - len(shown), 'more warning')} (-v shows all)")
    if collection.skipped and not out.verbose:
        out.note(f"{plural(len(collection.skipped), 'file')} skipped (-v says why)")
    for skipped in collection.skipped:
        out.detail(f"skipped {one_line(skipped.source)}: {skipped.reason}")
    return collection


def _named(sources: Sequence[str]) -> str:
    return shlex.quote(sources[0]) if len(sources) == 1 else "SOURCE..."


def all_left_out(collection: "Collection") -> list[dict[str, Any]]:
    """How many of each kind of thing the sources hold and their text does not, for JSON."""
    total: dict[str, int] = {}
    for document in collection.documents:
        for one in document.left_out:
            total[one.what] = total.get(one.what, 0) + one.count
    return [{"what": what, "count": number} for what, number in total.items()]


def tell_left_out(collection: "Collection", out: Output, hint: str = "") -> None:
    """One line of what was not read; with -v also by source, with samples."""
    total = all_left_out(collection)
    if not total:
        return
    listed = ", ".join(plural(one["count"], one["what"]) for one in total)
    out.note(f"left out: {listed}" + (f" ({hint})" if hint else ""))
    for document in collection.documents:
        for one in document.left_out:
            out.detail(f"left out of {document.source}: {left_out_sentence(one)}")


def left_out_sentence(one: "LeftOut") -> str:
    """`12 running lines: "Confidential", "Page"`."""
    samples = ", ".join(f'"{one_line(sample)}"' for sample in one.samples)
    return plural(one.count, one.what) + (f": {samples}" if samples else "")


def need_sources(sources: Sequence[str] | None, example: str) -> list[str]:
    """Raises UsageError when no source was named."""
    if not sources:
        raise UsageError("no source given", f"for example: {example}")
    return list(sources)
