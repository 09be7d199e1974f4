"""Text-like files: plain text, Markdown, reStructuredText, source code, notebooks.

Their text is kept as it is written, so that line numbers hold; headings become chapters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from infllm.cli.documents.controls import BREAK, without_controls
from infllm.cli.documents.document import Document, SpanBuilder
from infllm.cli.documents.encoding import decode
from infllm.cli.documents.errors import NoText
from infllm.cli.documents.notebook import read_notebook

CHAPTER_CHARS = 200
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
ATX = re.compile(r" {0,3}#{1,6}[ \t]+")
SETEXT = re.compile(r" {0,3}(?:=+|-+)[ \t]*$")
NOT_SETEXT = re.compile(
    r"\s*$|[ \t]{4,}|\s*(?:[#>|`~+*-]|\d+[.)]\s)"
)  # lines that are no paragraph
FRONT_MATTER = re.compile(r"---[ \t]*\n.*?\n(?:---|\.\.\.)[ \t]*(?:\n|$)", re.S)
ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1+[ \t]*$")


def read_plain(data: bytes, source: str, kind: str, *, outputs: bool = False) -> Document:
    """Document of a text file. ``outputs``: read what the cells of a notebook printed.

    Raises NoText, UnsupportedFormat for binary data, Unreadable.
    """
    raw, warning = decode(data, source)
    warnings = [warning] if warning else []
    if kind == "notebook":
        return read_notebook(raw, source, warnings, outputs=outputs)
    # Controls that break a line are there still: as characters of the line that the file has.
    whole = without_controls(raw)
    text = BREAK.sub("\n", whole)
    if not text.strip():
        raise NoText(f"{source}: the file is empty")
    headings = {"markdown": _markdown_headings, "rst": _rst_headings}.get(kind)
    found = list(headings(text)) if headings else []
    chapters = dict(found)
    cuts = sorted({*chapters, *(match.end() for match in BREAK.finditer(whole))})
    out = SpanBuilder(source)
    begin, line, chapter = 0, 1, None
    for offset in [*cuts, len(text)]:
        out.add(text[begin:offset], chapter=chapter, line=line)
        line += whole.count("\n", begin, offset)
        begin, chapter = offset, chapters.get(offset, chapter)
    title = found[0][1] if found else None
    return Document(source, kind, *out.finish(), title=title, warnings=warnings, extractor="text 2")


def _lines(text: str, begin: int = 0) -> Iterator[tuple[int, str]]:
    while begin < len(text):
        end = text.find("\n", begin)
        end = len(text) if end < 0 else end
        yield begin, text[begin:end]
        begin = end + 1


def _markdown_headings(text: str) -> Iterator[tuple[int, str]]:
    """(offset of the heading's first line, its words)."""
    front = FRONT_MATTER.match(text)
    fence = ""
    before: tuple[int, str] | None = None  # the line above, where it can be a setext heading
    for offset, line in _lines(text, front.end() if front else 0):
        mark = FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
            continue
        if mark:
            fence, before = mark[1], None
            continue
        heading = ATX.match(line)
        if heading:
            words = _without_closing_marks(line[heading.end() :].strip(" \t"))
            if words:
                yield offset, _name(words)
            before = None
        elif before and SETEXT.match(line):
            yield before[0], _name(before[1])
            before = None
        else:
            before = None if NOT_SETEXT.match(line) else (offset, line)


def _without_closing_marks(words: str) -> str:
    """The text of "# Heading ##" without the marks behind it, which must follow a blank."""
    bare = words.rstrip("#")
    return bare.rstrip(" \t") if not bare or bare[-1] in " \t" else words


def _rst_headings(text: str) -> Iterator[tuple[int, str]]:
    """A line underlined, and perhaps overlined, by one repeated mark at least as long."""
    lines = list(_lines(text))
    for number in range(1, len(lines)):
        offset, title = lines[number - 1]
        under = lines[number][1].rstrip()
        words = title.strip()
        if not ADORNMENT.match(under) or not words or ADORNMENT.match(title.rstrip()):
            continue
        over = lines[number - 2][1].rstrip() if number > 1 else ""
        if len(under) < len(title.rstrip()):
            continue
        if title[0].isspace() and over != under:
            continue
        if over == under:
            offset = lines[number - 2][0]
        elif over.strip():
            continue  # the last line of a paragraph above a transition or a table
        yield offset, _name(words)


def _name(words: str) -> str:
    return " ".join(words.split())[:CHAPTER_CHARS]
