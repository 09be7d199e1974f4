"""Lines of Hebrew and Arabic in the order in which they are read.

PDFs draw from left to right. pdfium puts the letters and figures of a word in order; the order of
words it guesses by the line's first one, and it leaves brackets as they are drawn.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from infllm.cli.documents.pdf_layout import Word

BRACKETS = str.maketrans("()[]{}<>«»", ")(][}{><»«")
OPENING, CLOSING = "([{", ")]}"
# As drawn: the full stop behind a number stands to the left of it.
NUMBER_WITH_STOP = re.compile(r"([.,:;!?]+)([\d][\d.,:/%-]*)")


def in_reading_order(words: list[Word]) -> list[Word]:
    """The words of one line; as they are where most of them run from left to right."""
    if all(word.text.isascii() for word in words):
        return words
    visual = sorted(words, key=lambda word: word.left)
    directions = [_direction(word.text) for word in visual]
    excess = directions.count("R") - directions.count("L")
    if excess < 0 or (excess == 0 and directions[-1] != "R"):
        return words
    ordered: list[Word] = []
    for right_to_left, group in groupby(visual, key=lambda word: _direction(word.text) == "R"):
        run = list(group)
        # Words of another language keep their order among themselves; numbers alone do not.
        foreign = not right_to_left and any(_direction(word.text) == "L" for word in run)
        ordered.extend(reversed(run) if foreign else run)
    ordered.reverse()
    swapped = _closes_first(ordered)
    return [_plain(word, swapped) for word in ordered]


def _direction(text: str) -> str:
    """R or L by the first letter, else N."""
    for char in text:
        kind = unicodedata.bidirectional(char)
        if kind in ("R", "AL"):
            return "R"
        if kind == "L":
            return "L"
    return "N"


def _closes_first(words: Sequence[Word]) -> bool:
    for word in words:
        if _direction(word.text) == "L":
            continue
        for char in word.text:
            if char in OPENING:
                return False
            if char in CLOSING:
                return True
    return False


def _plain(word: Word, swapped: bool) -> Word:
    text = word.text
    if swapped and _direction(text) != "L":
        text = text.translate(BRACKETS)
    stop = NUMBER_WITH_STOP.fullmatch(text)
    if stop:
        text = stop[2] + stop[1]
    return word if text == word.text else replace(word, text=text)
