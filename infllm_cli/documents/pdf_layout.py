"""The order in which a page is read, from where its words stand.

A page's content usually comes in reading order: whoever made it wrote it so. That order is kept
unless the geometry shows that it jumps:

- *Columns of prose drawn line by line across.* A gutter is a vertical strip, about one letter
  wide, that no text crosses over at least ``ROWS`` rows with text on both sides. What crosses it
  (a heading over all columns, a footnote) ends the columns and begins new ones below. They hold
  prose where each side has lines of several words that fill the column and go on in small
  letters. Then each column is read to its end, the leftmost first (the rightmost in Hebrew and
  Arabic).
- *A table drawn column by column.* Rows that stand on common base lines and at least one column
  of figures make a table; it is read row by row.
- *Blocks drawn out of turn*: where blocks lie one below the other, without any beside it, the
  upper is read first, and a head or foot that stands apart in the margin first or last.

All else, tables drawn by rows, indexes, figures, formulas, stays as it was drawn.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

ROWS = 3  # that have text on both sides of a gutter
GAP = 0.8  # of a line's height: a gap as wide as that may be a gutter
GRID = 4  # points between two places where a gutter is looked for
SLACK = 2.0  # points that boxes of neighbours may overlap by
SAME_ROW = 0.4  # of a line's height that two base lines of one row may differ by
PROSE_FILL = 0.75  # of the column's width, by the median line
PROSE_WIDTH = 8.0  # heights of a line
PROSE_WORDS = 4  # of the median line
PROSE_GOING_ON = 0.15  # of lines that begin with a small letter
PROSE_LETTERS = 0.7  # of lines that begin with a letter
REGULAR = 0.9  # of lines that do not overlap the next, as they do in formulas
ALIGNED = 0.8  # of a table's rows that stand in two columns or more
FIGURES = 0.6  # of a column's cells that are numbers, and ROWS at least
FRAGMENTS = 2_000  # of a page; one with more is read as drawn
DEPTH = 4  # columns inside columns
SIDEWAYS_CHARS = 3  # of a word from which its box tells where the text runs to
MARGIN = 0.12  # of the page's height, in which a head or foot stands
MARGIN_ROWS = 3  # of a head or foot

FIGURE_CHARS = 24
FIGURE = re.compile(r"[^\w]*\d[\d\W]*\w{0,3}[^\w]*")


@dataclass(frozen=True, slots=True)
class Word:
    """Text without blanks and its box, in points from the top left corner of the page."""

    text: str
    left: float
    right: float
    top: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text, and how far its upper and lower edges are from the page's top, in points."""

    text: str
    top: float
    bottom: float


class Fragment:
    """Words on one line without a wide gap between them. ``index``: its turn in the content.
    Two are the same only where they are one object."""

    __slots__ = ("bottom", "height", "index", "left", "line", "middle", "right", "top", "words")

    def __init__(self, words: list[Word], index: int, line: int):
        self.words = words
        self.index = index
        self.line = line
        self.left = min(word.left for word in words)
        self.right = max(word.right for word in words)
        self.top = min(word.top for word in words)
        self.bottom = max(word.bottom for word in words)
        self.height = max(1.0, *(word.bottom - word.top for word in words))
        self.middle = (self.top + self.bottom) / 2

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)


Order = list[Fragment]


def reading_order(lines: Iterable[Sequence[Word]], height: float) -> list[Line]:
    """Lines in reading order, from lines as they were drawn on a page ``height`` points high."""
    fragments: Order = []
    number = 0
    for number, words in enumerate(lines):
        for group in _unbroken(words):
            fragments.append(Fragment(group, len(fragments), number))
    split = len(fragments) > number + 1
    downward = all(b.middle > a.middle + a.height / 4 for a, b in pairwise(fragments))
    if (split or not downward) and len(fragments) <= FRAGMENTS:
        if _is_sideways(fragments):
            return [Line(fragment.text, fragment.top, fragment.bottom) for fragment in fragments]
        fragments, changed = _arrange(fragments, DEPTH)
        if not changed:
            fragments = _margins_outside(fragments, height)
    return _joined(fragments)


def _is_sideways(fragments: Order) -> bool:
    """Whether most text runs upwards or downwards."""
    words = [word for f in fragments for word in f.words if len(word.text) >= SIDEWAYS_CHARS]
    upright = sum(word.right - word.left >= word.bottom - word.top for word in words)
    return upright * 2 < len(words)


def _margins_outside(fragments: Order, height: float) -> Order:
    """A head or foot that was drawn between other blocks is the first or the last of all."""
    rows = _rows(fragments)
    head = _margin(rows, 1, lambda f: f.bottom < MARGIN * height)
    foot = _margin(rows, -1, lambda f: f.top > (1 - MARGIN) * height)
    if head & foot:
        return fragments
    return (
        [f for f in fragments if id(f) in head]
        + [f for f in fragments if id(f) not in head and id(f) not in foot]
        + [f for f in fragments if id(f) in foot]
    )


def _margin(rows: list[Order], step: int, inside: Callable[[Fragment], bool]) -> set[int]:
    """The outermost rows that stand in the margin, apart from the next."""
    outer = rows[::step]
    for depth in range(1, min(MARGIN_ROWS, len(outer) - 1) + 1):
        row, following = outer[depth - 1], outer[depth]
        if not all(map(inside, row)):
            return set()
        upper, lower = (row, following) if step == 1 else (following, row)
        if min(f.top for f in lower) - max(f.bottom for f in upper) > row[0].height:
            return {id(f) for found in outer[:depth] for f in found}
    return set()


def _unbroken(words: Sequence[Word]) -> Iterable[list[Word]]:
    group: list[Word] = []
    for word in words:
        if group:
            last = group[-1]
            gap = max(word.left - last.right, last.left - word.right)
            if gap >= GAP * max(last.bottom - last.top, word.bottom - word.top, 1.0):
                yield group
                group = []
        group.append(word)
    if group:
        yield group


def _joined(fragments: Order) -> list[Line]:
    """Fragments that follow each other on one drawn line are one line again."""
    lines: list[Line] = []
    last: Fragment | None = None
    for fragment in fragments:
        text = fragment.text
        beside = (
            last is not None
            and _overlap(last, fragment) >= 0.5
            and (last.line == fragment.line or fragment.left >= last.right - SLACK)
        )
        if beside:
            line = lines[-1]
            lines[-1] = Line(
                f"{line.text} {text}",
                min(line.top, fragment.top),
                max(line.bottom, fragment.bottom),
            )
        else:
            lines.append(Line(text, fragment.top, fragment.bottom))
        last = fragment
    return lines


def _overlap(a: Fragment, b: Fragment) -> float:
    """Of the height of the lower one, a superscript for example, what lies beside the other."""
    shared = min(a.bottom, b.bottom) - max(a.top, b.top)
    return shared / max(min(a.bottom - a.top, b.bottom - b.top), 0.1)


def _arrange(fragments: Order, depth: int) -> tuple[Order, bool]:
    """Fragments in reading order, and whether that is another order than they were drawn in."""
    rows = _rows(fragments)
    run = _best_run(rows) if depth else None
    if run is None:
        return _in_turn(fragments), False
    first, last = run
    above, band, below = (
        [fragment for row in part for fragment in row]
        for part in (rows[:first], rows[first:last], rows[last:])
    )
    band_order, changed = _arrange_band(band, rows[first:last], depth)
    above_order, above_changed = _arrange(above, depth)
    below_order, below_changed = _arrange(below, depth)
    if changed or above_changed or below_changed:
        return above_order + band_order + below_order, True
    return _in_turn(fragments), False


def _arrange_band(band: Order, rows: list[Order], depth: int) -> tuple[Order, bool]:
    columns = _columns(band)
    of_column = {id(f): number for number, column in enumerate(columns) for f in column}
    drawn = [of_column[id(f)] for f in sorted(band, key=lambda f: f.index)]
    switches = sum(a != b for a, b in pairwise(drawn))
    both = sum(len({of_column[id(f)] for f in row}) > 1 for row in rows)
    most = max(len(_rows(column)) for column in columns)
    across = switches > max(len(columns) + 1, both / 2, most / 2)
    if across and all(map(_is_prose, columns)):
        if _is_right_to_left(band):
            columns.reverse()
        return [f for column in columns for f in _arrange(column, depth - 1)[0]], True
    down = switches <= len(columns)
    aligned = down and both >= max(ROWS, ALIGNED * most) and _is_regular(rows)
    if aligned and any(map(_is_figures, columns)):
        return [f for row in rows for f in sorted(row, key=lambda f: f.left)], True
    if down:  # a column may hold a table
        parts = [_arrange(column, depth - 1) for column in columns]
        if any(changed for _, changed in parts):
            parts.sort(key=lambda part: min(f.index for f in part[0]))
            return [f for order, _ in parts for f in order], True
    return _in_turn(band), False


def _rows(fragments: Order) -> list[Order]:
    """By base line, from the top down."""
    rows: list[Order] = []
    for fragment in sorted(fragments, key=lambda f: f.middle):
        if rows:
            first = rows[-1][0]
            if fragment.middle - first.middle < SAME_ROW * min(first.height, fragment.height):
                rows[-1].append(fragment)
                continue
        rows.append([fragment])
    return rows


def _best_run(rows: list[Order]) -> tuple[int, int] | None:
    """The rows, first and behind the last, that the gutter with most text beside it parts."""
    gaps: set[int] = set()
    lefts: Counter[int] = Counter()
    for row in rows:
        ordered = sorted(row, key=lambda f: f.left)
        for one, other in pairwise(ordered):
            if other.left - one.right >= GAP * one.height / 2:
                gaps.add(round((one.right + other.left) / 2 / GRID) * GRID)
        lefts.update(round(f.left - GAP * f.height / 2) for f in row)
    candidates = gaps | {left for left, count in lefts.items() if count >= ROWS}
    best, best_score = None, 0
    for x in candidates:
        for first, last, score in _runs(rows, x):
            if score > best_score:
                best, best_score = (first, last), score
    return best


def _runs(rows: list[Order], x: float) -> Iterable[tuple[int, int, int]]:
    """Rows without text at ``x``: first, behind the last, and how many are on the poorer side."""
    first, left, right = 0, [], []
    for number, row in enumerate([*rows, []]):
        if row and not any(f.left - GAP * f.height / 4 < x < f.right for f in row):
            if any(f.right <= x for f in row):
                left.append(number)
            if any(f.left >= x for f in row):
                right.append(number)
            continue
        begin, end = (
            (max(left[0], right[0]), min(left[-1], right[-1])) if left and right else (1, 0)
        )
        if begin <= end:
            # A title or a date that stands apart above or below belongs to no column.
            score = min(sum(begin <= n <= end for n in side) for side in (left, right))
            if score >= ROWS:
                first = _skip_apart(rows, first, begin, 1)
                last = _skip_apart(rows, number - 1, end, -1)
                yield first, last + 1, score
        first, left, right = number + 1, [], []


def _skip_apart(rows: list[Order], edge: int, stop: int, step: int) -> int:
    """The row nearest to the edge from which on rows follow each other closely."""
    start = edge
    for number in range(edge, stop, step):
        upper, lower = sorted((number, number + step))
        gap = min(f.top for f in rows[lower]) - max(f.bottom for f in rows[upper])
        if gap > rows[number][0].height:
            start = number + step
    return start


def _columns(band: Order) -> list[Order]:
    columns: list[Order] = []
    reach = 0.0
    for fragment in sorted(band, key=lambda f: f.left):
        if not columns or fragment.left - reach >= GAP * fragment.height / 2:
            columns.append([])
            reach = fragment.right
        columns[-1].append(fragment)
        reach = max(reach, fragment.right)
    return columns


def _is_prose(column: Order) -> bool:
    rows = _rows(column)
    if len(rows) < ROWS:
        return False
    width = max(f.right for f in column) - min(f.left for f in column)
    widths = [max(f.right for f in row) - min(f.left for f in row) for row in rows]
    height = median(f.height for f in column)
    texts = [" ".join(f.text for f in sorted(row, key=lambda f: f.left)) for row in rows]
    letters = [char for text in texts for char in text if char.isalpha()]
    cased = sum(char.lower() != char.upper() for char in letters) * 2 > len(letters)
    going_on = sum(text[0].islower() for text in texts) >= PROSE_GOING_ON * len(texts)
    spaced = median(len(text.split()) for text in texts) >= PROSE_WORDS
    return (
        median(widths) >= PROSE_FILL * width
        and width >= PROSE_WIDTH * height
        and sum(text[0].isalpha() for text in texts) >= PROSE_LETTERS * len(texts)
        and ((spaced and going_on) or not cased)
        and _is_regular(rows)
    )


def _is_regular(rows: list[Order]) -> bool:
    steps = [
        min(f.middle for f in lower) - min(f.middle for f in upper)
        for upper, lower in pairwise(rows)
    ]
    height = median(row[0].height for row in rows)
    return sum(step >= 0.8 * height for step in steps) >= REGULAR * len(steps)


def _is_figures(column: Order) -> bool:
    figures = sum(len(f.text) <= FIGURE_CHARS and bool(FIGURE.fullmatch(f.text)) for f in column)
    return figures >= max(ROWS, FIGURES * len(column))


def _is_right_to_left(fragments: Order) -> bool:
    letters = [char for f in fragments for word in f.words for char in word.text[:2]]
    right = sum(unicodedata.bidirectional(char) in ("R", "AL") for char in letters)
    return right * 2 > len(letters)


def _in_turn(fragments: Order) -> Order:
    """As drawn, but blocks that lie one below the other from the top down."""
    order = sorted(fragments, key=lambda f: f.index)
    blocks: list[Order] = []
    for fragment in order:
        if not blocks or fragment.middle < blocks[-1][-1].middle - fragment.height / 2:
            blocks.append([])
        blocks[-1].append(fragment)
    if len(blocks) < 2:
        return order
    extents = [(min(f.top for f in block), max(f.bottom for f in block)) for block in blocks]
    slack = median(f.height for f in order) / 3
    by_top = sorted(range(len(blocks)), key=lambda number: extents[number][0])
    # Blocks that lie beside each other keep their turn; groups of such go down the page.
    groups: list[list[int]] = []
    lowest = float("-inf")
    for number in by_top:
        if not groups or extents[number][0] >= lowest - slack:
            groups.append([])
        groups[-1].append(number)
        lowest = max(lowest, extents[number][1])
    return [f for group in groups for number in sorted(group) for f in blocks[number]]
