"""Styles of a Word document: which paragraphs are headings, which text is hidden or raised."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from infllm.cli.documents.xmltree import local

BODY_LEVEL = 9  # the outline level that is none
TITLE = "title"
HEADING_NAME = re.compile(r"heading ?[1-9]$", re.I)
# Of documents whose styles are lost. Word forms a style's id from its name in the language of the
# program, often without the letters beyond ASCII: Überschrift 1 is berschrift1.
HEADING_ID = re.compile(
    r"(?:heading|u?berschrift|titre|ti?tulo|titolo|kop|rubrik|overskrift|otsikko|pealkiri|virsraksts"
    r"|antraste|nag[l]?owek|nag?wek|nadpis|cimsor|cmsor|baslk|balk|titlu|naslov|encabezado|cabecalho"
    r"|izenburua|encapcalament|zaglavlje|fyrirsogn|tieude|judul|tajuk)[1-9]$"
)
ON = frozenset({"", "1", "true", "on"})


@dataclass
class Style:
    name: str = ""
    based_on: str | None = None
    paragraph: Element | None = None
    run: Element | None = None


@dataclass
class Styles:
    """Styles by id. Properties are looked for along the chain of base styles."""

    by_id: dict[str, Style] = field(default_factory=dict)
    default: str | None = None  # of paragraphs that name none
    _run_properties: dict[tuple[str, str], Element | None] = field(default_factory=dict)

    def chain(self, style_id: str | None) -> list[Style]:
        """A style and those it is based on, each once; nothing for an unknown id."""
        found: list[Style] = []
        seen: set[str] = set()
        while style_id is not None and style_id in self.by_id and style_id not in seen:
            seen.add(style_id)
            style = self.by_id[style_id]
            found.append(style)
            style_id = style.based_on
        return found

    def is_title(self, style_id: str | None) -> bool:
        chain = self.chain(style_id)
        return any(style.name.lower() == TITLE for style in chain) or (
            not chain and (style_id or "").lower() == TITLE
        )

    def is_heading(self, style_id: str | None) -> bool:
        chain = self.chain(style_id)
        for style in chain:
            level = outline_level(style.paragraph)
            if level is not None:
                return level < BODY_LEVEL
            if HEADING_NAME.match(style.name):
                return True
        return not chain and bool(HEADING_ID.match(_plain_id(style_id or "")))

    def run_property(self, style_id: str | None, tag: str) -> Element | None:
        if style_id is None:
            return None
        key = style_id, tag
        if key not in self._run_properties:
            found = (child(style.run, tag) for style in self.chain(style_id))
            self._run_properties[key] = next((one for one in found if one is not None), None)
        return self._run_properties[key]


def read_styles(root: Element | None) -> Styles:
    styles = Styles()
    for element in root if root is not None else ():
        if local(element.tag) != "style":
            continue
        style_id = attribute(element, "styleId")
        if style_id is None or style_id in styles.by_id:
            continue
        styles.by_id[style_id] = Style(
            value(child(element, "name")) or "",
            value(child(element, "basedOn")),
            child(element, "pPr"),
            child(element, "rPr"),
        )
        by_default = (attribute(element, "default") or "0").lower() in ON
        if by_default and attribute(element, "type") == "paragraph":
            styles.default = styles.default or style_id
    return styles


def outline_level(properties: Element | None) -> int | None:
    level = value(child(properties, "outlineLvl"))
    return int(level) if level is not None and level.isdecimal() else None


def is_on(element: Element | None) -> bool | None:
    """State of an on/off property; None where it is not given."""
    return None if element is None else (value(element) or "").lower() in ON


def child(element: Element | None, tag: str) -> Element | None:
    if element is not None:
        for one in element:
            if local(one.tag) == tag:
                return one
    return None


def value(element: Element | None) -> str | None:
    return None if element is None else attribute(element, "val")


def attribute(element: Element, name: str) -> str | None:
    """By its name in any namespace: strict and transitional documents differ in theirs."""
    for key, text in element.attrib.items():
        if local(key) == name:
            return text
    return None


def _plain_id(style_id: str) -> str:
    spread = unicodedata.normalize("NFKD", style_id.lower())
    return "".join(character for character in spread if character.isascii() and character != " ")
