"""HTML to text: blocks on lines of their own, headings as chapters, nothing that is not shown."""

from __future__ import annotations

import re
from dataclasses import dataclass

from selectolax.lexbor import LexborHTMLParser, LexborNode

from infllm.cli.documents.document import SpanBuilder
from infllm.cli.documents.encoding import BYTE_ORDER_MARKS, clean, decode
from infllm.cli.documents.words import words

BLOCKS = words(
    """address article aside blockquote body caption center dd details dialog dir div dl dt fieldset
    figcaption figure footer form h1 h2 h3 h4 h5 h6 header hgroup hr html legend li main menu nav ol
    p pre section summary table tbody tfoot thead tr ul svg"""
)
# A blank line around these; other blocks only begin a new line.
PARAGRAPHS = words(
    """article aside blockquote dl figure h1 h2 h3 h4 h5 h6 header footer main nav ol p pre section
    table ul"""
)
HEADINGS = words("h1 h2 h3 h4 h5 h6")
NOT_SHOWN = words(
    """audio base canvas datalist head iframe link map meta noembed noframes noscript object param
    script source style template textarea title track video select"""
)
INVISIBLE = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0(?![.\d])", re.I
)
SPACE = re.compile(r"[ \t\n\r\f]+")
# Soft hyphens and zero-width marks that only guide line breaking. Joiners of scripts are kept.
FORMATTING = {0x00AD: None, 0x200B: None, 0x2060: None, 0xFEFF: None}
CHAPTER_CHARS = 200

META_CHARSET = re.compile(rb"""<meta[^>]{0,512}?charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.I)
XML_ENCODING = re.compile(rb"""<\?xml[^>]{0,256}?encoding\s*=\s*["']([\w.:-]{1,40})["']""")
ENCODING_BYTES = 4096

# A block's start tag, to be marked with its line; the parser itself keeps no positions.
BLOCK_TAG = re.compile(rf"<({'|'.join(sorted(BLOCKS | {'br', 'td', 'th'}))})(?=[\s/>])", re.I)
PRE_NEWLINE = re.compile(r"<pre[^<>]*>\n", re.I)
LINE = "data-source-line"
# <title/>, <script/>, <a id="x"/>: complete in XML, left open by an HTML parser.
# Each alternative begins with a character of its own and the name ends where it must, so that no
# text makes it slow. (Possessive quantifiers would say so, but fail in Python 3.11.0 to 3.11.4.)
SELF_CLOSED = re.compile(
    r"""<([a-zA-Z][\w:.-]*)(?![\w:.-])((?:[^<>"'/]|"[^"<]*"|'[^'<]*'|/(?!>))*)/>"""
)
VOID = words("area base br col embed hr img input link meta source track wbr param")
CDATA = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.S)


@dataclass(frozen=True)
class PageFacts:
    """What is known of a page beside its text: the chapter it ends in, and how many characters
    were left out because a browser would not show them."""

    title: str | None
    chapter: str | None
    hidden: int


def decode_html(data: bytes, source: str) -> tuple[str, str | None]:
    """Text of an HTML file by byte order mark, declared encoding, UTF-8, then a guess."""
    if not data.startswith(tuple(mark for mark, _ in BYTE_ORDER_MARKS)):
        head = data[:ENCODING_BYTES]
        declared = XML_ENCODING.search(head) or META_CHARSET.search(head)
        if declared and b"\0" not in data:
            try:
                return data.decode(declared[1].decode("ascii")), None
            except (UnicodeDecodeError, LookupError):
                pass  # the declaration is wrong; the bytes decide below
    return decode(data, source)


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
) -> PageFacts:
    """Append the shown text of an HTML page to ``out``.

    ``lines``: give each block the line of its start tag. ``chapter`` holds until the first heading.
    """
    text = clean(text)
    if xml:
        text = CDATA.sub(lambda m: m[1].replace("&", "&amp;").replace("<", "&lt;"), text)
        text = SELF_CLOSED.sub(
            lambda m: m[0] if m[1].lower() in VOID else f"<{m[1]}{m[2]}></{m[1]}>", text
        )
    if lines:
        text = _mark_lines(text)
    tree = LexborHTMLParser(text)
    title = tree.css_first("head > title")
    name = _one_line(title.text()) if title is not None else ""
    walk = _Walk(out, chapter)
    if tree.root is not None:
        walk.run(tree.root)
    return PageFacts(name or None, walk.chapter, walk.hidden)


def _mark_lines(text: str) -> str:
    position, line = 0, 1

    def mark(match: re.Match[str]) -> str:
        nonlocal position, line
        line += text.count("\n", position, match.start())
        position = match.start()
        # The parser drops a newline right after <pre>, and with it a line.
        dropped = match[1].lower() == "pre" and PRE_NEWLINE.match(text, match.start())
        return f"<{match[1]} {LINE}={line + bool(dropped)}"

    return BLOCK_TAG.sub(mark, text)


class _Walk:
    """One pass over the tree without recursion: pages may be nested a million deep."""

    def __init__(self, out: SpanBuilder, chapter: str | None):
        self.out = out
        self.chapter = chapter
        self.hidden = 0
        self.line: int | None = None
        self.newlines = 2  # newlines at the end of the output; a page begins at a fresh line
        self.wanted = 0  # newlines due before the next text
        self.gap = ""  # space due before the next text of the same line
        self.bullet = ""  # of the list item whose first text is due
        self.pre = 0

    def run(self, root: LexborNode) -> None:
        node: LexborNode | None = root
        while node is not None:
            below = node.first_child if self._enter(node) else None
            if below is not None:
                node = below
                continue
            while node is not None:
                self._leave(node)
                if node.mem_id == root.mem_id:
                    return
                following = node.next
                if following is not None:
                    node = following
                    break
                node = node.parent

    def _enter(self, node: LexborNode) -> bool:
        """Text is written, a start tag takes effect. False: nothing below is to be seen."""
        if node.is_text_node:
            self._text(node.text_content or "")
            return False
        tag = node.tag
        if tag is None or tag.startswith("-") or tag in NOT_SHOWN:
            return tag == "-document"
        attributes = node.attributes
        if "hidden" in attributes or INVISIBLE.search(attributes.get("style") or ""):
            if tag != "nav":  # books hide the lists that only reading systems use
                self.hidden += len(node.text().strip())
            return False
        line = attributes.get(LINE)
        if line is not None and line.isdecimal():
            self.line = int(line)
        if tag == "br":
            self.newlines_due(self.wanted + 1 if self.wanted else 1)
        elif tag in BLOCKS:
            self.newlines_due(2 if tag in PARAGRAPHS else 1)
            if tag in HEADINGS:
                self.chapter = _one_line(node.text())[:CHAPTER_CHARS] or self.chapter
            elif tag == "li":
                self.bullet = "- "
            elif tag == "pre":
                self.pre += 1
        elif tag in ("td", "th"):
            self.gap = " | " if not self.wanted and not self.newlines else ""
        return True

    def _leave(self, node: LexborNode) -> None:
        tag = node.tag
        if tag in BLOCKS:
            self.newlines_due(2 if tag in PARAGRAPHS else 1)
            if tag == "pre":
                self.pre = max(0, self.pre - 1)

    def newlines_due(self, count: int) -> None:
        self.wanted = max(self.wanted, min(count, 2))
        self.gap = ""

    def _text(self, text: str) -> None:
        text = _unmark(text).translate(FORMATTING)
        if not self.pre:
            text = SPACE.sub(" ", text)
            if text.startswith(" "):
                text = text[1:]
                self.gap = self.gap or " "
        if not text:
            return
        if self.pre:
            self._put(text)
        else:
            self._put(text.rstrip(" "))
            if text.endswith(" "):
                self.gap = " "

    def _put(self, text: str) -> None:
        if not text:
            return
        lead = "\n" * max(0, self.wanted - self.newlines) if self.out.length else ""
        if not lead and not self.newlines:
            lead = self.gap
        text = self.bullet + text
        self.wanted, self.gap, self.bullet = 0, "", ""
        self.out.add(lead, chapter=self.chapter, line=self.line)
        self.out.add(text, chapter=self.chapter, line=self.line)
        if self.pre and self.line is not None:
            self.line += text.count("\n")
        self.newlines = len(text) - len(text.rstrip("\n"))


def _one_line(text: str) -> str:
    return SPACE.sub(" ", _unmark(text).translate(FORMATTING)).strip()


def _unmark(text: str) -> str:
    """Without the marks that tags inside raw text (title, xmp) were given."""
    return re.sub(rf" {LINE}=\d+", "", text) if LINE in text else text
