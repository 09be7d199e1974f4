"""Small documents, written by hand, for the tests."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence

from pypdf import PdfWriter
from pypdf.constants import PageLabelStyle
from pypdf.generic import (
    ArrayObject,
    DecodedStreamObject,
    DictionaryObject,
    NameObject,
    read_object,
)

CONTAINER = (
    '<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
    '<rootfiles><rootfile full-path="OPS/book.opf"/></rootfiles></container>'
)


def stream(text: str) -> bytes:
    """Page content that shows lines of text from the top down."""
    lines = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)").split("\n")
    shown = b"".join(b"(%s) Tj T*\n" % line.encode("cp1252") for line in lines)
    return b"BT /F1 11 Tf 13 TL 50 800 Td\n" + shown + b"ET\n"


def placed(texts: Sequence[tuple[float, float, str]], size: float = 10) -> bytes:
    """Page content of texts at (x, y) from the bottom left, drawn in the order given."""
    shown = []
    for x, y, text in texts:
        escaped = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
        shown.append(b"BT /F1 %g Tf %g %g Td (%s) Tj ET\n" % (size, x, y, escaped.encode("cp1252")))
    return b"".join(shown)


def pdf(
    pages: Sequence[str | bytes],
    *,
    preface: int = 0,
    outline: Sequence[tuple[str, int]] = (),
    password: str | None = None,
    owner: str | None = None,
    annotations: Mapping[int, Sequence[str]] | None = None,
    rotate: int = 0,
) -> bytes:
    """A PDF of pages given as text or as content streams. The first ``preface`` pages are labelled
    i, ii, ..., the others 1, 2, ... ``annotations``: dictionaries by page, as PDF writes them;
    widgets among them are fields of a form."""
    writer = PdfWriter()
    font = writer._add_object(
        DictionaryObject(
            {
                NameObject("/Type"): NameObject("/Font"),
                NameObject("/Subtype"): NameObject("/Type1"),
                NameObject("/BaseFont"): NameObject("/Helvetica"),
                NameObject("/Encoding"): NameObject("/WinAnsiEncoding"),
            }
        )
    )
    for content in pages:
        page = writer.add_blank_page(595, 842)
        data = DecodedStreamObject()
        data.set_data(content if isinstance(content, bytes) else stream(content))
        page[NameObject("/Contents")] = writer._add_object(data)
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})}
        )
        if rotate:
            page.rotate(rotate)
    fields = ArrayObject()
    for page_index, items in (annotations or {}).items():
        page = writer.pages[page_index]
        page[NameObject("/Annots")] = ArrayObject()
        for item in items:
            annotation = read_object(io.BytesIO(item.encode("latin-1")), writer)
            reference = writer._add_object(annotation)
            page["/Annots"].append(reference)
            if annotation["/Subtype"] == "/Widget":
                fields.append(reference)
    if fields:
        form = DictionaryObject({NameObject("/Fields"): fields})
        writer.root_object[NameObject("/AcroForm")] = form
    if preface:
        writer.set_page_label(0, preface - 1, style=PageLabelStyle.LOWERCASE_ROMAN)
        writer.set_page_label(preface, len(pages) - 1, style=PageLabelStyle.DECIMAL)
    for title, page_index in outline:
        writer.add_outline_item(title=title, page_number=page_index)
    if password is not None or owner is not None:
        writer.encrypt(password or "", owner_password=owner, algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def archive(members: Mapping[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return out.getvalue()


def page(body: str, head: str = "") -> str:
    return (
        f'<html xmlns="http://www.w3.org/1999/xhtml"><head>{head}</head><body>{body}</body></html>'
    )


def epub(pages: Mapping[str, str], extra: Mapping[str, str | bytes] | None = None) -> bytes:
    """An EPUB whose spine is ``pages`` in the order given, bodies by file name."""
    items = "".join(
        f'<item id="i{number}" href="{name}" media-type="application/xhtml+xml"/>'
        for number, name in enumerate(sorted(pages))
    )
    order = sorted(pages)
    spine = "".join(f'<itemref idref="i{order.index(name)}"/>' for name in pages)
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0">'
        '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>A Book</dc:title>'
        "</metadata>"
        f"<manifest>{items}</manifest><spine>{spine}</spine></package>"
    )
    return archive(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": CONTAINER,
            "OPS/book.opf": package,
            **{f"OPS/{name}": page(body) for name, body in pages.items()},
            **(extra or {}),
        }
    )


def docx(*paragraphs: tuple[str, str]) -> bytes:
    """A Word document of (style, text) paragraphs."""
    w = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    body = "".join(
        f'<w:p><w:pPr><w:pStyle w:val="{style}"/></w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>'
        for style, text in paragraphs
    )
    return archive(
        {
            "[Content_Types].xml": "<Types/>",
            "word/document.xml": f'<w:document xmlns:w="{w}"><w:body>{body}</w:body></w:document>',
        }
    )
