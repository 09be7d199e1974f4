"""From what a user names - files, folders, globs, standard input - to documents."""

from __future__ import annotations

import glob
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import BinaryIO

from infllm.cli.documents.archive import folder_bytes, is_unpacked_book
from infllm.cli.documents.document import Collection, Document, LeftOut, Skipped, Span
from infllm.cli.documents.errors import (
    DocumentError,
    LimitExceeded,
    NoText,
    SourceNotFound,
    Unreadable,
)
from infllm.cli.documents.folder import VANISHED, Found, content_reason, open_regular, walk
from infllm.cli.documents.kind import HEAD_BYTES, PARSED, sniff
from infllm.cli.documents.limits import MIB, Limits
from infllm.cli.documents.pdf import Progress, read_pdf
from infllm.cli.documents.plain import read_plain
from infllm.cli.documents.worker import Worker, WorkerDied, WorkerTimeout
from infllm.cli.errors import UsageError

STDIN = "-"
REASONS_NAMED = 3  # in the error for a folder of which nothing was read


@dataclass(frozen=True)
class Listing:
    """A source as ``list_sources`` sees it; ``reason`` says why it would be skipped, if so."""

    source: str
    kind: str | None
    bytes: int | None
    reason: str | None = None


def read_sources(
    sources: Sequence[str],
    *,
    password: str | None = None,
    main_text: bool | None = None,
    outputs: bool = False,
    limits: Limits | None = None,
    stdin: BinaryIO | None = None,
    on_progress: Progress | None = None,
) -> Collection:
    """Reads files, folders, glob patterns and "-" (standard input) in the order given.

    ``main_text``: leave navigation, banners and footers of web pages out; by default of pages
    that are mostly such. ``outputs``: read what the cells of notebooks printed, too.

    ``on_progress(source, pages done, pages)`` is called while a PDF is read, from any thread.
    A source that was named raises its DocumentError; a file met in a folder or matched by a glob
    is skipped instead, with the error as its reason. Raises NoText where nothing is left.
    """
    limits = limits or Limits()
    documents: list[Document] = []
    skipped: list[Skipped] = []
    chars = 0
    with Worker(limits) as worker:
        reader = _Reader(worker, limits, password, on_progress, main_text, outputs)
        for found in _expand(sources, limits):
            if isinstance(found, Skipped):
                skipped.append(found)
                continue
            document: Document | Skipped
            try:
                if found.source == STDIN:
                    document = reader.stream(stdin or sys.stdin.buffer, STDIN)
                else:
                    document = reader.file(found)
            except DocumentError as error:
                if found.named:
                    raise
                skipped.append(Skipped(found.source, _why(error, found)))
                continue
            if isinstance(document, Skipped):
                skipped.append(document)
                continue
            chars += len(document.text)
            if chars > limits.total_chars:
                raise LimitExceeded(
                    f"{found.source}: with it the sources have more than {limits.total_chars} "
                    "characters",
                    "Give fewer of them.",
                )
            documents.append(document)
    if not documents:
        raise _nothing(sources, skipped)
    return Collection(documents, skipped)


def list_sources(sources: Sequence[str], *, limits: Limits | None = None) -> list[Listing]:
    """What ``read_sources`` would read, by names, sizes and first bytes, without parsing.

    Raises SourceNotFound, Unreadable and LimitExceeded, as ``read_sources`` would.
    """
    limits = limits or Limits()
    listed = []
    for found in _expand(sources, limits):
        if isinstance(found, Skipped):
            listed.append(Listing(found.source, None, None, found.reason))
        elif found.source == STDIN:
            listed.append(Listing(STDIN, None, None))
        else:
            listed.append(_list_file(found, limits))
    return listed


def _list_file(found: Found, limits: Limits) -> Listing:
    try:
        kind, size, reason = _inspect(found, limits)
    except DocumentError as error:
        return Listing(
            found.source, None, found.bytes, error.message.removeprefix(f"{found.source}: ")
        )
    return Listing(found.source, kind, size, reason)


def _expand(sources: Sequence[str], limits: Limits) -> Iterator[Found | Skipped]:
    """Every file behind the sources, each once."""
    if not sources:
        raise UsageError("no source to read", "Give a file, a folder or - for standard input.")
    seen: set[object] = set()
    for source in sources:
        for found in _expand_one(source, limits):
            key = found.source if isinstance(found, Skipped) else _identity(found)
            if key == STDIN and key in seen:
                raise UsageError("standard input (-) can be read once only", "Name it once.")
            if key not in seen:
                seen.add(key)
                yield found


def _identity(found: Found) -> object:
    return STDIN if found.source == STDIN else os.path.realpath(found.path)


def _expand_one(source: str, limits: Limits) -> Iterator[Found | Skipped]:
    if source == STDIN:
        yield Found(STDIN, STDIN, 0, named=True)
    elif "\0" in source:
        raise SourceNotFound("a source name holds a NUL character", "Check the names given.")
    elif is_unpacked_book(source):
        yield Found(source, source, folder_bytes(source), named=True)
    elif os.path.isdir(source):
        yield from walk(source, limits)
    elif os.path.lexists(source):
        yield Found(source, source, _size(source), named=True)
    else:
        yield from _expand_glob(source, limits)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0  # opening it will say why


def _expand_glob(pattern: str, limits: Limits) -> Iterator[Found | Skipped]:
    """Files that match, in order; folders are walked where nothing but folders matches."""
    matches: list[str] = []
    if glob.has_magic(pattern):
        for match in glob.iglob(pattern, recursive=True):
            matches.append(match)
            if len(matches) > limits.files:
                raise LimitExceeded(
                    f"{pattern}: matches more than {limits.files} files", "Narrow the pattern."
                )
    if not matches:
        what = "nothing matches" if glob.has_magic(pattern) else "no such file or folder"
        raise SourceNotFound(
            f"{pattern}: {what}",
            f"Check the name; the current folder is {_here()}",
        )
    files = sorted(m for m in matches if not os.path.isdir(m) or is_unpacked_book(m))
    for match in files:
        yield Found(match, match, _size(match))
    if not files:
        for match in sorted(matches):
            yield from walk(match, limits)


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed under our feet
        return "deleted"


def _inspect(found: Found, limits: Limits) -> tuple[str, int, str | None]:
    """Kind, size in bytes, and why the file is to be skipped, by its first bytes."""
    if is_unpacked_book(found.path):
        _check_size(found.source, "epub", found.bytes, limits)
        return "epub", found.bytes, None
    descriptor, status = open_regular(found.path, found.source)
    with os.fdopen(descriptor, "rb") as file:
        try:
            head = file.read(HEAD_BYTES)
        except OSError as error:
            raise Unreadable(f"{found.source}: {error.strerror}") from error
    size = max(status.st_size, len(head))  # files of /proc have no size
    if found.named and not head:
        raise NoText(f"{found.source}: the file is empty")
    kind = sniff(head, found.source) if head else "text"
    reason = None if found.named else content_reason(head, found.source, kind, size, limits)
    if reason is None:
        _check_size(found.source, kind, size, limits)
    return kind, size, reason


def _check_size(source: str, kind: str, size: int, limits: Limits) -> None:
    allowed = limits.text_bytes if kind not in PARSED or kind == "html" else limits.source_bytes
    if size > allowed:
        raise LimitExceeded(
            f"{source}: larger than the {allowed / MIB:g} MiB that a {kind} source may have",
            "Split it, or give the parts that matter.",
        )


class _Reader:
    def __init__(
        self,
        worker: Worker,
        limits: Limits,
        password: str | None,
        on_progress: Progress | None,
        main_text: bool | None,
        outputs: bool,
    ):
        self.worker = worker
        self.limits = limits
        self.password = password
        self.main_text = main_text
        self.outputs = outputs
        self.on_progress = on_progress

    def file(self, found: Found) -> Document | Skipped:
        try:
            return self._file(found)
        except OSError as error:  # the file, or the folder around it, went away meanwhile
            raise Unreadable(
                f"{found.source}: {error.strerror or error}", "It changed while it was read."
            ) from error

    def _file(self, found: Found) -> Document | Skipped:
        kind, _, reason = _inspect(found, self.limits)
        if reason is not None:
            return Skipped(found.source, reason)
        if kind in PARSED:
            return self.parse(found.path, found.source, kind)
        descriptor, _ = open_regular(found.path, found.source)
        with os.fdopen(descriptor, "rb") as file:
            data = self.bounded(file, found.source, kind)
        return read_plain(data, found.source, kind, outputs=self.outputs)

    def stream(self, stream: BinaryIO, source: str) -> Document:
        """Standard input: what comes in decides its kind."""
        data = self.bounded(stream, source, "text")
        if not data:
            raise NoText("standard input is empty", "Pipe a document into it.")
        kind = sniff(data[:HEAD_BYTES], source)
        if kind not in PARSED:
            return read_plain(data, source, kind, outputs=self.outputs)
        with tempfile.NamedTemporaryFile(prefix="infllm-") as file:
            file.write(data)
            file.flush()
            return self.parse(file.name, source, kind)

    def bounded(self, stream: BinaryIO, source: str, kind: str) -> bytes:
        blocks: list[bytes] = []
        size = 0
        try:
            while block := stream.read(MIB):
                size += len(block)
                _check_size(source, kind, size, self.limits)
                blocks.append(block)
        except OSError as error:
            raise Unreadable(f"{source}: {error.strerror}") from error
        return b"".join(blocks)

    def parse(self, path: str, source: str, kind: str) -> Document:
        """A document whose parser runs in the worker process."""
        path = os.path.abspath(path)
        if kind == "pdf":
            return read_pdf(
                path,
                source,
                password=self.password,
                limits=self.limits,
                worker=self.worker,
                on_progress=self.on_progress,
            )
        try:
            answer = self.worker.ask(
                "html" if kind == "html" else "archive",
                self.limits.parse_seconds,
                path=path,
                source=source,
                limits=asdict(self.limits),
                **({"main_text": self.main_text} if kind == "html" else {}),
            )
        except WorkerTimeout as error:
            raise LimitExceeded(
                f"{source}: parsing it took over {self.limits.parse_seconds:g} s",
                "It may be damaged, or made to keep readers busy.",
            ) from error
        except WorkerDied as error:
            raise Unreadable(f"{source}: damaged, it crashes the {kind} reader") from error
        answer["spans"] = [
            Span(start, end, source, page, page_index, chapter, line)
            for start, end, page, page_index, chapter, line in answer["spans"]
        ]
        answer["left_out"] = [
            LeftOut(one["what"], one["count"], tuple(one["samples"])) for one in answer["left_out"]
        ]
        return Document(**answer)


def _why(error: DocumentError, found: Found) -> str:
    """The reason for skipping: a parser whose file is taken away says other things."""
    if not os.path.exists(found.path):
        return VANISHED
    return error.message.removeprefix(f"{found.source}: ")


def _nothing(sources: Sequence[str], skipped: list[Skipped]) -> NoText:
    where = ", ".join(sources[:REASONS_NAMED]) + (", ..." if len(sources) > REASONS_NAMED else "")
    if not skipped:
        return NoText(f"{where}: no files in it", "Give a file or folder with text in it.")
    reasons = "; ".join(f"{s.source}: {s.reason}" for s in skipped[:REASONS_NAMED])
    more = f"; and {len(skipped) - REASONS_NAMED} more" if len(skipped) > REASONS_NAMED else ""
    return NoText(
        f"{where}: nothing to read, {len(skipped)} skipped ({reasons}{more})",
        "Name a file itself to read it all the same.",
    )
