"""PDF by pypdf: pure Python, reads what pdfium refuses, about twenty times slower."""

from __future__ import annotations

import logging
import re
from typing import Any

import pypdf
from pypdf.errors import DependencyError, FileNotDecryptedError, PyPdfError

from infllm.cli.documents.errors import Unreadable
from infllm.cli.documents.pdf_backend import (
    OUTLINE_DEPTH,
    OUTLINE_ENTRIES,
    PageText,
    Structure,
    damaged,
    encrypted,
)

# What pypdf raises on bent files, beside its own errors.
BENT = (
    PyPdfError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
    NotImplementedError,
    ArithmeticError,
    OSError,
    RecursionError,
)
# Text rendering mode 3 draws nothing.
INVISIBLE = re.compile(rb"\b3\s+Tr\b")


class PypdfBackend:
    name = "pypdf"
    version = f"pypdf {pypdf.__version__}"

    def __init__(self, path: str, source: str, password: str | None):
        logging.getLogger("pypdf").setLevel(logging.CRITICAL)
        try:
            self.reader = pypdf.PdfReader(path, strict=False)
            # An owner password alone leaves the user password empty: such a file opens.
            if self.reader.is_encrypted and not (
                self.reader.decrypt("") or (password and self.reader.decrypt(password))
            ):
                raise encrypted(source, password)
            self.pages = len(self.reader.pages)
        except FileNotDecryptedError as error:
            raise encrypted(source, password) from error
        except DependencyError as error:
            raise Unreadable(
                f"{source}: its encryption needs pypdfium2", 'pip install "infllm[pdf]"'
            ) from error
        except BENT as error:
            raise damaged(source, error) from error

    def structure(self) -> Structure:
        return Structure(self._labels(), self._outline(), self._title())

    def page(self, index: int) -> PageText:
        page = self.reader.pages[index]
        try:
            text = page.extract_text()
        except BENT as error:
            raise Unreadable(f"page {index + 1} is damaged ({error})") from error
        return PageText(text, self._hidden(page, text))

    def _hidden(self, page: Any, text: str) -> dict[str, int]:
        """All of a page's text where it is set invisible without being the text of a scan."""
        try:
            contents = page.get_contents()
            data = contents.get_data() if contents is not None else b""
            if INVISIBLE.search(data) and not page.images:
                return {"drawn invisibly": len(text.strip())}
        except BENT:
            return {}  # the text was read; only the check for hidden text is not possible
        return {}

    def _labels(self) -> list[str] | None:
        try:
            if "/PageLabels" not in self.reader.root_object:
                return None
            return list(self.reader.page_labels)
        except BENT:
            return None

    def _outline(self) -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        try:
            stack: list[tuple[Any, int]] = [(self.reader.outline, 0)]
            while stack and len(found) < OUTLINE_ENTRIES:
                entry, depth = stack.pop()
                if isinstance(entry, list):
                    if depth < OUTLINE_DEPTH:
                        stack.extend((child, depth + 1) for child in reversed(entry))
                    continue
                page = self.reader.get_destination_page_number(entry)
                if page is not None and page >= 0:
                    found.append((str(entry.title), page))
        except BENT:
            return found
        return found

    def _title(self) -> str | None:
        try:
            metadata = self.reader.metadata
            return str(metadata.title) if metadata and metadata.title else None
        except BENT:
            return None
