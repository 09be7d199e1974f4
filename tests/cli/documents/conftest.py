"""What several tests of documents need."""

from pathlib import Path

import pytest

from infllm.cli.documents import Document, Limits
from infllm.cli.documents.pdf import read_pdf
from infllm.cli.documents.worker import Worker


@pytest.fixture(params=["pdfium", "pypdf"])
def read(request: pytest.FixtureRequest, tmp_path: Path):
    """Reads the bytes of a PDF, with either library."""

    def read(data: bytes, **options) -> Document:
        path = tmp_path / "x.pdf"
        path.write_bytes(data)
        limits = options.pop("limits", Limits())
        with Worker(limits) as child:
            return read_pdf(
                str(path), "x.pdf", limits=limits, worker=child, backend=request.param, **options
            )

    return read
