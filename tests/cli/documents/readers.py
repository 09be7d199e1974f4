"""Fixtures that read the bytes of a document, for the tests of one format."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infllm.cli.documents import Document
from infllm.cli.documents.archive import Archive
from infllm.cli.documents.limits import Limits


def archive_reader(name: str, reader: Callable[[Archive], Document]) -> Any:
    """A fixture: `read(data)` gives the document of an archive called `name`."""

    @pytest.fixture
    def read(tmp_path: Path) -> Callable[[bytes], Document]:
        def read(data: bytes) -> Document:
            path = tmp_path / name
            path.write_bytes(data)
            with Archive(str(path), name, Limits()) as opened:
                return reader(opened)

        return read

    return read
