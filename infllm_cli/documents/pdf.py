"""PDF: pages read in worker processes, put together with labels, chapters and warnings."""

from __future__ import annotations

import re
from collections.abc import Sequence

from infllm.cli.documents.document import Document, SpanBuilder
from infllm.cli.documents.errors import DocumentError, LimitExceeded, NoText, Unreadable
from infllm.cli.documents.garbled import MOSTLY, garbled_share, is_readable
from infllm.cli.documents.hyphens import Vocabulary, dehyphenate, page_joint
from infllm.cli.documents.limits import Limits
from infllm.cli.documents.pagetext import normalize, page_lines
from infllm.cli.documents.pdf_backend import PageText
from infllm.cli.documents.pdf_pages import REPAIR, Pages, Progress, read_pages
from infllm.cli.documents.running import strip_running_lines
from infllm.cli.documents.worker import Worker, WorkerDied, WorkerTimeout
from infllm.cli.text import plural

PAGES_NAMED = 8  # in a warning
SPARSE_CHARS = 10  # a page with fewer, blanks not counted, has almost no text
CHAPTER_CHARS = 200
PAGE_CHAPTERS = 100  # outline entries looked for on one page
RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]")
GARBLED = "is garbled"
RULES = 2  # version of what is done here to the libraries' text


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
        warnings += structure.get("warnings", [])
    except DocumentError as error:
        structure = {"labels": None, "outline": [], "title": None}
        warnings.append(f"no page labels and no outline: {error.message}")
    opening = {"path": path, "source": source, "password": password, "backend": opened["backend"]}
    pages = read_pages(count, opening, limits, worker, on_progress)
    labels = structure["labels"] or []
    labels = [
        labels[index] if index < len(labels) and labels[index] else str(index + 1)
        for index in range(count)
    ]
    read = [page_lines(page.lines, page.edges, page.height) for page in pages.pages]
    notes = [[normalize(note) for note in page.notes] for page in pages.pages]
    garbled = _garbled(pages.pages)
    texts = ["\n".join([page.text, *more]) for page, more in zip(read, notes, strict=True)]
    empty = sum(not text.strip() for text in texts)
    _warn(warnings, pages, labels, empty, garbled)
    if opened["backend"] == "pypdf" and any(map(RIGHT_TO_LEFT.search, texts)):
        warnings.append("right-to-left text: its words and numbers may be out of order")
    lost = sum(reason == GARBLED for reason in garbled.values())
    if empty + lost == count:
        raise _no_text(source, pages, count, lost)
    if not _looks_scanned(empty, count):  # else that was said
        warnings += _sparse([text for index, text in enumerate(texts) if index not in pages.failed])
    outline = [(title, page) for title, page in structure["outline"] if 0 <= page < count]
    bodies, running = strip_running_lines(read, labels)
    body = _assemble(source, bodies, notes, labels, outline)
    title = " ".join(normalize(structure["title"] or "").split())
    return Document(
        source,
        "pdf",
        *body.finish(),
        title=title or None,
        pages=count,
        pages_without_text=empty,
        warnings=warnings,
        extractor=f"{opened['extractor']}, pdf {RULES}",
        left_out=[running] if running is not None else [],
    )


def _ask(worker: Worker, source: str, limits: Limits, task: str, **request: object) -> dict:
    if task == "pdf_open":
        request["source"] = source
    try:
        return worker.ask(task, limits.parse_seconds, **request)
    except WorkerTimeout as error:
        raise LimitExceeded(
            f"{source}: opening it took over {limits.parse_seconds:g} s", REPAIR
        ) from error
    except WorkerDied as error:
        raise Unreadable(
            f"{source}: damaged, it crashes the PDF reader",
            "Repair it, e.g. with qpdf or mutool clean.",
        ) from error


def _garbled(pages: Sequence[PageText]) -> dict[int, str]:
    """Pages whose text is not what they show, and how that was seen."""
    found: dict[int, str] = {}
    for index, page in enumerate(pages):
        raw = "\n".join(page.lines)
        if not raw.strip():
            continue
        if garbled_share(raw) > MOSTLY:
            found[index] = GARBLED
        elif page.unmapped > MOSTLY and not is_readable(raw):
            found[index] = "may be garbled"
    return found


def _warn(
    warnings: list[str], pages: Pages, labels: list[str], empty: int, garbled: dict[int, str]
) -> None:
    for reason, found in _by_reason(pages.failed):
        warnings.append(f"left out, for it {reason}: {_name(found, labels)}")
    for reason, found in _by_reason(pages.damaged):
        warnings.append(f"read in part, for it {reason}: {_name(found, labels)}")
    for reason, found in _by_reason(garbled):
        warnings.append(
            f"text {reason}, its fonts do not say which characters they show: "
            f"{_name(found, labels)}; run OCR, e.g. ocrmypdf --force-ocr"
        )
    hidden: dict[str, list[int]] = {}
    for index, page in enumerate(pages.pages):
        for reason in page.hidden:
            hidden.setdefault(reason, []).append(index)
    for reason, found in sorted(hidden.items()):
        warnings.append(f"hidden text ({reason}) was read: {_name(found, labels)}")
    without = empty - len(pages.failed)
    if without > 0:
        scanned = _looks_scanned(empty, len(labels))
        advice = "; it looks scanned: run OCR, e.g. ocrmypdf" if scanned else ""
        warnings.append(f"no text on {empty} of {len(labels)} pages{advice}")


def _by_reason(pages: dict[int, str]) -> list[tuple[str, list[int]]]:
    by_reason: dict[str, list[int]] = {}
    for index, reason in sorted(pages.items()):
        by_reason.setdefault(reason, []).append(index)
    return list(by_reason.items())


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


def _no_text(source: str, pages: Pages, count: int, garbled: int) -> DocumentError:
    if len(pages.failed) == count:
        reason = next(iter(pages.failed.values()))
        return Unreadable(
            f"{source}: damaged, none of its {count} pages can be read (the first {reason})",
            "Repair it, e.g. with qpdf or mutool clean.",
        )
    if garbled:
        return NoText(
            f"{source}: no readable text on {count} of {count} pages; its fonts do not say which "
            "characters they show",
            "Run OCR on it first, e.g. ocrmypdf --force-ocr garbled.pdf text.pdf",
        )
    return NoText(
        f"{source}: no text on {count} of {count} pages; it looks scanned",
        "Run OCR on it first, e.g. ocrmypdf scan.pdf text.pdf",
    )


def _assemble(
    source: str,
    bodies: list[str],
    notes: list[list[str]],
    labels: list[str],
    outline: list[tuple[str, int]],
) -> SpanBuilder:
    known = Vocabulary(bodies)
    parts: list[tuple[int, str]] = []  # page index, text with what leads to the next page
    for index, (raw, more) in enumerate(zip(bodies, notes, strict=True)):
        body = dehyphenate(raw, known)
        if not body.strip() and not more:
            continue
        if parts:
            page, before = parts[-1]
            follows = page + 1 == index and not notes[page] and bool(body)
            dropped, between = page_joint(before, body, known) if follows else (0, "\n\n")
            parts[-1] = page, before[: len(before) - dropped] + between
        filled = "\n".join(more)
        parts.append((index, f"{body}\n\n{filled}" if body and filled else body or filled))
    by_page: dict[int, list[str]] = {}
    for title, page in outline:
        titles = by_page.setdefault(page, [])
        if len(titles) < PAGE_CHAPTERS:
            titles.append(" ".join(normalize(title).split())[:CHAPTER_CHARS])
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
