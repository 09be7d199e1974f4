"""Opening a PDF with the first library that can."""

from __future__ import annotations

from collections.abc import Callable

from infllm.cli.documents.errors import Unreadable
from infllm.cli.documents.pdf_backend import PdfBackend


def open_pdf(path: str, source: str, password: str | None, backend: str | None) -> PdfBackend:
    """Opens with ``backend`` ("pdfium", "pypdf"), or with the first that can.

    Raises Encrypted or Unreadable.
    """
    failure: Unreadable | None = None
    for name in (backend,) if backend else ("pdfium", "pypdf"):
        try:
            return _backend(name)(path, source, password)
        except ModuleNotFoundError:
            continue
        except Unreadable as error:
            failure = failure or error
    raise failure or Unreadable(f"{source}: nothing to read PDF with", 'pip install "infllm[pdf]"')


def _backend(name: str) -> Callable[[str, str, str | None], PdfBackend]:
    """Imported when needed: each takes a fifth of a second."""
    if name == "pdfium":
        from infllm.cli.documents.pdf_pdfium import PdfiumBackend

        return PdfiumBackend
    from infllm.cli.documents.pdf_pypdf import PypdfBackend

    return PypdfBackend
