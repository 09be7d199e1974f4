"""PDF pages as their author wrote them: no running heads, words whole, ligatures spelt."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise

from infllm.cli.documents.encoding import clean
from infllm.cli.documents.words import words

LIGATURES = str.maketrans(
    {
        "\ufb00": "ff",
        "\ufb01": "fi",
        "\ufb02": "fl",
        "\ufb03": "ffi",
        "\ufb04": "ffl",
        "\ufb05": "st",
        "\ufb06": "st",
    }
)
# pdfium writes U+FFFE (older ones U+0002) for a hyphen at the end of a line, newline included.
LINE_HYPHEN = re.compile("[\ufffe\x02](?:\r?\n)?")
SOFT_HYPHEN = re.compile("\u00ad(?! ?\n)")
HYPHENS = "-\u00ad\u2010"
BROKEN_WORD = re.compile(rf"([^\W\d_]+)[{HYPHENS}] ?\n[ ]*([^\W_]+)")
COMPOUND = re.compile(r"[^\W\d_]+-[^\W\d_]+")
WORD = re.compile(r"[^\W\d_]+")
# "Vor-\nund Nachteile", "pre-\nand post-war": the hyphen stands for a word left out.
SUSPENDED = words("and or to und oder bis et ou y o e")

EDGE_LINES = 3  # lines at the top and at the bottom of a page that may be running heads and feet
RUNNING_PAGES = 3  # on so many pages a line is a running one
RUNNING_REACH = 4  # and its next occurrence is at most so many pages away
RUNNING_CHARS = 120
NUMBERED_SHARE = 0.3  # of pages that must carry their number for it to count as a page number
NUMBER = re.compile(r"\d{1,5}|[ivxlc]{1,8}", re.I)
ROMAN = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}


def normalize(raw: str) -> str:
    """One page's raw text: newlines \\n, no control characters, ligatures as letters, line-end
    hyphens as hyphen and newline."""
    text = clean(LINE_HYPHEN.sub("-\n", raw)).translate(LIGATURES).replace("\uffff", "")
    text = SOFT_HYPHEN.sub("", text)
    lines = [line.rstrip() for line in text.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")


def strip_running_lines(pages: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Pages without running heads, running feet and page numbers.

    ``pages`` are normalized texts, ``labels`` their printed numbers. A line at a page's edge goes
    where its words return on nearby pages, or where it begins or ends with the page's number and
    page numbers stand at that edge throughout.
    """
    split = [page.split("\n") for page in pages]
    remaining = list(map(_body_range, split))
    for _ in range(EDGE_LINES):
        edges = [
            {from_top: _edge_line(lines, span, from_top) for from_top in (True, False)}
            for lines, span in zip(split, remaining, strict=True)
        ]
        running = _repeated(edges) | _numbered(edges, labels)
        if not running:
            break
        for index, from_top in running:
            begin, end = remaining[index]
            if from_top:
                remaining[index] = _trim(split[index], begin + 1, end)
            else:
                remaining[index] = _trim(split[index], begin, end - 1)
    return [
        "\n".join(lines[begin:end]) for lines, (begin, end) in zip(split, remaining, strict=True)
    ]


def _body_range(lines: list[str]) -> tuple[int, int]:
    return _trim(lines, 0, len(lines))


def _trim(lines: list[str], begin: int, end: int) -> tuple[int, int]:
    """Without blank lines at either side."""
    while begin < end and not lines[begin].strip():
        begin += 1
    while begin < end and not lines[end - 1].strip():
        end -= 1
    return begin, end


def _edge_line(lines: list[str], span: tuple[int, int], from_top: bool) -> str:
    """The line at the edge; empty where taking it would leave nothing of the page."""
    begin, end = span
    if end - begin < 2:
        return ""
    line = " ".join(lines[begin if from_top else end - 1].split())
    return line if len(line) <= RUNNING_CHARS else ""


def _repeated(edges: list[dict[bool, str]]) -> set[tuple[int, bool]]:
    places: dict[tuple[bool, str], list[int]] = defaultdict(list)
    for index, lines in enumerate(edges):
        for from_top, line in lines.items():
            # Sorted, because left and right pages often have the same parts in opposite order.
            words = " ".join(sorted(WORD.findall(line.casefold())))
            if len(words) >= 3:
                places[from_top, words].append(index)
    running = set()
    for (from_top, _), pages in places.items():
        near = {
            page
            for first, second in pairwise(pages)
            if second - first <= RUNNING_REACH
            for page in (first, second)
        }
        if len(near) >= RUNNING_PAGES:
            running |= {(page, from_top) for page in near}
    return running


def _numbered(edges: list[dict[bool, str]], labels: Sequence[str]) -> set[tuple[int, bool]]:
    """Lines that carry the page's number: its label, or a number that grows with the pages."""
    candidates: dict[bool, dict[int, set[int]]] = {True: {}, False: {}}
    offsets: dict[bool, Counter[int]] = {True: Counter(), False: Counter()}
    for index, lines in enumerate(edges):
        for from_top, line in lines.items():
            found = {number - index for number in _numbers(line)}
            label = labels[index].casefold()
            if label and label in (token.casefold() for token in _outer_tokens(line)):
                found.add(_label_offset(label, index))
            candidates[from_top][index] = found
            offsets[from_top].update(found)
    running = set()
    for from_top, counter in offsets.items():
        needed = max(RUNNING_PAGES, NUMBERED_SHARE * len(edges))
        # A preface is numbered apart from the body, so more than one offset may hold.
        accepted = {offset for offset, count in counter.items() if count >= RUNNING_PAGES}
        if sum(counter[offset] for offset in accepted) >= needed:
            running |= {
                (index, from_top)
                for index, found in candidates[from_top].items()
                if found & accepted
            }
    return running


def _label_offset(label: str, index: int) -> int:
    numbers = _values(label)
    return numbers[0] - index if numbers else 0


def _outer_tokens(line: str) -> list[str]:
    tokens = [token.strip("-–—|·.[]()/") for token in line.split()]
    tokens = [token for token in tokens if token]
    return [tokens[0], tokens[-1]] if tokens else []


def _numbers(line: str) -> set[int]:
    return {value for token in _outer_tokens(line) for value in _values(token)}


def _values(token: str) -> list[int]:
    if not NUMBER.fullmatch(token):
        return []
    if token.isdecimal():
        return [int(token)]
    digits = [ROMAN[letter] for letter in token.casefold()]
    value = sum(
        -digit if any(later > digit for later in digits[position + 1 :]) else digit
        for position, digit in enumerate(digits)
    )
    return [value]


def vocabulary(pages: Sequence[str]) -> frozenset[str]:
    """Words and hyphenated compounds that stand unbroken somewhere, in lower case."""
    found: set[str] = set()
    for page in pages:
        whole = BROKEN_WORD.sub(" ", page).casefold()
        found.update(WORD.findall(whole))
        found.update(COMPOUND.findall(whole))
    return frozenset(found)


def join_word(left: str, right: str, known: frozenset[str]) -> str:
    """What stands between two parts of a word broken by a hyphen: nothing, or the hyphen.

    A compound's hyphen stays where the document writes it unbroken elsewhere.
    """
    if right.casefold() in SUSPENDED:
        return "- "
    if not right[0].islower():
        return "-"
    joined, compound = (left + right).casefold(), f"{left}-{right}".casefold()
    return "-" if compound in known and joined not in known else ""


def dehyphenate(page: str, known: frozenset[str]) -> str:
    return BROKEN_WORD.sub(lambda m: m[1] + join_word(m[1], m[2], known) + m[2], page)


def joint(before: str, after: str, known: frozenset[str]) -> tuple[int, str]:
    """How a page continues the one before: characters to drop from the end of ``before``, and
    what to put between."""
    broken = re.search(rf"([^\W\d_]+)[{HYPHENS}]$", before)
    start = re.match(r"[^\W_]+", after)
    if broken and start and start[0][0].islower():
        return 1, join_word(broken[1], start[0], known)
    sentence_goes_on = before and after and after[0].islower() and before[-1] not in ".!?:;”\"'»"
    return 0, "\n" if sentence_goes_on else "\n\n"
