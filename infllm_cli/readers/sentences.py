"""InfiniRetri's sentences (PyPI infini-retri 0.0.3), as ranges of a text: none is lost."""

import re
from collections.abc import Callable

SHORT_IN_WINDOWS = 10  # characters of what never stands alone behind a full stop
SHORT_IN_PROMPTS = 8
_PIECE = re.compile(r".*?(?:\n\n|[。！？.?!])|.+", re.DOTALL)
_MARKS = frozenset("。！？.?!")


def sentences(text: str, short: int) -> list[tuple[int, int]]:
    """Ranges (start, stop) of `text`, one behind the other; blanks at the end are of none.

    Cut behind blank lines and end marks. What is blank, a mark alone, or has at most `short`
    characters behind a full stop goes with the sentence before it; what begins with blanks keeps
    them.
    """
    found: list[tuple[int, int]] = []
    start = stop = 0
    blank = True  # what there is of the running sentence
    for match in _PIECE.finditer(text):
        piece = match[0].strip()
        after_full_stop = stop > start and text[stop - 1] == "."
        short_behind = after_full_stop and len(piece) <= short
        if not (blank or not piece or piece in _MARKS or short_behind):
            found.append((start, stop))
            start = stop
        stop = match.end()
        blank = blank and not piece
    if not blank:
        found.append((start, stop))
    return found


def windows(
    text: str, tokens: Callable[[str], int], room: int, short: int = SHORT_IN_WINDOWS
) -> list[tuple[int, int]]:
    """Ranges of `text` of neighbouring sentences, each as many as `room` tokens hold.

    `tokens` counts those of a text. As published, each sentence but the first also counts a line's
    end. A sentence that is too long by itself is cut at blanks, and what has none where it is:
    nothing is left out.
    """
    line_end = tokens("\n")
    found: list[tuple[int, int]] = []
    taken = count = 0
    for sentence in sentences(text, short):
        for start, stop in _within(text, *sentence, tokens, room):
            length = tokens(text[start:stop])
            if count and taken + count * line_end + length > room:
                taken = count = 0
            if count:
                found[-1] = (found[-1][0], stop)
            else:
                found.append((start, stop))
            taken, count = taken + length, count + 1
    return found


def _within(
    text: str, start: int, stop: int, tokens: Callable[[str], int], room: int
) -> list[tuple[int, int]]:
    """Halves of a range, and theirs, until each has at most `room` tokens."""
    if stop - start == 1 or tokens(text[start:stop]) <= room:
        return [(start, stop)]
    middle = (start + stop) // 2
    blanks = [start + m.start() for m in re.finditer(r"(?<=\S)\s", text[start:stop])]
    cut = min(blanks, key=lambda at: abs(at - middle)) if blanks else middle
    return [*_within(text, start, cut, tokens, room), *_within(text, cut, stop, tokens, room)]
