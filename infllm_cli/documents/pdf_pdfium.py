"""PDF by pypdfium2: fast, tolerant of broken structure, and it says where text stands."""

from __future__ import annotations

import ctypes
import unicodedata
from collections.abc import Iterator
from typing import Any

import pypdfium2
import pypdfium2.raw as pdfium
from pypdfium2.version import PYPDFIUM_INFO

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
from infllm.cli.documents.pdf_bidi import in_reading_order
from infllm.cli.documents.pdf_content import SecondReader
from infllm.cli.documents.pdf_form import notes
from infllm.cli.documents.pdf_form_pdfium import Annotations
from infllm.cli.documents.pdf_hidden import hidden_text
from infllm.cli.documents.pdf_layout import Word, reading_order

LABEL_BYTES = 256
APART = 1.8  # times its first letter's height: a word as tall stands on more lines than one
UPRIGHT = 0.1  # radians
BLANKS = (9, 10, 13, 32, 0xA0)
HYPHENS = (0xFFFE, 2)  # what pdfium writes for one at a line's end, newer and older


class PdfiumBackend:
    name = "pdfium"
    version = f"pdfium {PYPDFIUM_INFO.version}"

    def __init__(self, path: str, source: str, password: str | None):
        try:
            self.document = self._open(path, password)
        except pypdfium2.PdfiumError as error:
            if error.err_code == pdfium.FPDF_ERR_PASSWORD:
                raise encrypted(source, password) from error
            raise damaged(source, error) from error
        self.pages = len(self.document)
        self._second = SecondReader(path, source, password)
        self.document.init_forms()  # before any page is loaded; nothing where there is no form

    @staticmethod
    def _open(path: str, password: str | None) -> pypdfium2.PdfDocument:
        """A password is for the sources that need one: others of the same call open without."""
        try:
            return pypdfium2.PdfDocument(path, password=password)
        except pypdfium2.PdfiumError as error:
            if password is None or error.err_code != pdfium.FPDF_ERR_PASSWORD:
                raise
            try:
                return pypdfium2.PdfDocument(path)
            except pypdfium2.PdfiumError:
                raise error from None

    def structure(self) -> Structure:
        title = self.document.get_metadata_value("Title")
        xfa = pdfium.FPDF_GetFormType(self.document) == pdfium.FORMTYPE_XFA_FULL
        return Structure(self._labels(), self._outline(), title or None, [XFA] if xfa else [])

    def page(self, index: int) -> PageText:
        try:
            page = self.document[index]
            text_page = page.get_textpage()
        except pypdfium2.PdfiumError as error:
            raise Unreadable(f"page {index + 1} is damaged ({error})") from error
        try:
            characters = _Characters(page, text_page)
            lines = reading_order(map(in_reading_order, characters.lines()), characters.height)
            hidden = hidden_text(page, text_page)
            form = self.document.formenv
            annotations = Annotations(page, form.raw if form is not None else None)
            if annotations.hidden:
                hidden["in a hidden field or note"] = annotations.hidden
            found = PageText(
                [line.text for line in lines],
                [(round(line.top, 1), round(line.bottom, 1)) for line in lines],
                characters.height,
                notes(annotations.fields, annotations.comments),
                hidden,
                characters.unmapped / max(1, characters.words),
            )
            return self._second.checked(index, found)
        finally:
            text_page.close()
            page.close()

    def _labels(self) -> list[str] | None:
        buffer = ctypes.create_string_buffer(LABEL_BYTES)
        labels = []
        for index in range(self.pages):
            size = pdfium.FPDF_GetPageLabel(self.document, index, buffer, LABEL_BYTES)
            size = min(size, LABEL_BYTES)
            labels.append(buffer.raw[: max(0, size - 2)].decode("utf-16-le", errors="ignore"))
        return labels if any(labels) else None

    def _outline(self) -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        for bookmark in self.document.get_toc(max_depth=OUTLINE_DEPTH):
            destination = bookmark.get_dest()
            page = destination.get_index() if destination is not None else None
            if page is not None:
                found.append((bookmark.get_title(), page))
            if len(found) == OUTLINE_ENTRIES:
                break
        return found


class _Characters:
    """A page's text as lines of words with their boxes, as drawn."""

    def __init__(self, page: pypdfium2.PdfPage, text_page: pypdfium2.PdfTextPage):
        self.raw = text_page.raw
        self.left, self.bottom, self.right, self.top = page.get_bbox()
        self.rotation = page.get_rotation()
        self.height = page.get_height()
        self.words = 0
        self.unmapped = 0
        self._box = pdfium.FS_RECTF()
        self._reference = ctypes.byref(self._box)

    def lines(self) -> Iterator[list[Word]]:
        get = pdfium.FPDFText_GetUnicode
        line: list[Word] = []
        begin, text = 0, ""
        count = pdfium.FPDFText_CountChars(self.raw)
        for index in range(count + 1):
            code = get(self.raw, index) if index < count else 10
            if code in HYPHENS:
                text += "-"
            elif code > 0 and code not in BLANKS:  # control characters stand for unknown glyphs
                if not text:
                    begin = index
                text += chr(code)
                continue
            if text:
                for word in self._words(text, begin, index if code in HYPHENS else index - 1):
                    if line and self._is_below(word, line[-1], begin):
                        yield line
                        line = []
                    line.append(word)
                text = ""
            if (code in (10, 13) or code in HYPHENS) and line:
                yield line
                line = []

    def _words(self, text: str, first: int, last: int) -> Iterator[Word]:
        """One as a rule. pdfium takes short cells that stand below each other for one word."""
        self.words += 1
        self.unmapped += pdfium.FPDFText_HasUnicodeMapError(self.raw, first) == 1
        word = self._word(text, self._edges(first), self._edges(last))
        if last - first + 1 != len(text) or word.bottom - word.top < APART * self._tall(first):
            yield word
            return
        parts = [
            self._word(char, edges, edges)
            for char, edges in ((text[n], self._edges(first + n)) for n in range(len(text)))
        ]
        begin = 0
        for number in range(1, len(parts) + 1):
            if number == len(parts) or self._is_below(parts[number], parts[number - 1], first):
                yield Word(
                    text[begin:number],
                    min(part.left for part in parts[begin:number]),
                    max(part.right for part in parts[begin:number]),
                    min(part.top for part in parts[begin:number]),
                    max(part.bottom for part in parts[begin:number]),
                )
                begin = number

    def _is_below(self, word: Word, last: Word, index: int) -> bool:
        """Whether a word of text that runs from left to right stands on a line of its own."""
        if last.top < word.bottom and word.top < last.bottom:
            return False
        if unicodedata.east_asian_width(word.text[0]) in "WF":  # may be written downwards
            return False
        return abs(pdfium.FPDFText_GetCharAngle(self.raw, index)) < UPRIGHT

    def _tall(self, index: int) -> float:
        _, _, top, bottom = self._edges(index)
        return bottom - top

    @staticmethod
    def _word(
        text: str, a: tuple[float, float, float, float], b: tuple[float, float, float, float]
    ) -> Word:
        if any("\ud800" <= char <= "\udfff" for char in text):
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return Word(text, min(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), max(a[3], b[3]))

    def _edges(self, index: int) -> tuple[float, float, float, float]:
        """Left, right, top and bottom from the top left corner of the page as it is shown."""
        pdfium.FPDFText_GetLooseCharBox(self.raw, index, self._reference)
        box: Any = self._box
        if self.rotation == 90:
            return (
                box.bottom - self.bottom, box.top - self.bottom,
                box.left - self.left, box.right - self.left,
            )  # fmt: skip
        if self.rotation == 180:
            return (
                self.right - box.right, self.right - box.left,
                box.bottom - self.bottom, box.top - self.bottom,
            )  # fmt: skip
        if self.rotation == 270:
            return (
                self.top - box.top, self.top - box.bottom,
                self.right - box.right, self.right - box.left,
            )  # fmt: skip
        return (
            box.left - self.left, box.right - self.left,
            self.top - box.top, self.top - box.bottom,
        )  # fmt: skip
