"""Notebooks: cells in order, code fenced; what the code printed on request, else told."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

from infllm.cli.documents.controls import clean
from infllm.cli.documents.document import Document, LeftOut, SpanBuilder
from infllm.cli.documents.errors import NoText, Unreadable
from infllm.cli.documents.words import words

OUTPUT = "notebook output"
SAMPLES = 3
SAMPLE_CHARS = 60
LANGUAGE = re.compile(r"[\w+#.-]+")
LINES = words("br p div tr li ul ol table pre h1 h2 h3 h4 h5 h6")
# What of an output is read, the first one that it has: (name in format 4, in format 3, kind).
TEXTS = (
    ("text/plain", "text"),
    ("text/markdown", "markdown"),
    ("text/latex", "latex"),
    ("text/html", "html"),
    ("application/json", "json"),
    ("application/javascript", "javascript"),
)


def read_notebook(raw: str, source: str, warnings: list[str], *, outputs: bool) -> Document:
    """``outputs``: give what the cells printed. Raises Unreadable, NoText."""
    try:
        notebook = json.loads(raw)
        cells = list(_cells(notebook))
        language = _language(notebook)
        written = [_cell(cell, language, outputs) for cell in cells]
        omitted = [] if outputs else [text for cell in cells for text in _outputs(cell)]
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
    left_out = []
    if omitted:
        samples = [" ".join(text.split())[:SAMPLE_CHARS] for text in omitted[:SAMPLES]]
        left_out.append(LeftOut(OUTPUT, len(omitted), tuple(samples)))
    return Document(
        source,
        "notebook",
        *out.finish(),
        warnings=warnings,
        extractor="notebook 2",
        left_out=left_out,
    )


def _cells(notebook: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Cells of the notebook, before format 4 of its worksheets."""
    cells = notebook.get("cells")
    if cells is None:
        cells = [cell for sheet in notebook["worksheets"] for cell in sheet.get("cells") or []]
    for cell in cells:
        if not isinstance(cell, dict):
            raise TypeError("a cell is not an object")
        yield cell


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _language(notebook: dict[str, Any]) -> str:
    metadata = _mapping(notebook.get("metadata"))
    name = _mapping(metadata.get("language_info")).get("name") or _mapping(
        metadata.get("kernelspec")
    ).get("language")
    return name if isinstance(name, str) and LANGUAGE.fullmatch(name) else ""


def _text(value: object) -> str:
    """A text of the format: a string, its lines, or in JSON outputs anything."""
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "".join(value)
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False)
    return clean(value).strip("\n")


def _cell(cell: dict[str, Any], language: str, outputs: bool) -> str:
    text = _text(cell.get("source", cell.get("input")))
    blocks = []
    if text.strip():
        kind = cell.get("cell_type")
        if kind == "code":
            own = cell.get("language")  # before format 4
            blocks.append(_fenced(text, language or (own if isinstance(own, str) else "")))
        elif kind == "heading":  # before format 4
            level = cell.get("level")
            blocks.append("#" * (level if isinstance(level, int) else 1) + " " + text)
        else:
            blocks.append(text)
    if outputs:
        blocks += [_fenced(text, "output") for text in _outputs(cell)]
    return "\n\n".join(blocks)


def _fenced(text: str, language: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text}\n{fence}"


def _outputs(cell: dict[str, Any]) -> list[str]:
    texts = [_output(_mapping(output)) for output in cell.get("outputs") or []]
    return [text for text in texts if text.strip()]


def _output(output: dict[str, Any]) -> str:
    """What one output shows: a stream, an error with its traceback, or a result's text."""
    kind = output.get("output_type")
    if kind in ("error", "pyerr"):
        name = f"{_text(output.get('ename'))}: {_text(output.get('evalue'))}"
        lines = output.get("traceback") or []
        traceback = clean("\n".join(line for line in lines if isinstance(line, str)))
        return f"{traceback}\n{name}".strip() if name not in traceback else traceback.strip()
    if kind == "stream":
        return _text(output.get("text"))
    data = _mapping(output.get("data")) or output
    for mime, old in TEXTS:
        value = data.get(mime, data.get(old))
        if value is not None:
            return _html_text(_text(value)) if mime == "text/html" else _text(value)
    images = [mime for mime in data if mime.startswith("image/") or mime in ("png", "jpeg", "svg")]
    return f"[{images[0]}]" if images else ""


class _Shown(HTMLParser):
    """The text of a result given as HTML only. (The reader of pages runs in a worker process.)"""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.silent += tag in ("script", "style")
        self.pieces.append(" | " if tag in ("td", "th") else "\n" if tag in LINES else "")

    def handle_endtag(self, tag: str) -> None:
        self.silent -= tag in ("script", "style") and self.silent > 0

    def handle_data(self, data: str) -> None:
        if not self.silent:
            self.pieces.append(" ".join(data.split()) if data.strip() else " " * bool(data))


def _html_text(html: str) -> str:
    shown = _Shown()
    shown.feed(html)
    shown.close()
    lines = (line.strip().removeprefix("| ") for line in "".join(shown.pieces).split("\n"))
    return "\n".join(line for line in lines if line)
