"""Whether a page's content is well formed, and its text by pypdf where pdfium may have lost some.

pdfium says nothing about damage. It reads on behind most; an open string, array or inline image
takes the rest of the page with it.
"""

from __future__ import annotations

import re

from infllm.cli.documents.errors import DocumentError
from infllm.cli.documents.pdf_backend import PageText
from infllm.cli.documents.pdf_pypdf import BENT, PypdfBackend

DAMAGED = "has damaged parts"
COMPARED_BYTES = 1_000_000  # of content; pypdf takes seconds for more
IMAGES = 50  # inline, likewise

STRING_DEPTH = 8  # brackets inside a string's brackets
INLINE_IMAGE = re.compile(rb"(?<![^\s])BI\s[^()]{0,500}?\sID\s")


def _well_formed() -> re.Pattern[bytes]:
    string = rb"\((?:[^()\\]++|\\.)*+\)"
    for _ in range(STRING_DEPTH):
        string = rb"\((?:[^()\\]++|\\.|" + string + rb")*+\)"
    piece = rb"[^()<>\[\]%]++|" + string + rb"|<[0-9A-Fa-f\s]*+>|<<|>>|%[^\r\n]*+"
    inner = rb"\[(?:" + piece + rb")*+\]"
    array = rb"\[(?:" + piece + rb"|" + inner + rb")*+\]"
    return re.compile(rb"(?:" + piece + rb"|" + array + rb")*+", re.S)


# Possessive throughout: it looks at each byte a bounded number of times.
WELL_FORMED = _well_formed()


class SecondReader:
    """pypdf beside pdfium, for pages that look damaged."""

    def __init__(self, path: str, source: str, password: str | None):
        self._reader: PypdfBackend | None
        try:
            self._reader = PypdfBackend(path, source, password)
        except DocumentError:
            self._reader = None  # a file that pdfium alone can open: there is no second opinion

    def checked(self, index: int, page: PageText) -> PageText:
        """The page as pdfium read it, or as pypdf did where that is more; said to be damaged."""
        content = self._content(index)
        images = INLINE_IMAGE.findall(content[:COMPARED_BYTES])
        sound = bool(images) or WELL_FORMED.fullmatch(content) is not None
        if sound and not images:
            return page
        other = self._other(index, content, len(images))
        if other is not None and _letters(other) > _letters(page):
            lines = [line for line in other.lines if line.strip()]
            return PageText(lines, None, 0.0, page.notes, page.hidden, page.unmapped, DAMAGED)
        if sound:
            return page
        return PageText(
            page.lines, page.edges, page.height, page.notes, page.hidden, page.unmapped, DAMAGED
        )

    def _content(self, index: int) -> bytes:
        if self._reader is None:
            return b""
        try:
            contents = self._reader.reader.pages[index].get_contents()
            return contents.get_data() if contents is not None else b""
        except BENT:
            return b"("  # pypdf cannot decode it: not well formed

    def _other(self, index: int, content: bytes, images: int) -> PageText | None:
        if self._reader is None or len(content) > COMPARED_BYTES or images > IMAGES:
            return None
        try:
            return self._reader.page(index)
        except (DocumentError, *BENT):
            return None


def _letters(page: PageText) -> int:
    return sum(char.isalnum() for line in page.lines for char in line)
