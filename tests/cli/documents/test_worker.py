"""Worker processes: bounded in CPU time, gone with their parent; and pages that make them fail."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infllm.cli.documents import LimitExceeded, Limits, worker
from infllm.cli.documents.pdf import read_pdf
from infllm.cli.documents.worker import Worker, WorkerDied, WorkerTimeout
from tests.cli.documents.make import pdf

# The true worker, whose pages go wrong: by their number, in the ways that parsers do.
BAD_WORKER = """
import ctypes, os, re, sys, time
from infllm.cli.documents import worker_main

sound = worker_main.Parser.pdf_page

def page(self, page):
    if page == 10:
        while True:
            pass
    if page == 11:
        re.match("(a+)+$", "a" * 60 + "b")  # native code that lets no other thread run
    if page == 12:
        time.sleep(600)
    if page == 13:
        os._exit(11)
    if page >= 20:
        began = time.process_time()
        while time.process_time() - began < 0.3:
            pass
    return {"lines": [f"The text of {page}."]}

worker_main.Parser.pdf_page = page
worker_main.Parser.pdf_open = lambda self, **k: {
    "pages": int(sys.argv[1]), "backend": "pypdf", "extractor": "x"
}
worker_main.Parser.pdf_structure = lambda self: {"labels": None, "outline": [], "title": None}
worker_main.serve(int(sys.argv[-1]))
"""


@pytest.fixture
def bad_worker(monkeypatch: pytest.MonkeyPatch):
    def use(pages: int = 0) -> None:
        command = (sys.executable, "-P", "-c", BAD_WORKER, str(pages))
        monkeypatch.setattr(worker, "COMMAND", command)

    return use


@pytest.mark.parametrize("page", [10, 11])
def test_cpu_time_is_bounded(bad_worker, page: int) -> None:
    bad_worker()
    began = time.monotonic()
    with Worker(Limits(wall_factor=200)) as child, pytest.raises(WorkerTimeout):
        child.ask("pdf_page", 0.5, page=page)
    assert time.monotonic() - began < 90  # else it was the wall clock that ended it


def test_waiting_is_bounded_too(bad_worker) -> None:
    bad_worker()
    with Worker(Limits(wall_factor=4)) as child, pytest.raises(WorkerTimeout):
        child.ask("pdf_page", 0.5, page=12)


def test_a_stopped_worker_has_lost_no_cpu_time(bad_worker) -> None:
    """As on a machine that is busy with other work: wall time passes, and the page is sound."""
    bad_worker()
    with Worker(Limits()) as child:
        child.ask("pdf_page", 5, page=1)
        process = child._process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        resume = subprocess.Popen(["sh", "-c", f"sleep 1.5; kill -CONT {process.pid}"])
        answer = child.ask("pdf_page", 0.5, page=1)
        resume.wait()
    assert answer["lines"] == ["The text of 1."]


def test_a_crash_is_no_timeout(bad_worker) -> None:
    bad_worker()
    with Worker(Limits()) as child, pytest.raises(WorkerDied):
        child.ask("pdf_page", 5, page=13)


def test_a_worker_is_started_again(bad_worker) -> None:
    bad_worker()
    with Worker(Limits()) as child:
        with pytest.raises(WorkerDied):
            child.ask("pdf_page", 5, page=13)
        assert child.ask("pdf_page", 5, page=1)["lines"] == ["The text of 1."]


def test_the_cpu_time_of_all_requests_is_counted(bad_worker) -> None:
    bad_worker()
    with Worker(Limits()) as child:
        for page in (20, 21):
            child.ask("pdf_page", 5, page=page)
        assert 0.6 <= child.cpu_seconds < 2


PARENT = """
import sys
from infllm.cli.documents import worker
from infllm.cli.documents.limits import Limits

worker.COMMAND = (sys.executable, "-P", "-c", sys.argv[1], "0")
child = worker.Worker(Limits())
child.ask("pdf_page", 5, page=1)
print(child._process.pid, flush=True)
child.ask("pdf_page", 600, page=int(sys.argv[2]))
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at processes by /proc")
@pytest.mark.parametrize("page", [10, 11, 12])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_ends_with_its_parent(page: int, how: signal.Signals) -> None:
    command = [sys.executable, "-c", PARENT, BAD_WORKER, str(page)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(0.5)  # until the request has arrived
        assert _runs(child)
        parent.send_signal(how)
        parent.wait()
    deadline = time.monotonic() + 20
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    alive = _runs(child)
    if alive:
        os.kill(child, signal.SIGKILL)
    assert not alive


def _runs(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def read(pages: int, limits: Limits):
    with Worker(limits) as child:
        return read_pdf("/x", "x.pdf", limits=limits, worker=child)


def test_pages_that_hang_or_crash_are_reported(bad_worker) -> None:
    bad_worker(14)
    document = read(14, Limits(page_seconds=0.5, wall_factor=4))
    kept = [*range(10)]
    assert document.text == "\n\n".join(f"The text of {n}." for n in kept)
    assert document.warnings == [
        "left out, for it took over 0.5 s: pages 11, 12, 13",
        "left out, for it crashes the PDF reader: page 14",
    ]


def test_a_document_that_hangs_too_often_is_given_up(bad_worker) -> None:
    bad_worker(14)
    with pytest.raises(LimitExceeded, match=r"2 pages took over 0\.5 s each"):
        read(14, Limits(page_seconds=0.5, stalled_pages=2))


def test_a_document_as_a_whole_is_bounded(bad_worker) -> None:
    bad_worker(60)
    limits = Limits(page_seconds=0.2, stalled_pages=1000, document_seconds=0.9)
    with pytest.raises(LimitExceeded, match=r"of 60 pages took over 0\.9 s; given up"):
        read(60, limits)


@pytest.mark.skipif(sys.platform == "win32", reason="a page that crashes is made by a signal")
def test_a_page_that_crashes_pdfium_is_read_by_pypdf(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    crash = """
import os, sys
from infllm.cli.documents import pdf_pdfium, worker_main

sound = pdf_pdfium.PdfiumBackend.page
pdf_pdfium.PdfiumBackend.page = lambda self, i: os._exit(11) if i == 1 else sound(self, i)
worker_main.serve(int(sys.argv[1]))
"""
    monkeypatch.setattr(worker, "COMMAND", (sys.executable, "-P", "-c", crash))
    path = tmp_path / "x.pdf"
    path.write_bytes(pdf(["the first page", "the second page", "the third page"]))
    with Worker(Limits()) as child:
        document = read_pdf(str(path), "x.pdf", limits=Limits(), worker=child)
    assert document.text == "the first page\nthe second page\nthe third page"
    assert document.warnings == ["read in part, for it crashes the PDF reader: page 2"]
