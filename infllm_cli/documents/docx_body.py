"""Blocks of a Word document in reading order: paragraphs, lists, tables, text boxes, notes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from infllm.cli.documents.docx_graphics import graphic_text
from infllm.cli.documents.docx_imports import imported_text
from infllm.cli.documents.docx_inline import NO_TEXT, Inline, Paragraph, chosen
from infllm.cli.documents.docx_notes import Notes
from infllm.cli.documents.docx_numbering import Numbering
from infllm.cli.documents.docx_package import Package
from infllm.cli.documents.docx_styles import (
    BODY_LEVEL,
    Styles,
    attribute,
    child,
    is_on,
    outline_level,
    value,
)
from infllm.cli.documents.encoding import clean
from infllm.cli.documents.tally import Tally
from infllm.cli.documents.xmltree import local

CELL = " | "


@dataclass(frozen=True)
class Block:
    """A paragraph or table as text. ``section`` is set where a section ends with it."""

    text: str
    heading: bool = False
    title: bool = False
    note: bool = False
    section: Element | None = None


@dataclass
class Context:
    """What all stories of a document share."""

    package: Package
    styles: Styles
    numbering: Numbering
    notes: Notes
    tally: Tally


class Story:
    """Reads one part: the body, a header, or one note of the notes' part."""

    def __init__(self, context: Context, root: Element, part: str, *, running: bool = False):
        self.context = context
        self.part = part
        self.inline = Inline(
            root, context.styles, context.notes, context.tally, self._graphic, running
        )
        self.carried = Paragraph()  # of a paragraph whose end was deleted: it runs into the next

    def blocks(self, container: Iterable[Element]) -> Iterator[Block]:
        yield from self._walk(container)
        yield from self._end_carried()

    def _end_carried(self) -> Iterator[Block]:
        """A paragraph that was to run into a next one, where none follows."""
        paragraph, self.carried = self.carried, Paragraph()
        yield from self._finished(paragraph, "", None)

    def _walk(self, container: Iterable[Element]) -> Iterator[Block]:
        for element in container:
            tag = local(element.tag)
            if tag == "p":
                yield from self._paragraph(element)
            elif tag == "tbl":
                yield from self._end_carried()
                yield from self._table(element)
            elif tag == "AlternateContent":
                for one in chosen(element):
                    yield from self._walk([one])
            elif tag == "altChunk":
                relation = attribute(element, "id") or ""
                yield Block(imported_text(self.context.package, self.part, relation))
            elif tag == "sectPr":
                yield Block("", section=element)
            elif tag in ("r", "hyperlink", "oMath", "oMathPara"):  # damaged, or an equation
                paragraph = Paragraph()
                self.inline.read([element], None, paragraph)
                yield from self._finished(paragraph, "", None)
            elif tag in ("del", "moveFrom"):
                self.inline.removed += 1
                yield from self._walk(element)
                self.inline.removed -= 1
            elif tag not in NO_TEXT:
                yield from self._walk(element)

    def text(self, container: Iterable[Element]) -> str:
        """All blocks as lines."""
        return "\n".join(block.text for block in self.blocks(container) if block.text.strip())

    def _paragraph(self, element: Element) -> Iterator[Block]:
        properties = child(element, "pPr")
        given = value(child(properties, "pStyle"))
        styles = self.context.styles
        style_id = given if given is not None else styles.default
        paragraph, self.carried = self.carried, Paragraph()
        self.inline.read(element, style_id, paragraph)
        mark = child(properties, "rPr")
        section = child(properties, "sectPr")
        joined = child(mark, "del") is not None or child(mark, "moveFrom") is not None
        if joined and section is None:
            self.carried = paragraph
            return
        hidden = is_on(child(mark, "vanish")) and not paragraph.text.strip()
        label = "" if hidden else self.context.numbering.label(properties, style_id)
        yield from self._finished(paragraph, label, properties, style_id, section)

    def _finished(
        self,
        paragraph: Paragraph,
        label: str,
        properties: Element | None,
        style_id: str | None = None,
        section: Element | None = None,
    ) -> Iterator[Block]:
        text = clean(paragraph.text).rstrip()
        if text.strip():
            level = outline_level(properties)
            if level is not None:
                heading = level < BODY_LEVEL
            else:
                heading = self.context.styles.is_heading(style_id)
            title = self.context.styles.is_title(style_id)
            yield Block(f"{label} {text.lstrip()}" if label else text, heading, title)
        for box in paragraph.boxes:
            yield from self.blocks(box)
        for note in paragraph.notes:
            yield Block(clean(note), note=True)
        if section is not None:
            yield Block("", section=section)

    def _table(self, table: Element) -> Iterator[Block]:
        rows = [list(_parts(row, "tc")) for row in self._rows(table)]
        if all(len(cells) <= 1 for cells in rows):  # a frame around text, not a table
            for cells in rows:
                for cell in cells:
                    yield from self.blocks(cell)
            return
        notes: list[str] = []
        lines = [self._row(cells, notes) for cells in rows]
        yield Block("\n".join(line for line in lines if line.strip(" |")))
        for note in notes:
            yield Block(note, note=True)

    def _rows(self, table: Element) -> Iterator[Element]:
        for row in _parts(table, "tr"):
            properties = child(row, "trPr")
            if child(properties, "del") is not None:
                self._drop(row, "deleted text (tracked change)")
            elif is_on(child(properties, "hidden")):
                self._drop(row, "hidden text")
            else:
                yield row

    def _drop(self, row: Element, what: str) -> None:
        text = " ".join(t.text or "" for t in row.iter() if local(t.tag) in ("t", "delText"))
        if text.strip():
            self.context.tally.add(what, text)

    def _row(self, cells: list[Element], notes: list[str]) -> str:
        texts: list[str] = []
        for cell in cells:
            texts.append(" ".join(self._cell(cell, notes).split()))
            span = value(child(child(cell, "tcPr"), "gridSpan")) or "1"
            # So that what stands below stands in the same column.
            texts += [""] * (min(int(span), 64) - 1 if span.isdecimal() else 0)
        return CELL.join(texts).rstrip()

    def _cell(self, cell: Element, notes: list[str]) -> str:
        pieces: list[str] = []
        for element in _unwrapped(cell):
            if local(element.tag) == "tbl":
                rows = [list(_parts(row, "tc")) for row in self._rows(element)]
                inner = [self._row(cells, notes) for cells in rows]
                pieces.append(f"[{'; '.join(row for row in inner if row.strip(' |'))}]")
                continue
            for block in self.blocks([element]):
                (notes if block.note else pieces).append(block.text)
        return " ".join(piece for piece in pieces if piece not in ("", "[]"))

    def _graphic(self, relation: str) -> str:
        name = self.context.package.target(self.part, relation)
        root = self.context.package.part(name) if name is not None else None
        return graphic_text(root) if root is not None else ""


def _parts(element: Iterable[Element], tag: str) -> Iterator[Element]:
    """Rows of a table or cells of a row, also those inside content controls and changes."""
    for one in element:
        name = local(one.tag)
        if name == tag:
            yield one
        elif name == "AlternateContent":
            for choice in chosen(one):
                yield from _parts([choice], tag)
        elif name not in NO_TEXT and name not in ("p", "tbl", "tc", "tr"):
            yield from _parts(one, tag)


def _unwrapped(cell: Element) -> Iterator[Element]:
    """Blocks of a cell, also those inside content controls."""
    for one in cell:
        name = local(one.tag)
        if name in ("sdt", "sdtContent", "customXml", "ins", "moveTo"):
            yield from _unwrapped(one)
        elif name not in NO_TEXT:
            yield one
