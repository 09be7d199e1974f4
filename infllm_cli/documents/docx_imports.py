"""Other files that a Word document takes in whole (altChunk): web pages and plain text."""

from __future__ import annotations

from infllm.cli.documents.document import SpanBuilder
from infllm.cli.documents.docx_package import Package
from infllm.cli.documents.encoding import clean
from infllm.cli.documents.errors import Unreadable, UnsupportedFormat
from infllm.cli.documents.html import decode_html, extract_html, is_xhtml

PAGES = (".html", ".htm", ".xhtml", ".xht")


def imported_text(package: Package, part: str, relation: str) -> str:
    """Text of an imported file; a warning for one of another format."""
    name = package.target(part, relation)
    if name is None:
        return ""
    if not name.lower().endswith((*PAGES, ".txt")):
        package.warn(f"{name}, a file taken in whole, is left out; its format is not read here")
        return ""
    try:
        text, warning = decode_html(package.archive.read(name), f"{package.archive.source}, {name}")
    except (Unreadable, UnsupportedFormat) as error:
        package.warn(f"{error.message.removeprefix(package.archive.source + ': ')}; left out")
        return ""
    if warning:
        package.warn(f"{name}: {warning}")
    if name.lower().endswith(".txt"):
        return clean(text).strip()
    out = SpanBuilder(package.archive.source)
    extract_html(text, out, xml=is_xhtml(text), lines=False)
    return out.finish()[0].strip()
