"""Running heads and feet of PDF pages, and page numbers: lines that no reader reads twice.

What is lost here is lost without a trace in the text, so a line goes only on evidence:

- It stands apart: at the page's edge, with more white between it and the body than between lines,
  and on most pages something stands in the same place.
- It says nothing new: the very line stood in that place on an earlier page, which keeps it; or
  only a page number differs. A number counts as one where it rises by one with the pages and
  stands beside a word for page, or alone, being the printed label or no greater than the count of
  pages so far; or where it begins the left pages' heads and ends the right pages'. "Net pay:
  3215.00", "Week 6", "Invoice 7" and "2024" are no such lines.
- The page keeps other lines.

Without places (pypdf gives none) only page numbers go: at the very edge, a bare one at the foot.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from infllm.cli.documents.document import LeftOut
from infllm.cli.documents.pagetext import PageLines
from infllm.cli.documents.words import words

EDGE_ROWS = 3  # at the top and at the bottom of a page that may be heads and feet
LEAST_PAGES = 3  # on so many pages a line or a numbering is a running one
MOST = 0.5  # of the pages must have more than this at the place
APART = 1.4  # times the distance of lines: more stands between a head and the body
SAME_PLACE = 4.0  # points
RUNNING_CHARS = 160
SAMPLES = 8

ROMAN = re.compile(r"(?=[ivxlc])(?:xc|xl|l?x{0,3})(?:ix|iv|v?i{0,3})", re.I)
ROMAN_VALUES = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}
NUMBER = re.compile(r"\d{1,5}")
# "- 7 -", "[7]", "7 | ", "7.": what a page number alone may be set in.
SETTING = "-–—|·•.[](){}<>~ \t"
PAGE_WORDS = words(
    "page pages p. pg pg. pag. pagina página seite s. blatt folio fol. side sida sivu strona str."
    " oldal strana stran sayfa стр. страница σελίδα halaman trang 页 頁 페이지"
)
OF = words("of von de sur di / из z av af / |")
# An amount or a value, unless it is a year: equal values on all pages are values all the same.
FIGURES = re.compile(
    r"\d[.,]\d\d\b|[€$£¥%]|[:=]\s*[-+]?\d[\d.,]*$"
    r"|(?!\b(?:19|20)\d\d\W*$)(?<!\d)\d[\d.,']*\s?[^\W\d]{0,4}\W*$"
)


@dataclass(frozen=True)
class _Row:
    """What stands on one height of a page: indices of its lines, its words, its place."""

    lines: tuple[int, ...]
    text: str
    top: float
    bottom: float


@dataclass(frozen=True)
class _Edge:
    """A row at an edge of a page. ``place``: points from that edge, or rows where unknown."""

    page: int
    at_top: bool
    place: float
    row: _Row


def strip_running_lines(
    pages: Sequence[PageLines], labels: Sequence[str]
) -> tuple[list[str], LeftOut | None]:
    """Texts of the pages without them, and what went. ``labels``: the pages' printed numbers."""
    edges = list(_edges(pages))
    going: dict[int, set[int]] = defaultdict(set)
    samples: dict[str, None] = {}
    count = 0
    for edge in _repeated(edges, pages) + _numbered(edges, pages, labels):
        lines = going[edge.page]
        kept = [i for i, text in enumerate(pages[edge.page].texts) if text and i not in lines]
        if set(edge.row.lines) <= lines or len(kept) <= len(edge.row.lines):
            continue
        lines.update(edge.row.lines)
        samples.setdefault(edge.row.text)
        count += 1
    texts = [
        "\n".join(text for number, text in enumerate(page.texts) if number not in going[index])
        for index, page in enumerate(pages)
    ]
    if not count:
        return texts, None
    return [text.strip("\n") for text in texts], LeftOut(
        "running line", count, tuple(samples)[:SAMPLES]
    )


def _edges(pages: Sequence[PageLines]) -> Iterable[_Edge]:
    rows = [_page_rows(page) for page in pages]
    steps = [b.top - a.top for found in rows for a, b in pairwise(found)]
    usual = median(steps) if steps else 0.0
    for index, (page, found) in enumerate(zip(pages, rows, strict=True)):
        own = [b.top - a.top for a, b in pairwise(found)]
        step = median(own) if len(own) >= 2 * EDGE_ROWS else usual
        for at_top in (True, False):
            for depth, row in enumerate(_apart(found, at_top, step, page.edges is not None)):
                if len(row.text) > RUNNING_CHARS:
                    continue
                if page.edges is None:
                    place = float(depth)
                else:
                    place = row.top if at_top else page.height - row.bottom
                yield _Edge(index, at_top, place, row)


def _page_rows(page: PageLines) -> list[_Row]:
    """From the top down; lines beside each other are one row."""
    if page.edges is None:
        return [
            _Row((number,), " ".join(text.split()), float(number), float(number))
            for number, text in enumerate(page.texts)
            if text.strip()
        ]
    order = sorted(range(len(page.texts)), key=lambda number: page.edges[number])  # type: ignore[index]
    groups: list[list[int]] = []
    middle = float("-inf")
    for number in order:
        top, bottom = page.edges[number]
        if not groups or top > middle:
            groups.append([])
            middle = (top + bottom) / 2
        groups[-1].append(number)
    return [
        _Row(
            tuple(group),
            " ".join(" ".join(page.texts[number] for number in sorted(group)).split()),
            min(page.edges[number][0] for number in group),
            max(page.edges[number][1] for number in group),
        )
        for group in groups
    ]


def _apart(rows: list[_Row], at_top: bool, step: float, placed: bool) -> list[_Row]:
    """The rows at an edge, outermost first, that white parts from the body."""
    outer = rows if at_top else rows[::-1]
    if not placed:
        return outer[:1] if len(outer) > 1 else []
    for depth in range(1, min(EDGE_ROWS, len(outer) - 1) + 1):
        if abs(outer[depth].top - outer[depth - 1].top) > APART * step:
            return outer[:depth]
    return []


def _most(count: int, pages: Sequence[PageLines]) -> bool:
    with_text = sum(bool(page.texts) for page in pages)
    return count >= LEAST_PAGES and count > MOST * with_text


def _places(edges: Iterable[_Edge]) -> Iterable[list[_Edge]]:
    """Edges that stand in one place of their pages."""
    for at_top in (True, False):
        group: list[_Edge] = []
        for edge in sorted((e for e in edges if e.at_top is at_top), key=lambda e: e.place):
            if group and edge.place - group[0].place > SAME_PLACE:
                yield group
                group = []
            group.append(edge)
        if group:
            yield group


def _repeated(edges: list[_Edge], pages: Sequence[PageLines]) -> list[_Edge]:
    """Edges that say again what stood in that place on an earlier page."""
    found = []
    for place in _places(edges):
        by_text: dict[str, list[_Edge]] = defaultdict(list)
        for edge in sorted(place, key=lambda e: e.page):
            if pages[edge.page].edges is not None and not FIGURES.search(edge.row.text):
                by_text[edge.row.text.casefold()].append(edge)
        running = [same for same in by_text.values() if len(same) >= LEAST_PAGES]
        holds = {edge.page for same in running for edge in same if not _is_bare(edge.row.text)}
        if _most(len(holds), pages):
            found += [e for same in running for e in same[1:] if not _is_bare(e.row.text)]
    return found


def _is_bare(text: str) -> bool:
    return not any(char.isalpha() for char in text)


def _numbered(edges: list[_Edge], pages: Sequence[PageLines], labels: Sequence[str]) -> list[_Edge]:
    """Edges that differ in nothing but the page number; the first that holds words stays."""
    found = []
    for place in _places(edges):
        forms: dict[str, list[tuple[_Edge, int]]] = defaultdict(list)
        for edge in sorted(place, key=lambda e: e.page):
            for form, number in _forms(edge.row.text):
                placed = pages[edge.page].edges is not None
                if _may_be_page(form, number, edge, labels, placed):
                    forms[form].append((edge, number - edge.page))
        # A preface is numbered apart from the body, so more than one offset may hold.
        numbered: dict[int, tuple[_Edge, str]] = {}
        for form, candidates in forms.items():
            offsets = Counter(offset for _, offset in candidates)
            for edge, offset in candidates:
                if offsets[offset] >= LEAST_PAGES:
                    numbered.setdefault(edge.page, (edge, form))
        for edge, form in _two_sided(place, labels):
            numbered.setdefault(edge.page, (edge, form))
        if not _most(len(numbered), pages):
            continue
        seen: set[str] = set()
        for _, (edge, form) in sorted(numbered.items(), key=lambda item: item[0]):
            if _has_words(form) and form not in seen:
                seen.add(form)
                continue
            found.append(edge)
    return found


def _two_sided(place: list[_Edge], labels: Sequence[str]) -> list[tuple[_Edge, str]]:
    """Heads of a book: the number begins the left pages' and ends the right pages', and no other.

    Labels with a number, "Invoice 7", stand on all pages alike.
    """
    sides: dict[int, dict[bool, list[tuple[_Edge, str]]]] = defaultdict(lambda: defaultdict(list))
    for edge in place:
        tokens = edge.row.text.casefold().split()
        if len(tokens) < 2:
            continue
        for first in (True, False):
            number = _value(tokens[0 if first else -1])
            rest = tokens[1:] if first else tokens[:-1]
            possible = number is not None and _may_be_page("", number, edge, labels, True)
            if possible and number is not None:
                sides[number - edge.page][first].append((edge, " ".join(rest)))
    found = []
    for by_side in sides.values():
        left, right = by_side[True], by_side[False]
        parities = {edge.page % 2 for edge, _ in left}, {edge.page % 2 for edge, _ in right}
        alternating = len(parities[0]) == len(parities[1]) == 1 and parities[0] != parities[1]
        if alternating and min(len(left), len(right)) >= LEAST_PAGES:
            found += left + right
    return found


def _may_be_page(form: str, number: int, edge: _Edge, labels: Sequence[str], placed: bool) -> bool:
    if any(char.isalpha() for char in form):  # a word for page
        return True
    if edge.at_top and not placed:
        return False
    # Before page 1 there may be a cover; a number beyond the pages so far may count anything.
    return number <= edge.page + 1 or number == _value(labels[edge.page].casefold())


def _forms(text: str) -> Iterable[tuple[str, int]]:
    """The line with its page number taken out, and that number, for each way to read it."""
    tokens = text.casefold().split()
    bare = text.strip(SETTING).casefold()
    number = _value(bare)
    if number is not None:
        yield "", number
        return
    whole = re.fullmatch(r"(\d{1,5})\s*(?:/|of|von|de|sur|di|из)\s*(\d{1,5})", bare)
    if whole and int(whole[1]) <= int(whole[2]):
        yield f"/{whole[2]}", int(whole[1])
        return
    for position, token in enumerate(tokens):
        before = tokens[position - 1].strip("([-–—|·•") if position else ""
        match = re.fullmatch(r"(\D*?)(\d{1,5}|[ivxlc]{1,8})(?:/(\d{1,5}))?[\])|.,;·•–—-]*", token)
        if match is None:
            continue
        word = match[1].strip("([-–—|·•")
        if word in PAGE_WORDS or (not word and before in PAGE_WORDS):
            value = _value(match[2])
            if value is not None:
                rest = [*tokens[:position], match[1], match[3] or "", *tokens[position + 1 :]]
                yield " ".join(filter(None, rest)), value


def _has_words(form: str) -> bool:
    """Beyond those for a page and for how many there are."""
    rest = [token.strip(SETTING + ",;:") for token in form.split()]
    return any(
        token
        and token not in PAGE_WORDS
        and f"{token}." not in PAGE_WORDS
        and token not in OF
        and not token.lstrip("/").isdecimal()
        for token in rest
    )


def _value(text: str) -> int | None:
    if NUMBER.fullmatch(text):
        return int(text)
    if not text or not ROMAN.fullmatch(text):
        return None
    digits = [ROMAN_VALUES[letter] for letter in text.casefold()]
    return sum(
        -digit if any(later > digit for later in digits[position + 1 :]) else digit
        for position, digit in enumerate(digits)
    )
