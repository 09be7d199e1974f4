"""What runs inside a worker process: one request per line in, one answer per line out."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from infllm.cli.documents.archive import Archive, Folder, Members
from infllm.cli.documents.document import Document, SpanBuilder
from infllm.cli.documents.errors import DocumentError, LimitExceeded, NoText, Unreadable
from infllm.cli.documents.kind import unsupported
from infllm.cli.documents.limits import Limits
from infllm.cli.documents.worker_bounds import cpu_time, end_with_parent, hangup_ends

Answer = dict[str, Any]


class Parser:
    """The tasks. A PDF stays open between requests for its pages."""

    def __init__(self) -> None:
        self._pdf: Any = None

    def html(self, path: str, source: str, limits: Limits, main_text: bool | None = None) -> Answer:
        from infllm.cli.documents.html import decode_html, extract_html, is_xhtml

        with open(path, "rb") as file:
            text, warning = decode_html(file.read(limits.text_bytes), source)
        out = SpanBuilder(source)
        facts = extract_html(text, out, xml=is_xhtml(text), lines=True, main_text=main_text)
        body, spans = out.finish()
        if not body.strip():
            raise NoText(
                f"{source}: a web page without text",
                "It may be filled in by scripts: save it from a browser as complete page or PDF.",
            )
        warnings = [warning] if warning else []
        if facts.hidden:
            warnings.append(f"{facts.hidden} characters are hidden from readers; left out")
        return _answer(
            Document(
                source,
                "html",
                body,
                spans,
                facts.title,
                warnings=warnings,
                extractor="html 2",
                left_out=facts.left_out,
            )
        )

    def archive(self, path: str, source: str, limits: Limits) -> Answer:
        from infllm.cli.documents.docx import read_docx
        from infllm.cli.documents.docx_package import main_part
        from infllm.cli.documents.epub import is_book, read_epub

        opened = Folder if os.path.isdir(path) else Archive
        with opened(path, source, limits) as archive:
            if is_book(archive):
                return _answer(read_epub(archive))
            other = _archive_format(archive)
            if other is not None:
                raise unsupported(source, other)
            if main_part(archive) or any(name.startswith("word/") for name in archive.names):
                return _answer(read_docx(archive))
            raise unsupported(source, "a zip archive")

    def pdf_open(self, path: str, source: str, password: str | None, backend: str | None) -> Answer:
        from infllm.cli.documents.pdf_open import open_pdf

        self._pdf = open_pdf(path, source, password, backend)
        return {"pages": self._pdf.pages, "backend": self._pdf.name, "extractor": self._pdf.version}

    def pdf_structure(self) -> Answer:
        return asdict(self._pdf.structure())

    def pdf_page(self, page: int) -> Answer:
        return asdict(self._pdf.page(page))


def _answer(document: Document) -> Answer:
    spans = [(s.start, s.end, s.page, s.page_index, s.chapter, s.line) for s in document.spans]
    return asdict(document) | {"spans": spans}


def _archive_format(archive: Members) -> str | None:
    for member, what in (
        ("xl/workbook.xml", "an Excel workbook (.xlsx)"),
        ("ppt/presentation.xml", "a PowerPoint presentation (.pptx)"),
        ("content.xml", "an OpenDocument file (.odt, .ods, .odp)"),
    ):
        if archive.find(member) is not None:
            return what
    return None


def serve(limit: int) -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a parser prints must not land between the answers
    parser = Parser()
    tasks: dict[str, Callable[..., Answer]] = {
        "html": parser.html,
        "archive": parser.archive,
        "pdf_open": parser.pdf_open,
        "pdf_structure": parser.pdf_structure,
        "pdf_page": parser.pdf_page,
    }
    end_with_parent()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        task = tasks[request.pop("task")]
        seconds = request.pop("cpu_seconds")
        if "limits" in request:
            request["limits"] = Limits(**request["limits"])
        _bound_memory(limit, request.get("path"))
        began = time.process_time()
        with cpu_time(seconds), hangup_ends(sys.stdin.fileno()):
            answer = json.dumps(_run(task, request) | {"cpu_used": time.process_time() - began})
        answers.write(answer.encode() + b"\n")
        answers.flush()


def _run(task: Callable[..., Answer], request: dict[str, Any]) -> Answer:
    where = request.get("source", "the document")
    try:
        return task(**request)
    except DocumentError as error:
        failure = error
    except MemoryError:
        failure = LimitExceeded(
            f"{where}: needs more memory than a document may take",
            "It may be damaged or made to exhaust memory.",
        )
    except RecursionError:
        failure = Unreadable(f"{where}: damaged; its parts contain each other")
    except OSError as error:
        failure = Unreadable(f"{where}: {error.strerror or error}")
    return {"error": type(failure).__name__, "message": failure.message, "hint": failure.hint}


def _bound_memory(limit: int, path: str | None) -> None:
    """Bounds this process' address space, beside the file that it may hold in memory."""
    if path is None:
        return
    try:
        import resource
    except ImportError:  # not a Unix; time and input sizes are bounded still
        return
    try:
        allowed = limit + 2 * os.path.getsize(path)
    except OSError:
        return  # gone or not permitted: opening it says so
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard != resource.RLIM_INFINITY:
        allowed = min(allowed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (allowed, hard))
    except (ValueError, OSError):  # macOS refuses; the bound is a second line of defence
        return


if __name__ == "__main__":
    serve(int(sys.argv[1]))
