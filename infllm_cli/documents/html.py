"""HTML to text: blocks on lines of their own, headings as chapters, nothing that is not shown."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from selectolax.lexbor import LexborHTMLParser

from infllm.cli.documents.controls import clean
from infllm.cli.documents.document import LeftOut, SpanBuilder
from infllm.cli.documents.encoding import BYTE_ORDER_MARKS, decode
from infllm.cli.documents.htmlmain import measure
from infllm.cli.documents.htmlnodes import one_line
from infllm.cli.documents.htmlsource import as_html, bound_depth, mark_lines
from infllm.cli.documents.htmlwalk import Walk
from infllm.cli.documents.legacy import decode_by, web_codecs

META_CHARSET = re.compile(rb"""<meta[^>]{0,512}?charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.I)
XML_ENCODING = re.compile(rb"""<\?xml[^>]{0,256}?encoding\s*=\s*["']([\w.:-]{1,40})["']""")
ENCODING_BYTES = 4096
BROKEN = 0.01  # share of damaged characters up to which a declared encoding is believed


@dataclass(frozen=True)
class PageFacts:
    """What is known of a page beside its text: the chapter it ends in, how many characters were
    left out because a browser would not show them, and what else is not in the text."""

    title: str | None
    chapter: str | None
    hidden: int
    left_out: list[LeftOut] = field(default_factory=list)


def decode_html(data: bytes, source: str) -> tuple[str, str | None]:
    """Text of an HTML file by byte order mark, declared encoding, UTF-8, then a guess.

    A declaration means what browsers take it for: iso-8859-1 is windows-1252, utf-16 is UTF-8 in
    a page whose declaration can be read. Bytes that are UTF-8 are read so whatever it says.
    """
    if data.startswith(tuple(mark for mark, _ in BYTE_ORDER_MARKS)):
        return decode(data, source)
    head = data[:ENCODING_BYTES]
    declared = XML_ENCODING.search(head) or META_CHARSET.search(head)
    codecs = web_codecs(declared[1].decode("ascii")) if declared else ()
    if not codecs or codecs[0].startswith("utf") or b"\0" in data or _is_utf8(data):
        return decode(data, source)
    text, broken = decode_by(data, codecs)
    if broken > BROKEN * len(text):
        return decode(data, source)
    return (
        text,
        f"{broken} characters are damaged ({codecs[0]} with wrong bytes)" if broken else None,
    )


def _is_utf8(data: bytes) -> bool:
    """Whether there are characters above ASCII, all of UTF-8: no other encoding looks like it."""
    if data.isascii():
        return False
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def is_xhtml(text: str) -> bool:
    head = text[:ENCODING_BYTES].lstrip()
    return head.startswith("<?xml") or "http://www.w3.org/1999/xhtml" in head


def extract_html(
    text: str,
    out: SpanBuilder,
    *,
    xml: bool,
    lines: bool,
    chapter: str | None = None,
    main_text: bool | None = False,
) -> PageFacts:
    """Append the shown text of an HTML page to ``out``.

    ``lines``: give each block the line of its start tag. ``chapter`` holds until the first heading.
    ``main_text``: leave navigation, banners and footers out; None: of pages that are mostly such.
    """
    text = clean(text, " ")
    if xml:
        text = as_html(text)
    text = bound_depth(text)
    if lines:
        text = mark_lines(text)
    tree = LexborHTMLParser(text)
    title = tree.css_first("head > title")
    name = one_line(title.text()) if title is not None else ""
    root = tree.root
    if root is None:
        return PageFacts(name or None, chapter, 0)
    layout = measure(root, main_text)
    walk = Walk(out, chapter, layout)
    walk.run(root)
    return PageFacts(
        name or None, walk.chapter, walk.hidden, [*layout.left_out(), *walk.left_out()]
    )
