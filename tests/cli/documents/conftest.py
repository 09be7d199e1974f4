"""What several tests of documents need."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from infllm.cli.documents import Document, Limits
from infllm.cli.documents.pdf import read_pdf
from infllm.cli.documents.worker import Worker


@pytest.fixture(scope="session")
def parser() -> Iterator[Worker]:
    """One process for all, as for the files of a folder."""
    with Worker(Limits()) as child:
        yield child


@pytest.fixture(params=["pdfium", "pypdf"])
def read(request: pytest.FixtureRequest, tmp_path: Path, parser: Worker):
    """Reads the bytes of a PDF, with either library."""

    def read(data: bytes, **options) -> Document:
        path = tmp_path / "x.pdf"
        path.write_bytes(data)
        limits = options.pop("limits", parser.limits)
        with nullcontext(parser) if limits is parser.limits else Worker(limits) as child:
            return read_pdf(
                str(path), "x.pdf", limits=limits, worker=child, backend=request.param, **options
            )

    return read
