"""Text-like files: plain text, Markdown, reStructuredText, source code, notebooks.

Their text is kept as it is written, so that line numbers hold; headings become chapters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from infllm.cli.documents.document import Document, SpanBuilder
from infllm.cli.documents.encoding import clean, decode
from infllm.cli.documents.errors import NoText, Unreadable

CHAPTER_CHARS = 200
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
ATX = re.compile(r" {0,3}#{1,6}[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$")
SETEXT = re.compile(r" {0,3}(?:=+|-+)[ \t]*$")
NOT_SETEXT = re.compile(
    r"\s*$|[ \t]{4,}|\s*(?:[#>|`~+*-]|\d+[.)]\s)"
)  # lines that are no paragraph
FRONT_MATTER = re.compile(r"---[ \t]*\n.*?\n(?:---|\.\.\.)[ \t]*(?:\n|$)", re.S)
ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1+[ \t]*$")


def read_plain(data: bytes, source: str, kind: str) -> Document:
    """Document of a text file. Raises NoText, UnsupportedFormat for binary data, Unreadable."""
    raw, warning = decode(data, source)
    warnings = [warning] if warning else []
    if kind == "notebook":
        return _notebook(raw, source, warnings)
    text = clean(raw)
    if not text.strip():
        raise NoText(f"{source}: the file is empty")
    headings = {"markdown": _markdown_headings, "rst": _rst_headings}.get(kind)
    out = SpanBuilder(source)
    begin, line, chapter = 0, 1, None
    found = list(headings(text)) if headings else []
    for offset, name in found:
        out.add(text[begin:offset], chapter=chapter, line=line)
        line += text.count("\n", begin, offset)
        begin, chapter = offset, name
    out.add(text[begin:], chapter=chapter, line=line)
    title = found[0][1] if found else None
    return Document(source, kind, *out.finish(), title=title, warnings=warnings, extractor="text 1")


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
            if heading[1]:
                yield offset, _name(heading[1])
            before = None
        elif before and SETEXT.match(line):
            yield before[0], _name(before[1])
            before = None
        else:
            before = None if NOT_SETEXT.match(line) else (offset, line)


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


def _notebook(raw: str, source: str, warnings: list[str]) -> Document:
    """Cells in order, code fenced; outputs are left out."""
    try:
        notebook = json.loads(raw)
        language = _language(notebook)
        cells = notebook.get("cells")
        if cells is None:  # before format 4 the cells stood in worksheets
            cells = [cell for sheet in notebook["worksheets"] for cell in sheet["cells"]]
        written = [_cell(cell, language) for cell in cells]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Unreadable(
            f"{source}: not a valid notebook ({type(error).__name__}: {error})",
            "Open and save it in Jupyter, or export it as a script.",
        ) from error
    out = SpanBuilder(source)
    for number, text in enumerate(written, start=1):
        if text:
            out.add(("\n\n" if out.length else "") + text, chapter=f"cell {number}")
    if not out.length:
        raise NoText(f"{source}: a notebook without text in its cells")
    return Document(source, "notebook", *out.finish(), warnings=warnings, extractor="notebook 1")


def _language(notebook: dict) -> str:
    metadata = notebook.get("metadata", {})
    name = metadata.get("language_info", {}).get("name") or metadata.get("kernelspec", {}).get(
        "language"
    )
    return name if isinstance(name, str) and name.isalnum() else ""


def _cell(cell: dict, language: str) -> str:
    source = cell.get("source", cell.get("input", ""))
    text = clean(source if isinstance(source, str) else "".join(source)).strip("\n")
    if not text.strip():
        return ""
    if cell.get("cell_type") == "code":
        fence = "```"
        while fence in text:
            fence += "`"
        return f"{fence}{language}\n{text}\n{fence}"
    return text
