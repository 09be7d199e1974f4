"""Text of single nodes: one line of it, a heading's words, a formula's parts."""

from __future__ import annotations

import re

from selectolax.lexbor import LexborNode

from infllm.cli.documents.htmlfields import image_text
from infllm.cli.documents.htmlsource import unmark
from infllm.cli.documents.words import words

# Not text: what a browser does not show, and what the walk writes by other means.
NOT_SHOWN = words(
    """annotation annotation-xml base datalist desc head link meta noembed noframes param rp script
    style template title track"""
)
SPACE = re.compile(r"[ \t\n\r\f]+")
# Soft hyphens and zero-width marks that only guide line breaking, and operators of formulas that
# are not seen. Joiners of scripts are kept.
FORMATTING = dict.fromkeys([0x00AD, 0x200B, 0x2060, 0x2061, 0x2062, 0x2063, 0x2064, 0xFEFF])

FRACTION_BARS = "/\N{FRACTION SLASH}\N{DIVISION SLASH}"
# Between the parts of a formula's element: before the second, before the third.
SCRIPTS = {
    "mfrac": ("/",),
    "msup": ("^",),
    "mover": ("^",),
    "msub": ("_",),
    "munder": ("_",),
    "msubsup": ("_", "^"),
    "munderover": ("_", "^"),
    "mroot": ("^1/",),
}


def one_line(text: str) -> str:
    return SPACE.sub(" ", unmark(text).translate(FORMATTING)).strip()


def heading(node: LexborNode) -> str:
    """Words of a heading, without readings and scripts, with the text of its images."""
    pieces: list[str] = []
    current: LexborNode | None = node
    while current is not None:
        if current.is_text_node:
            pieces.append(current.text_content or "")
        elif current.tag == "img":
            pieces.append(image_text(current.attributes))
        skipped = current.tag in NOT_SHOWN or current.tag in ("rt", "rtc")
        below = None if skipped else current.first_child
        while below is None:
            if current.mem_id == node.mem_id:
                return one_line("".join(pieces))
            below = current.next
            if below is None:
                parent = current.parent
                if parent is None:
                    return one_line("".join(pieces))
                current = parent
                if current.tag == "br":
                    pieces.append(" ")
        current = below
    return one_line("".join(pieces))


def is_compound(node: LexborNode) -> bool:
    first = node.first_child
    while first is not None and first.is_text_node:
        first = first.next
    if first is None:
        return False
    second = first.next
    while second is not None and second.is_text_node:
        second = second.next
    return second is not None


def elements_before(node: LexborNode) -> int:
    """How many elements of the same parent stand before one, as far as it matters: three."""
    number, before = 0, node.prev
    while before is not None and number < 3:
        number += not before.is_text_node
        before = before.prev
    return number


def script_mark(node: LexborNode, tag: str, last: str) -> str:
    """What keeps raised (``tag`` sup) or lowered text apart from ``last`` before it."""
    inside = one_line(node.text())
    begins = inside[:1]
    after = node.next
    bar = (after.text_content or "")[:1] if after is not None and after.is_text_node else ""
    if tag == "sup":
        if inside.isdecimal() and bar and bar in FRACTION_BARS:
            return " " if last.isdigit() else ""  # 3 1/2
        word = inside.isalpha() and len(inside) > 1  # 1st, Mlle
        return "" if word or not (begins.isalnum() or begins in "+-−–") else "^"
    if begins.isdigit():
        return "_" if last.isdigit() else ""  # H2O
    return "_" if begins.isalnum() else ""
