"""PDF by pypdf: pure Python, reads what pdfium refuses, about twenty times slower."""

from __future__ import annotations

import logging
import re
from typing import Any

import pypdf
from pypdf import PageObject
from pypdf.errors import DependencyError, FileNotDecryptedError, PyPdfError
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from infllm.cli.documents.errors import Unreadable
from infllm.cli.documents.pdf_backend import (
    OUTLINE_DEPTH,
    OUTLINE_ENTRIES,
    XFA,
    PageText,
    Structure,
    damaged,
    encrypted,
)
from infllm.cli.documents.pdf_form import notes
from infllm.cli.documents.pdf_form_pypdf import Annotations

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
TEXT_END = re.compile(rb"(?<=\bET)\s")
TEXT_OBJECTS = 2_000  # of a damaged page, each read by itself


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
                f"{source}: its encryption needs pypdfium2", "pip install pypdfium2"
            ) from error
        except BENT as error:
            raise damaged(source, error) from error

    def structure(self) -> Structure:
        return Structure(
            self._labels(), self._outline(), self._title(), [XFA] if self._is_xfa() else []
        )

    def page(self, index: int) -> PageText:
        page = self.reader.pages[index]
        damage = None
        try:
            text = page.extract_text()
        except BENT as error:
            text = _sound_parts(page)
            damage = "has damaged parts"
            if not text.strip():
                raise Unreadable(f"page {index + 1} is damaged ({error})") from error
        lines = text.split("\n")
        found, hidden = [], self._hidden(page, text)
        try:
            annotations = Annotations(page)
            found = notes(annotations.fields, annotations.comments)
            if annotations.hidden:
                hidden["in a hidden field or note"] = annotations.hidden
        except BENT:
            damage = damage or "has form values or comments that cannot be read"
        return PageText(lines, notes=found, hidden=hidden, damaged=damage)

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

    def _is_xfa(self) -> bool:
        try:
            root = self.reader.root_object
            form = root["/AcroForm"].get_object() if root.get("/NeedsRendering") else None
            return isinstance(form, DictionaryObject) and "/XFA" in form
        except BENT:
            return False

    def _title(self) -> str | None:
        try:
            metadata = self.reader.metadata
            return str(metadata.title) if metadata and metadata.title else None
        except BENT:
            return None


def _sound_parts(page: Any) -> str:
    """Text of a page whose content breaks off for pypdf: of each text object by itself."""
    try:
        contents = page.get_contents()
        data = contents.get_data() if contents is not None else b""
    except BENT:
        return ""
    texts = []
    for part in TEXT_END.split(data, maxsplit=TEXT_OBJECTS):
        content = DecodedStreamObject()
        content.set_data(part)
        alone = PageObject(page.pdf, page.indirect_reference)
        alone.update(page)
        alone[NameObject("/Contents")] = content
        try:
            texts.append(alone.extract_text())
        except BENT:
            continue  # this is the damaged part; the page is reported
    return "\n".join(text for text in texts if text.strip())
