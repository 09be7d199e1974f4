"""The source of a page, prepared for a parser that keeps no positions and knows no XML."""

from __future__ import annotations

import re

from infllm.cli.documents.words import words

BLOCKS = words(
    """address article aside blockquote body caption center dd details dialog dir div dl dt fieldset
    figcaption figure footer form h1 h2 h3 h4 h5 h6 header hgroup hr html legend li main menu nav ol
    p pre section summary table tbody tfoot thead tr ul svg"""
)
VOID = words("area base br col embed hr img input link meta source track wbr param")
# Elements that others close, so that counting their tags says nothing of depth.
CLOSED_BY_OTHERS = words(
    "p li dt dd td th tr thead tbody tfoot option optgroup colgroup body html head"
)
IN_RUBY = ("rt", "rp", "rb", "rtc")  # often left open, until the ruby text ends
RAW_TEXT = words("script style textarea title xmp iframe noembed noframes")
# The parser takes time quadratic in depth; browsers show nothing deeper than this either.
DEPTH = 512

# A block's start tag, to be marked with its line.
BLOCK_TAG = re.compile(rf"<({'|'.join(sorted(BLOCKS | {'br', 'td', 'th'}))})(?=[\s/>])", re.I)
PRE_NEWLINE = re.compile(r"<pre[^<>]*>\n", re.I)
LINE = "data-source-line"
LINE_MARK = re.compile(rf" {LINE}=\d+")
TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9:-]*)|<!--")
# <title/>, <script/>, <a id="x"/>: complete in XML, left open by an HTML parser.
# Each alternative begins with a character of its own and the name ends where it must, so that no
# text makes it slow. (Possessive quantifiers would say so, but fail in Python 3.11.0 to 3.11.4.)
SELF_CLOSED = re.compile(
    r"""<([a-zA-Z][\w:.-]*)(?![\w:.-])((?:[^<>"'/]|"[^"<]*"|'[^'<]*'|/(?!>))*)/>"""
)
CDATA_START, CDATA_END = "<![CDATA[", "]]>"


def as_html(text: str) -> str:
    """XHTML with what only XML has written as HTML: CDATA sections, elements without content."""
    if CDATA_START in text:
        pieces = text.split(CDATA_START)
        for number in range(1, len(pieces)):
            inside, end, after = pieces[number].partition(CDATA_END)
            if end:
                inside = inside.replace("&", "&amp;").replace("<", "&lt;")
            pieces[number] = inside + after
        text = "".join(pieces)
    return SELF_CLOSED.sub(
        lambda m: m[0] if m[1].lower() in VOID else f"<{m[1]}{m[2]}></{m[1]}>", text
    )


def mark_lines(text: str) -> str:
    """With the line that each block begins in as an attribute of its start tag."""
    position, line = 0, 1

    def mark(match: re.Match[str]) -> str:
        nonlocal position, line
        line += text.count("\n", position, match.start())
        position = match.start()
        # The parser drops a newline right after <pre>, and with it a line.
        dropped = match[1].lower() == "pre" and PRE_NEWLINE.match(text, match.start())
        return f"<{match[1]} {LINE}={line + bool(dropped)}"

    return BLOCK_TAG.sub(mark, text)


def unmark(text: str) -> str:
    """Without the marks that tags inside raw text (title, xmp) were given."""
    return LINE_MARK.sub("", text) if LINE in text else text


def bound_depth(text: str) -> str:
    """Without the tags of elements that stand more than ``DEPTH`` deep; their text stays."""
    if text.count("<") <= DEPTH:
        return text
    pieces: list[str] = []
    kept: dict[str, int] = {}  # open elements by name
    dropped: dict[str, int] = {}
    depth = begin = position = 0
    while match := TAG.search(text, position):
        position = match.end()
        if match[0] == "<!--":
            end = text.find("-->", position)
            if end < 0:
                break
            position = end
            continue
        name = match[2].lower()
        if name in CLOSED_BY_OTHERS or name in VOID:
            continue
        if name == "ruby":
            depth -= sum(kept.pop(inner, 0) for inner in IN_RUBY)
        if match[1]:
            if dropped.get(name):
                dropped[name] -= 1
                position = begin = _cut(text, match, pieces, begin)
            elif kept.get(name):
                kept[name] -= 1
                depth -= 1
        elif depth >= DEPTH:
            dropped[name] = dropped.get(name, 0) + 1
            position = begin = _cut(text, match, pieces, begin)
        elif name in RAW_TEXT:
            closed = re.compile(f"</{name}", re.I).search(text, position)
            if closed is None:
                break
            position = closed.start()
            kept[name] = kept.get(name, 0) + 1
            depth += 1
        else:
            kept[name] = kept.get(name, 0) + 1
            depth += 1
    pieces.append(text[begin:])
    return "".join(pieces) if begin else text


def _cut(text: str, tag: re.Match[str], pieces: list[str], begin: int) -> int:
    """Leaves a tag out; a block's still ends the line. Returns where its text goes on."""
    end = text.find(">", tag.end())
    end = len(text) if end < 0 else end + 1
    between = text[begin : tag.start()]
    pieces.append(between)
    if tag[2].lower() in BLOCKS and (between or not pieces):
        pieces.append("<br>")
    return end
