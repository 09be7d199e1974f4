"""All pages of a PDF, read by worker processes side by side."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from infllm.cli.documents.errors import DocumentError, LimitExceeded, Unreadable
from infllm.cli.documents.limits import Limits
from infllm.cli.documents.pdf_backend import PageText
from infllm.cli.documents.worker import Worker, WorkerDied, WorkerTimeout

Progress = Callable[[str, int, int], None]

# Pages that keep one more process busy for longer than it takes to start.
PAGES_PER_WORKER = {"pdfium": 100, "pypdf": 16}
REPAIR = "It may be damaged; repair it, e.g. with qpdf or mutool clean."


@dataclass
class Pages:
    """What the workers found, shared between the threads that wait for them."""

    pages: list[PageText]
    failed: dict[int, str] = field(default_factory=dict)  # page index -> why
    damaged: dict[int, str] = field(default_factory=dict)  # read in part: page index -> why
    stalled: int = 0
    done: int = 0
    next: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def read_pages(
    count: int,
    opening: dict[str, str | None],
    limits: Limits,
    first: Worker,
    on_progress: Progress | None,
) -> Pages:
    """``first`` has the PDF open; others join in where it pays. Raises LimitExceeded."""
    pages = Pages([PageText([])] * count)
    source = opening["source"] or ""
    per_worker = PAGES_PER_WORKER[opening["backend"] or "pypdf"]
    helpers = [
        Worker(limits) for _ in range(min(cores(), limits.workers, 1 + count // per_worker) - 1)
    ]
    workers = (first, *helpers)
    before = first.cpu_seconds

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
                if sum(one.cpu_seconds for one in workers) - before > limits.document_seconds:
                    pages.next = count
                    raise LimitExceeded(
                        f"{source}: {pages.done} of {count} pages took over "
                        f"{limits.document_seconds:g} s; given up",
                        f"Split it, e.g. with qpdf. {REPAIR}",
                    )

    try:
        with ThreadPoolExecutor(len(workers)) as pool:
            for future in [pool.submit(work, worker) for worker in workers]:
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
    index: int, worker: Worker, opening: dict[str, str | None], limits: Limits, pages: Pages
) -> None:
    try:
        answer = _ask(index, worker, opening, limits)
    except WorkerTimeout as error:
        with pages.lock:
            pages.failed[index] = f"took over {limits.page_seconds:g} s"
            pages.stalled += 1
            if pages.stalled >= limits.stalled_pages:
                pages.next = len(pages.pages)
                raise LimitExceeded(
                    f"{opening['source']}: {pages.stalled} pages took over "
                    f"{limits.page_seconds:g} s each; given up",
                    REPAIR,
                ) from error
        return
    except (WorkerDied, Unreadable) as error:
        why = "crashes the PDF reader" if isinstance(error, WorkerDied) else "is damaged"
        second = _second_opinion(index, worker, opening, limits)
        with pages.lock:
            if second is None:
                pages.failed[index] = why
                return
            pages.damaged[index] = why
        answer = second
    pages.pages[index] = PageText(**answer)
    if pages.pages[index].damaged:
        with pages.lock:
            pages.damaged[index] = pages.pages[index].damaged or ""


def _ask(index: int, worker: Worker, opening: dict[str, str | None], limits: Limits) -> dict:
    if not worker.running:
        worker.ask("pdf_open", limits.parse_seconds, **opening)
    return worker.ask("pdf_page", limits.page_seconds, page=index)


def _second_opinion(
    index: int, worker: Worker, opening: dict[str, str | None], limits: Limits
) -> dict | None:
    """The page by pypdf, which gives up later on some damage; None where it gives no text."""
    if opening["backend"] != "pdfium":
        return None
    worker.close()
    try:
        worker.ask("pdf_open", limits.parse_seconds, **opening | {"backend": "pypdf"})
        answer = worker.ask("pdf_page", limits.page_seconds, page=index)
    except (WorkerTimeout, WorkerDied, DocumentError):
        return None
    finally:
        worker.close()  # the next page is for pdfium again
    return answer if "".join(answer["lines"]).strip() else None


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
