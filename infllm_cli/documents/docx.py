"""Word documents (.docx): paragraphs, tables and headings of the main text."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from infllm.cli.documents.archive import Archive
from infllm.cli.documents.document import Document, SpanBuilder
from infllm.cli.documents.encoding import clean
from infllm.cli.documents.errors import NoText
from infllm.cli.documents.xmltree import local, parse_xml

BODY = "word/document.xml"
HEADING = re.compile(r"(?:heading|title|überschrift|titre|titolo|título)\s*\d*$", re.I)


def read_docx(archive: Archive) -> Document:
    """Raises Unreadable or NoText."""
    source = archive.source
    root = parse_xml(archive.read(BODY), source, BODY)
    out = SpanBuilder(source)
    chapter: str | None = None
    title: str | None = None
    for block in _blocks(root):
        text = _table(block) if local(block.tag) == "tbl" else _paragraph(block)
        if not text.strip():
            continue
        if HEADING.match(_style(block)):
            chapter = " ".join(text.split())
            title = title or chapter
        out.add(("\n\n" if out.length else "") + text, chapter=chapter)
    body, spans = out.finish()
    if not body:
        raise NoText(f"{source}: a Word document without text")
    return Document(source, "docx", body, spans, title=title, extractor="docx 1")


def _blocks(root: ElementTree.Element) -> list[ElementTree.Element]:
    """Paragraphs and tables in reading order, also those inside content controls."""
    found: list[ElementTree.Element] = []
    stack = [root]
    while stack:
        element = stack.pop()
        if local(element.tag) in ("p", "tbl"):
            found.append(element)
        else:
            stack.extend(reversed(element))
    return found


def _paragraph(paragraph: ElementTree.Element) -> str:
    pieces: list[str] = []
    stack = [paragraph]
    while stack:
        element = stack.pop()
        tag = local(element.tag)
        if tag == "t":
            pieces.append(element.text or "")
        elif tag == "tab":
            pieces.append("\t")
        elif tag in ("br", "cr"):
            pieces.append("\n")
        elif tag == "noBreakHyphen":
            pieces.append("-")
        elif tag not in ("del", "Fallback", "pPr"):  # deleted text; a second copy of a drawing
            stack.extend(reversed(element))
    return clean("".join(pieces)).rstrip()


def _table(table: ElementTree.Element) -> str:
    rows = []
    for row in table.iter():
        if local(row.tag) == "tr":
            cells = [cell for cell in row if local(cell.tag) == "tc"]
            rows.append(" | ".join(" ".join(_cell(cell).split()) for cell in cells))
    return "\n".join(rows)


def _cell(cell: ElementTree.Element) -> str:
    return " ".join(_paragraph(p) for p in cell.iter() if local(p.tag) == "p")


def _style(block: ElementTree.Element) -> str:
    for element in block:
        if local(element.tag) == "pPr":
            for prop in element:
                if local(prop.tag) == "pStyle":
                    return next((v for k, v in prop.attrib.items() if local(k) == "val"), "")
    return ""
