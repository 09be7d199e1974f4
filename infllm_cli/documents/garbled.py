"""Text whose fonts do not say which characters they show."""

from __future__ import annotations

import re
import unicodedata

from infllm.cli.documents.words import words

MOSTLY = 0.5
# What readers write for glyphs without a character: "/g4/g16", "(cid:12)".
GLYPH_NAMES = re.compile(r"(?:/[A-Za-z_]{0,8}\d{1,5}){3,}|(?:\(cid:\d{1,5}\))+")
# Short words, one of which stands in nearly every sentence of a readable text.
FREQUENT = words(
    "the of and to in is that for it with as a der die und den von das ist mit ein eine zu le la"
    " les des et de du en un une que el los y a por il di che per e o do da em het van een och att"
)
FREQUENT_SHARE = 0.08


def garbled_share(raw: str) -> float:
    """Of the characters, blanks not counted, those that show nothing of what the page says."""
    named = sum(len(match[0]) for match in GLYPH_NAMES.finditer(raw))
    rest = GLYPH_NAMES.sub("", raw) if named else raw
    total = named + sum(not char.isspace() for char in rest)
    if not total:
        return 0.0
    odd = sum(
        char == "\N{REPLACEMENT CHARACTER}"
        or (unicodedata.category(char) in ("Cc", "Co", "Cn") and not char.isspace())
        for char in rest
        if not "!" <= char <= "~"
    )
    return (named + odd) / total


def is_readable(text: str) -> bool:
    """Whether it has the small words of a language: then its letters are right after all."""
    tokens = text.casefold().split()
    return sum(token in FREQUENT for token in tokens) >= FREQUENT_SHARE * max(1, len(tokens))
