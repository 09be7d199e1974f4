"""What a Word paragraph shows: its runs, fields, symbols, notes' marks and drawings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from infllm.cli.documents.docx_math import linear
from infllm.cli.documents.docx_notes import Notes
from infllm.cli.documents.docx_styles import Styles, attribute, child, is_on, value
from infllm.cli.documents.docx_symbols import FONTS, symbol
from infllm.cli.documents.tally import Tally
from infllm.cli.documents.words import words
from infllm.cli.documents.xmltree import local

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
PICTURES = frozenset({"pic", "imagedata"})
# Properties, marks of positions and of editing: nothing of them is shown.
NO_TEXT = words(
    """pPr rPr sdtPr sdtEndPr tblPr tblGrid trPr tcPr sectPr instrText delInstrText annotationRef
    footnoteRef endnoteRef separator continuationSeparator lastRenderedPageBreak proofErr
    bookmarkStart bookmarkEnd commentRangeStart commentRangeEnd fldData ffData rubyPr"""
)
BREAKS = {"tab": "\t", "ptab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-", "softHyphen": ""}
# Programs put a picture's file there where its author wrote nothing.
FILE_NAME = re.compile(r"^\S+\.(?:png|jpe?g|gif|bmp|tiff?|emf|wmf|svg|webp)\s*$", re.I)
PAGE_NUMBER = re.compile(r"\s*(?:PAGE|NUMPAGES|SECTIONPAGES)\b", re.I)

SUPERSCRIPTS = str.maketrans("0123456789+-−=()n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿ")
SUBSCRIPTS = str.maketrans("0123456789+-−=()", "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎")
ORDINAL = re.compile(r"(?:st|nd|rd|th|er|re|e|ème|o|a|os|as|º|ª|TM|SM|®|™|©)$", re.I)


@dataclass
class Paragraph:
    """Text of a paragraph so far, and what belongs behind it: text boxes and notes."""

    pieces: list[str] = field(default_factory=list)
    boxes: list[Element] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass
class _Field:
    code: bool = True  # reading the instruction, not yet the result
    instruction: str = ""


@dataclass(frozen=True)
class _Look:
    """How a run is to be shown."""

    hidden: bool = False
    raised: str | None = None
    struck: bool = False
    font: str = ""


class Inline:
    """Reads paragraphs of one story (the body, a note, a header) in order.

    ``related(relation id)`` gives the text of a chart or diagram. ``running``: page numbers are
    left out, as in headers and footers.
    """

    def __init__(
        self,
        root: Element,
        styles: Styles,
        notes: Notes,
        tally: Tally,
        related: Callable[[str], str],
        running: bool = False,
    ):
        self.styles = styles
        self.notes = notes
        self.tally = tally
        self.related = related
        self.running = running
        self.removed = 0  # inside how many deletions the reader is
        self.moved = 0
        self.moved_from: list[str] = []  # texts at the places that they were moved from
        self.fields: list[_Field] = []
        self.field_marks = _matched_fields(root)

    def read(self, element: Iterable[Element], style_id: str | None, into: Paragraph) -> None:
        """Append what a paragraph shows."""
        for one in element:
            self._one(one, style_id, into)

    def _one(self, element: Element, style_id: str | None, into: Paragraph) -> None:
        tag = local(element.tag)
        if tag == "r":
            self._run(element, style_id, into)
        elif tag in ("del", "moveFrom"):
            self.removed += 1
            self.moved += tag == "moveFrom"
            self.read(element, style_id, into)
            self.moved -= tag == "moveFrom"
            self.removed -= 1
        elif tag in ("oMath", "oMathPara"):
            equations = (
                [element] if tag == "oMath" else [e for e in element if local(e.tag) == "oMath"]
            )
            self._put("\n".join(linear(one) for one in equations), _Look(), into)
        elif tag == "fldSimple":
            number = PAGE_NUMBER.match(attribute(element, "instr") or "")
            if not (self.running and number):
                self.read(element, style_id, into)
        elif tag == "AlternateContent":
            for one in chosen(element):
                self._one(one, style_id, into)
        elif tag == "ruby":
            self._ruby(element, style_id, into)
        elif tag in ("drawing", "pict", "object"):
            self._drawing(element, into)
        elif tag == "subDoc":
            self.tally.add("document included by a link", attribute(element, "id") or "")
        elif tag not in NO_TEXT:
            self.read(element, style_id, into)

    def _run(self, run: Element, style_id: str | None, into: Paragraph) -> None:
        look = self._look(run, style_id)
        for element in run:
            self._piece(element, look, style_id, into)

    def _piece(self, element: Element, look: _Look, style_id: str | None, into: Paragraph) -> None:
        tag = local(element.tag)
        if tag in ("t", "delText"):
            text = (element.text or "").replace("\N{SOFT HYPHEN}", "")
            known = look.font.lower() in FONTS
            self._put(symbol(text, look.font, UNKNOWN) if known else text, look, into)
        elif tag in BREAKS:
            self._put(BREAKS[tag], look, into)
        elif tag == "sym":
            self._symbol(element, look, into)
        elif tag == "instrText" and self.fields:
            self.fields[-1].instruction += element.text or ""
        elif tag == "fldChar":
            self._field_mark(element, look, into)
        elif tag in ("footnoteReference", "endnoteReference"):
            self._reference(element, tag, look, into)
        elif tag == "AlternateContent":
            for one in chosen(element):
                self._piece(one, look, style_id, into)
        else:
            self._one(element, style_id, into)

    def _look(self, run: Element, style_id: str | None) -> _Look:
        properties = child(run, "rPr")
        if properties is None:
            return _Look(bool(is_on(self.styles.run_property(style_id, "vanish"))))
        direct = {local(one.tag): one for one in properties}
        character = value(direct.get("rStyle"))

        def found(tag: str) -> Element | None:
            return direct[tag] if tag in direct else self.styles.run_property(character, tag)

        hidden = is_on(direct.get("vanish"))
        if hidden is None:  # styles toggle what the styles below them say
            hidden = bool(is_on(self.styles.run_property(character, "vanish"))) != bool(
                is_on(self.styles.run_property(style_id, "vanish"))
            )
        fonts = direct.get("rFonts")
        font = (attribute(fonts, "ascii") or "") if fonts is not None else ""
        struck = is_on(found("strike")) or is_on(found("dstrike"))
        return _Look(hidden, value(found("vertAlign")), bool(struck), font)

    def _put(self, text: str, look: _Look, into: Paragraph) -> None:
        if not text or any(one.code for one in self.fields):
            return
        if self.running and any(PAGE_NUMBER.match(one.instruction) for one in self.fields):
            return
        if self.moved:
            self.moved_from.append(text)
        elif self.removed:
            self.tally.add("deleted text (tracked change)", text)
        elif look.hidden:
            if text.strip():
                self.tally.add("hidden text", text)
        elif look.raised in ("superscript", "subscript") and text.strip():
            into.pieces.append(_raised(text, look.raised, "".join(into.pieces[-1:])[-1:]))
        elif look.struck and text.strip():
            if into.pieces and into.pieces[-1].endswith("~~") and len(into.pieces[-1]) > 2:
                into.pieces[-1] = f"{into.pieces[-1][:-2]}{text}~~"
            else:
                into.pieces.append(f"~~{text}~~")
        else:
            into.pieces.append(text)

    def _symbol(self, element: Element, look: _Look, into: Paragraph) -> None:
        try:
            character = chr(int(attribute(element, "char") or "", 16))
        except (ValueError, OverflowError):
            character = UNKNOWN
        meant = symbol(character, attribute(element, "font") or "", UNKNOWN)
        if UNKNOWN in meant:
            self.tally.add("symbol without a Unicode form", attribute(element, "font") or "")
        self._put(meant, look, into)

    def _field_mark(self, element: Element, look: _Look, into: Paragraph) -> None:
        if id(element) not in self.field_marks:
            return
        kind = attribute(element, "fldCharType")
        if kind == "begin":
            self._put(_form_value(element), look, into)
            self.fields.append(_Field())
        elif kind == "separate" and self.fields:
            self.fields[-1].code = False
        elif kind == "end" and self.fields:
            self.fields.pop()

    def _reference(self, element: Element, tag: str, look: _Look, into: Paragraph) -> None:
        note_id = attribute(element, "id") or ""
        if self.removed or look.hidden:
            return
        own = attribute(element, "customMarkFollows") is not None
        mark, body = self.notes.refer(tag.removesuffix("Reference"), note_id, custom=own)
        self._put(mark, _Look(), into)
        if body:
            into.notes.append(f"{mark} {body}")

    def _ruby(self, element: Element, style_id: str | None, into: Paragraph) -> None:
        base, reading = Paragraph(), Paragraph()
        for part, found in (("rubyBase", base), ("rt", reading)):
            inside = child(element, part)
            if inside is not None:
                self.read(inside, style_id, found)
        if base.text.strip():
            spoken = f"({reading.text})" if reading.text.strip() else ""
            self._put(base.text + spoken, _Look(), into)
        into.boxes += base.boxes
        into.notes += base.notes

    def _drawing(self, drawing: Element, into: Paragraph) -> None:
        """Alternative text where the drawing stands; its text boxes behind the paragraph."""
        alternatives: list[str] = []
        pictures = boxes = 0
        for element in shown(drawing):
            tag = local(element.tag)
            if tag == "txbxContent":
                if not self.removed:
                    into.boxes.append(element)
                boxes += 1
            elif tag == "docPr" or tag in ("shape", "cNvPr"):
                text = attribute(element, "descr") or attribute(element, "alt") or ""
                if text.strip() and text not in alternatives and not FILE_NAME.search(text):
                    alternatives.append(text)
            elif tag == "textpath":
                self._put(attribute(element, "string") or "", _Look(), into)
            elif tag in ("chart", "relIds"):
                relation = attribute(element, "dm" if tag == "relIds" else "id") or ""
                text = self.related(relation)
                self._put(f"[{text}]" if text else "", _Look(), into)
                if not text:
                    self.tally.add("chart or diagram without text")
            elif tag == "OLEObject":
                self.tally.add("embedded object", attribute(element, "ProgID") or "")
            pictures += tag in PICTURES
        for text in alternatives:
            self._put(f"[image: {' '.join(text.split())}]", _Look(), into)
        if pictures and not alternatives and not self.removed:
            self.tally.add("image without text", count=pictures)


def shown(element: Element) -> Iterator[Element]:
    """Elements of a drawing in order, one alternative of each; not those inside text boxes."""
    stack = [element]
    while stack:
        one = stack.pop()
        yield one
        if local(one.tag) == "AlternateContent":
            stack.extend(reversed(chosen(one)))
        elif local(one.tag) != "txbxContent":
            stack.extend(reversed(one))


def chosen(alternatives: Element) -> list[Element]:
    """Content of the first choice; of the fallback where the choices hold no text."""
    options = [one for one in alternatives if local(one.tag) in ("Choice", "Fallback")]
    for one in options:
        if any(local(e.tag) in ("t", "docPr", "delText", "chart", "relIds") for e in one.iter()):
            return list(one)
    return list(options[-1]) if options else []


def _matched_fields(root: Element) -> set[int]:
    """Marks of fields that have a beginning and an end. Others would swallow what follows."""
    matched: set[int] = set()
    open_fields: list[list[Element]] = []
    for element in root.iter():
        if local(element.tag) != "fldChar":
            continue
        kind = attribute(element, "fldCharType")
        if kind == "begin":
            open_fields.append([element])
        elif open_fields:
            open_fields[-1].append(element)
            if kind == "end":
                matched.update(id(mark) for mark in open_fields.pop())
    return matched


def _form_value(field_mark: Element) -> str:
    """State of an old form's check box or list, which has no result text."""
    data = child(field_mark, "ffData")
    box, choices = child(data, "checkBox"), child(data, "ddList")
    if box is not None:
        state = is_on(child(box, "checked"))
        return "☒ " if (is_on(child(box, "default")) if state is None else state) else "☐ "
    if choices is not None:
        entries = [value(one) or "" for one in choices if local(one.tag) == "listEntry"]
        number = value(child(choices, "result")) or value(child(choices, "default")) or "0"
        if number.isdecimal() and int(number) < len(entries):
            return entries[int(number)]
    return ""


def _raised(text: str, how: str, before: str) -> str:
    """Raised and lowered text such that 10⁶ does not become 106."""
    table, sign = (SUPERSCRIPTS, "^") if how == "superscript" else (SUBSCRIPTS, "_")
    if all(ord(character) in table for character in text):
        return text.translate(table)
    if not before.isalnum() or (sign == "^" and ORDINAL.match(text.strip())):
        return text
    return f"{sign}{text}" if len(text) == 1 else f"{sign}({text})"
