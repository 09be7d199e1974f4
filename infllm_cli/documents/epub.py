"""EPUB: the pages of the spine in reading order, chapters by table of contents and headings."""

from __future__ import annotations

import re

from infllm.cli.documents.archive import Folder, Members
from infllm.cli.documents.document import Document, SpanBuilder
from infllm.cli.documents.epub_chapters import ChapterBuilder, mark_places
from infllm.cli.documents.epub_contents import read_contents
from infllm.cli.documents.epub_package import Book, Item, is_book
from infllm.cli.documents.errors import COPY_AGAIN, NoText, Unreadable, UnsupportedFormat
from infllm.cli.documents.html import decode_html, extract_html
from infllm.cli.documents.tally import Tally
from infllm.cli.documents.xmltree import local, parse_damaged_xml

__all__ = ["is_book", "read_epub"]

ENCRYPTION = "META-INF/encryption.xml"
FAIRPLAY = "META-INF/sinf.xml"
# Obfuscated fonts; the text of such a book is plain.
FONT_OBFUSCATION = frozenset(
    {"http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC"}
)
IMAGE = re.compile(r"""<(?:\w+:)?(?:img|image)\b((?:[^<>"']|"[^"<]*"|'[^'<]*')*)>""", re.I)
ALT = re.compile(r"""(?<![\w:.-])(?:alt|aria-label)\s{0,8}=\s{0,8}["']\s*[^\s"']""", re.I)


def read_epub(archive: Members) -> Document:
    """Raises Unreadable, UnsupportedFormat (DRM), LimitExceeded or NoText.

    A page that is damaged or missing is left out with a warning while others can be read.
    """
    source = archive.source
    book = Book(archive)
    pages = book.reading_order()
    if not pages:
        raise Unreadable(f"{source}: {book.why_empty()}", COPY_AGAIN)
    _refuse_drm(book, {page.member for page in pages if page.member is not None})
    reading = _Reading(book)
    with_text = {page.name for page in pages if reading.add(page)}
    book.tell_order(with_text)
    body, spans = reading.out.finish()
    if not body.strip():
        if reading.failure is not None:
            raise reading.failure
        raise NoText(
            f"{source}: no text on {len(pages)} pages; it looks like a book of pictures",
            "Convert it to PDF and run OCR, e.g. ocrmypdf.",
        )
    if reading.hidden:
        book.warnings.append(f"{reading.hidden} characters are hidden from readers; left out")
    for rendition in book.other_renditions:
        reading.tally.add("other rendition of the book", rendition)
    if isinstance(archive, Folder):
        for name in book.strangers():
            reading.tally.add("file beside the book's own", name)
    return Document(
        source,
        "epub",
        body,
        spans,
        title=book.title(),
        warnings=book.warnings,
        extractor="epub 2",
        left_out=reading.tally.left_out(),
    )


class _Reading:
    """Text of a book page by page."""

    def __init__(self, book: Book):
        self.book = book
        self.source = book.archive.source
        self.labels = read_contents(book)
        self.out = SpanBuilder(self.source)
        self.tally = Tally()
        self.failure: Unreadable | UnsupportedFormat | None = None
        self.hidden = 0
        self.chapter: str | None = None

    def add(self, page: Item) -> bool:
        """Whether there was text on the page."""
        text = self._text(page)
        if text is None:
            return False
        for image in IMAGE.finditer(text):
            if not ALT.search(image[1]):
                self.tally.add("image without text")
        labels = dict(self.labels.get(page.member or "", {}))
        text, found = mark_places(text, labels)
        # A label whose place is gone belongs to the page.
        there = set(found)
        label = labels.get("") or next((one for one in labels.values() if one not in there), None)
        if self.out.length:
            self.out.add("\n\n", chapter=self.chapter)
        before = self.out.length
        inner = ChapterBuilder(self.out, found, self.chapter, label)
        facts = extract_html(text, inner, xml=True, lines=False, chapter=inner.chapter)
        self.hidden += facts.hidden
        self.chapter = inner.chapter
        return self.out.length > before

    def _text(self, page: Item) -> str | None:
        try:
            if page.member is None:
                raise Unreadable(
                    f"{self.source}: {page.name} is missing from the archive", COPY_AGAIN
                )
            data = self.book.archive.read(page.member)
        except Unreadable as error:
            self._lose(error)
            return None
        try:
            text, warning = decode_html(data, f"{self.source}, {page.name}")
        except UnsupportedFormat as error:
            self._lose(error)
            return None
        if warning:
            self.book.warnings.append(f"{page.name}: {warning}")
        return text

    def _lose(self, error: Unreadable | UnsupportedFormat) -> None:
        self.failure = self.failure or error
        reason = error.message.removeprefix(self.source).lstrip(":, ")
        self.book.warnings.append(f"{reason}; left out")


def _refuse_drm(book: Book, pages: set[str]) -> None:
    archive = book.archive
    protected: set[str | None] = set()
    encryption = archive.find(ENCRYPTION)
    if encryption is not None:
        try:
            root, fault = parse_damaged_xml(archive.read(encryption), archive.source, encryption)
        except Unreadable as error:
            root, fault = None, error.message.removeprefix(f"{archive.source}: ")
        if fault is not None:
            book.warnings.append(f"what is encrypted is not known: {fault}")
        for entry in root.iter() if root is not None else ():
            if local(entry.tag) != "EncryptedData":
                continue
            method = next((e for e in entry.iter() if local(e.tag) == "EncryptionMethod"), None)
            if method is not None and method.get("Algorithm") in FONT_OBFUSCATION:
                continue
            references = (e for e in entry.iter() if local(e.tag) == "CipherReference")
            protected |= {book.resolve("", one.get("URI", ""))[1] for one in references}
    elif archive.find(FAIRPLAY) is not None:
        protected |= pages
    if pages & protected:
        raise UnsupportedFormat(
            f"{archive.source}: encrypted by DRM; its text cannot be read",
            "Give a copy without copy protection.",
        )
