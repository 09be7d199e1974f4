"""What a style attribute says of an element's being seen, and how lists are numbered."""

from __future__ import annotations

import re
from dataclasses import dataclass

from selectolax.lexbor import LexborNode

from infllm.cli.documents.htmlfields import Attributes

VISIBILITY_HIDDEN = ("hidden", "collapse")
ZERO = re.compile(r"[+-]?0*\.?0+(?:[a-z%]*)$")
RELATIVE = re.compile(r"[\d.+-]+(?:em|%|ex|ch)$")
INTEGER = re.compile(r"\s*([+-]?\d{1,9})")
STYLES = {
    "lower-alpha": "a",
    "lower-latin": "a",
    "upper-alpha": "A",
    "upper-latin": "A",
    "lower-roman": "i",
    "upper-roman": "I",
    "decimal": "1",
    "none": "",
}
ROMAN = (
    *((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l")),
    *((40, "xl"), (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i")),
)


def declarations(style: str) -> dict[str, str]:
    """Properties of a style attribute; the last declaration of one counts."""
    found = {}
    for declaration in style.lower().split(";"):
        name, colon, value = declaration.partition(":")
        if colon:
            found[name.strip()] = value.replace("!important", "").strip()
    return found


@dataclass(frozen=True)
class Sight:
    """Whether text is to be seen, by properties that elements inherit and may set anew."""

    hidden: bool = False
    tiny: bool = False

    @property
    def none(self) -> bool:
        return self.hidden or self.tiny

    def under(self, style: dict[str, str]) -> Sight:
        visibility, size = style.get("visibility"), style.get("font-size")
        hidden, tiny = self.hidden, self.tiny
        if visibility is not None and visibility != "inherit":
            hidden = visibility in VISIBILITY_HIDDEN
        if size is not None and size != "inherit":
            tiny = bool(ZERO.match(size)) or (tiny and bool(RELATIVE.match(size)))
        return Sight(hidden, tiny)


def script_of(tag: str, attributes: Attributes) -> str | None:
    """sup or sub for raised or lowered text, be it by a style or as the mark of a note."""
    if tag in ("sup", "sub"):
        return tag
    if tag == "a":
        kinds = f"{attributes.get('role')} {attributes.get('epub:type')} {attributes.get('rel')}"
        return "sup" if "noteref" in kinds else None
    style = attributes.get("style")
    align = declarations(style).get("vertical-align") if style and "vertical" in style else None
    return {"super": "sup", "sub": "sub"}.get(align or "")


def integer(text: str | None) -> int | None:
    match = INTEGER.match(text or "")
    return int(match[1]) if match else None


@dataclass
class Numbering:
    """The marks of a list's items; ``kind``: 1, a, A, i, I, or nothing for a list without."""

    kind: str
    number: int = 1
    step: int = 1

    def mark(self, value: int | None) -> str:
        if not self.kind:
            return "- "
        number = self.number if value is None else value
        self.number = number + self.step
        return f"{numeral(number, self.kind)}. "


def numeral(number: int, kind: str) -> str:
    if kind in "aA" and number > 0:
        letters = ""
        while number:
            number, rest = divmod(number - 1, 26)
            letters = chr(ord(kind) + rest) + letters
        return letters
    if kind in "iI" and 0 < number < 4000:
        letters = ""
        for value, letter in ROMAN:
            letters += letter * (number // value)
            number %= value
        return letters.upper() if kind == "I" else letters
    return str(number)


def numbering(node: LexborNode, tag: str, attributes: Attributes) -> Numbering:
    if tag != "ol":
        return Numbering("")
    kind = attributes.get("type") or "1"
    style = declarations(attributes.get("style") or "")
    for word in f"{style.get('list-style-type', '')} {style.get('list-style', '')}".split():
        kind = STYLES.get(word, kind)
    start = integer(attributes.get("start"))
    if "reversed" not in attributes:
        return Numbering(kind if kind in ("", *"1aAiI") else "1", 1 if start is None else start)
    if start is None:
        start, item = 0, node.first_child
        while item is not None:
            start += item.tag == "li"
            item = item.next
    return Numbering(kind, start, -1)
