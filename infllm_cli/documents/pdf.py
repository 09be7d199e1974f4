"""PDF: pages read in worker processes, put together with labels, chapters and warnings."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from infllm.cli.documents.document import Document, SpanBuilder
from infllm.cli.documents.errors import DocumentError, LimitExceeded, NoText, Unreadable
from infllm.cli.documents.limits import Limits
from infllm.cli.documents.pagetext import (
    dehyphenate,
    joint,
    normalize,
    strip_running_lines,
    vocabulary,
)
from infllm.cli.documents.worker import Worker, WorkerDied, WorkerTimeout
from infllm.cli.text import plural

Progress = Callable[[str, int, int], None]

# Pages that keep one more process busy for longer than it takes to start.
PAGES_PER_WORKER = {"pdfium": 400, "pypdf": 16}
PAGES_NAMED = 8  # in a warning
SPARSE_CHARS = 10  # a page with fewer, blanks not counted, has almost no text
CHAPTER_CHARS = 200


@dataclass
class _Pages:
    """What the workers found, shared between the threads that wait for them."""

    texts: list[str]
    hidden: dict[str, list[int]] = field(default_factory=dict)  # reason -> page indices
    failed: dict[int, str] = field(default_factory=dict)  # page index -> why
    stalled: int = 0
    done: int = 0
    next: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def read_pdf(
    path: str,
    source: str,
    *,
    password: str | None = None,
    limits: Limits,
    worker: Worker,
    on_progress: Progress | None = None,
    backend: str | None = None,
) -> Document:
    """Reads the PDF at ``path``; ``source`` is its name in spans and messages.

    ``backend``: "pdfium" or "pypdf"; the first that can open the file when None. Raises
    Encrypted, Unreadable, NoText or LimitExceeded. A page that hangs, crashes or is damaged is
    left out with a warning.
    """
    opened = _ask(worker, source, limits, "pdf_open", path=path, password=password, backend=backend)
    count = int(opened["pages"])
    if count == 0:
        raise Unreadable(
            f"{source}: damaged, no pages can be found",
            "Repair it, e.g. with qpdf or mutool clean.",
        )
    if count > limits.pdf_pages:
        raise LimitExceeded(
            f"{source}: {count} pages, {limits.pdf_pages} allowed", "Split it, e.g. with qpdf."
        )
    warnings: list[str] = []
    try:
        structure = _ask(worker, source, limits, "pdf_structure")
    except DocumentError as error:
        structure = {"labels": None, "outline": [], "title": None}
        warnings.append(f"no page labels and no outline: {error.message}")
    opening = {"path": path, "source": source, "password": password, "backend": opened["backend"]}
    pages = _read_pages(count, opening, limits, worker, on_progress)
    labels = structure["labels"] or []
    labels = [
        labels[index] if index < len(labels) and labels[index] else str(index + 1)
        for index in range(count)
    ]
    texts = list(map(normalize, pages.texts))
    empty = sum(not text.strip() for text in texts)
    _warn(warnings, pages, labels, empty)
    if empty == count:
        raise _no_text(source, pages, count)
    if not _looks_scanned(empty, count):  # else that was said
        read = [text for index, text in enumerate(texts) if index not in pages.failed]
        warnings += _sparse(read)
    outline = [(title, page) for title, page in structure["outline"] if 0 <= page < count]
    body = _assemble(source, texts, labels, outline)
    title = " ".join(normalize(structure["title"] or "").split())
    return Document(
        source,
        "pdf",
        *body.finish(),
        title=title or None,
        pages=count,
        pages_without_text=empty,
        warnings=warnings,
        extractor=opened["extractor"],
    )


def _ask(worker: Worker, source: str, limits: Limits, task: str, **request: object) -> dict:
    if task == "pdf_open":
        request["source"] = source
    try:
        return worker.ask(task, limits.parse_seconds, **request)
    except WorkerTimeout as error:
        raise LimitExceeded(
            f"{source}: opening it took over {limits.parse_seconds:g} s",
            "It may be damaged; repair it, e.g. with qpdf or mutool clean.",
        ) from error
    except WorkerDied as error:
        raise Unreadable(
            f"{source}: damaged, it crashes the PDF reader",
            "Repair it, e.g. with qpdf or mutool clean.",
        ) from error


def _read_pages(
    count: int,
    opening: dict[str, str | None],
    limits: Limits,
    first: Worker,
    on_progress: Progress | None,
) -> _Pages:
    """Raw text of all pages. ``first`` has the PDF open; others join in where it pays."""
    pages = _Pages([""] * count)
    source = opening["source"] or ""

    def work(worker: Worker) -> None:
        while True:
            with pages.lock:
                index = pages.next
                pages.next += 1
            if index >= count:
                return
            _read_page(index, worker, opening, limits, pages)
            with pages.lock:
                pages.done += 1
                if on_progress is not None:
                    on_progress(source, pages.done, count)

    per_worker = PAGES_PER_WORKER[opening["backend"] or "pypdf"]
    helpers = [
        Worker(limits) for _ in range(min(cores(), limits.workers, 1 + count // per_worker) - 1)
    ]
    try:
        with ThreadPoolExecutor(1 + len(helpers)) as pool:
            for future in [pool.submit(work, worker) for worker in (first, *helpers)]:
                future.result()
    except BaseException:
        pages.next = count
        first.close()
        raise
    finally:
        for helper in helpers:
            helper.close()
    return pages


def _read_page(
    index: int, worker: Worker, opening: dict[str, str | None], limits: Limits, pages: _Pages
) -> None:
    try:
        if not worker.running:
            worker.ask("pdf_open", limits.parse_seconds, **opening)
        answer = worker.ask("pdf_page", limits.page_seconds, page=index)
    except WorkerTimeout as error:
        with pages.lock:
            pages.failed[index] = f"took over {limits.page_seconds:g} s"
            pages.stalled += 1
            if pages.stalled >= limits.stalled_pages:
                pages.next = len(pages.texts)
                raise LimitExceeded(
                    f"{opening['source']}: {pages.stalled} pages took over "
                    f"{limits.page_seconds:g} s each; given up",
                    "It may be damaged; repair it, e.g. with qpdf or mutool clean.",
                ) from error
        return
    except WorkerDied:
        with pages.lock:
            pages.failed[index] = "crashes the PDF reader"
        return
    except Unreadable:
        with pages.lock:
            pages.failed[index] = "is damaged"
        return
    pages.texts[index] = answer["text"]
    with pages.lock:
        for reason in answer["hidden"]:
            pages.hidden.setdefault(reason, []).append(index)


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _warn(warnings: list[str], pages: _Pages, labels: list[str], empty: int) -> None:
    by_reason: dict[str, list[int]] = {}
    for index, reason in sorted(pages.failed.items()):
        by_reason.setdefault(reason, []).append(index)
    for reason, found in by_reason.items():
        warnings.append(f"left out, for it {reason}: {_name(found, labels)}")
    for reason, found in sorted(pages.hidden.items()):
        warnings.append(f"hidden text ({reason}) was read: {_name(sorted(found), labels)}")
    without = empty - sum(not pages.texts[index].strip() for index in pages.failed)
    if without:
        scanned = _looks_scanned(empty, len(labels))
        advice = "; it looks scanned: run OCR, e.g. ocrmypdf" if scanned else ""
        warnings.append(f"no text on {empty} of {len(labels)} pages{advice}")


def _looks_scanned(empty: int, count: int) -> bool:
    return empty * 2 > count


def _sparse(texts: list[str]) -> list[str]:
    """A warning where most pages hold a few characters: what a scan has, a stamp or a number."""
    lengths = [sum(not char.isspace() for char in text) for text in texts]
    sparse = [length for length in lengths if length < SPARSE_CHARS]
    if len(sparse) * 2 <= len(texts):
        return []
    of_all = "" if len(sparse) == len(texts) else f"{len(sparse)} of "
    return [
        f"almost no text: {plural(sum(sparse), 'character')} on {of_all}"
        f"{plural(len(texts), 'page')}; it may be a scan: run OCR first, e.g. ocrmypdf"
    ]


def _name(indices: list[int], labels: list[str]) -> str:
    named = ", ".join(labels[index] for index in indices[:PAGES_NAMED])
    more = f" and {len(indices) - PAGES_NAMED} more" if len(indices) > PAGES_NAMED else ""
    return f"{'page' if len(indices) == 1 else 'pages'} {named}{more}"


def _no_text(source: str, pages: _Pages, count: int) -> DocumentError:
    if len(pages.failed) == count:
        reason = next(iter(pages.failed.values()))
        return Unreadable(
            f"{source}: damaged, none of its {count} pages can be read (the first {reason})",
            "Repair it, e.g. with qpdf or mutool clean.",
        )
    return NoText(
        f"{source}: no text on {count} of {count} pages; it looks scanned",
        "Run OCR on it first, e.g. ocrmypdf scan.pdf text.pdf",
    )


def _assemble(
    source: str, texts: list[str], labels: list[str], outline: list[tuple[str, int]]
) -> SpanBuilder:
    bodies = strip_running_lines(texts, labels)
    known = vocabulary(bodies)
    bodies = [dehyphenate(body, known) for body in bodies]
    parts: list[tuple[int, str]] = []  # page index, text with what leads to the next page
    for index, body in enumerate(bodies):
        if not body:
            continue
        if parts:
            page, before = parts[-1]
            dropped, between = joint(before, body, known) if page + 1 == index else (0, "\n\n")
            parts[-1] = page, before[: len(before) - dropped] + between
        parts.append((index, body))
    by_page: dict[int, list[str]] = {}
    for title, page in outline:
        by_page.setdefault(page, []).append(" ".join(normalize(title).split())[:CHAPTER_CHARS])
    out = SpanBuilder(source)
    chapter: str | None = None
    position = 0  # pages whose outline entries have been passed
    for index, text in parts:
        for page in range(position, index):
            chapter = by_page[page][-1] if page in by_page else chapter
        position = index + 1
        for begin, end, name in _chapters(text, by_page.get(index, []), chapter):
            out.add(text[begin:end], page=labels[index], page_index=index, chapter=name)
            chapter = name
    return out


def _chapters(
    text: str, titles: list[str], chapter: str | None
) -> list[tuple[int, int, str | None]]:
    """Cuts a page where its outline entries begin; one that is not found begins the page."""
    cuts: list[tuple[int, str | None]] = [(0, chapter)]
    for title in titles:
        last = cuts[-1][0]
        words = r"\s+".join(map(re.escape, title.split()))
        # The number of a heading may be missing from its outline entry, and the other way round.
        bare = re.sub(r"^(?:[\dA-Z]{1,3}(?:\\\.\d+)*(?:\\\.)?)\\s\+", "", words)
        found = words and re.compile(
            rf"^[^\n]{{0,20}}(?:{words}|{bare or words})[ ]*$", re.I | re.M
        ).search(text, last)
        if found:
            cuts.append((found.start(), title))
        elif last == 0:
            cuts[0] = (0, title)
    ends = [begin for begin, _ in cuts[1:]] + [len(text)]
    return [
        (begin, end, name) for (begin, name), end in zip(cuts, ends, strict=True) if end > begin
    ]
