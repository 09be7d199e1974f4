"""XML files inside archives (package documents, Word parts): strict first, then mended.

Reading systems open what is almost XML, and people have such files: blank lines before the
declaration, ``&nbsp;`` without a DTD, a bare ampersand in a title, prefixes never declared.
"""

from __future__ import annotations

import re
from functools import lru_cache
from html.entities import html5
from xml.etree import ElementTree
from xml.parsers import expat

from infllm.cli.documents.encoding import BYTE_ORDER_MARKS
from infllm.cli.documents.errors import COPY_AGAIN, Unreadable

DECLARED_ENCODING = re.compile(
    rb"""<\?xml[^>]{0,256}?encoding\s{0,16}=\s{0,16}["']([\w.:-]{1,40})["']"""
)
ENCODING_BYTES = 4096
DECLARATION = re.compile(r"<\?xml(?=\s)[^>]{0,512}\?>")
# Comments and CDATA are matched to be passed over: an ampersand means nothing in them.
REFERENCE = re.compile(
    r"<!--.*?(?:-->|\Z)|<!\[CDATA\[.*?(?:\]\]>|\Z)"
    r"|&(?:#([0-9]{1,8}|[xX][0-9a-fA-F]{1,8});|(\w{1,40});)?",
    re.S,
)
PREDEFINED = frozenset({"amp", "lt", "gt", "quot", "apos"})
NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
FEED_CHARS = 1 << 16


def parse_xml(data: bytes, source: str, name: str) -> ElementTree.Element:
    """Root of an XML file, mended where that is needed. Raises Unreadable.

    Expat loads no external entities and bounds the expansion of internal ones; no valid EPUB or
    DOCX declares any, so files that do are refused outright.
    """
    root, failure = _parse(data, source, name)
    if root is None or failure is not None:
        raise Unreadable(f"{source}: {name} is not well-formed XML ({failure})", COPY_AGAIN)
    return root


def parse_damaged_xml(
    data: bytes, source: str, name: str
) -> tuple[ElementTree.Element, str | None]:
    """Root of an XML file up to its first fault, and that fault. Raises Unreadable."""
    root, failure = _parse(data, source, name)
    if root is None:
        raise Unreadable(f"{source}: {name} is not well-formed XML ({failure})", COPY_AGAIN)
    return root, failure


def _parse(data: bytes, source: str, name: str) -> tuple[ElementTree.Element | None, str | None]:
    refused = Unreadable(
        f"{source}: {name} declares XML entities, which is refused",
        "No sound book or document declares any: give another copy.",
    )
    if b"<!ENTITY" in data:
        raise refused
    if b"\0" not in data:  # else the check above saw nothing
        try:
            return ElementTree.fromstring(data), None
        except (ElementTree.ParseError, ValueError, LookupError):
            pass  # mended below, or told there
    text = _mend(_decode(data))
    if "<!ENTITY" in text:
        raise refused
    return _grow(text)


def _decode(data: bytes) -> str:
    """Text by byte order mark, zero bytes, declaration, UTF-8, then windows-1252."""
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, errors="replace")
    head = data[:ENCODING_BYTES]
    for start, encoding in ((b"<\0", "utf-16-le"), (b"\0<", "utf-16-be")):
        if head.startswith(start):
            return data.decode(encoding, errors="replace")
    names = ["utf-8", "cp1252"]
    declared = DECLARED_ENCODING.search(head)
    if declared is not None:
        names.insert(0, declared[1].decode("ascii"))
    for encoding in names:
        try:
            return data.decode(encoding)
        except (UnicodeError, LookupError):
            continue  # the declaration is wrong; the bytes decide
    return data.decode("latin-1")


def _mend(text: str) -> str:
    """As XML wants it, without touching what it says."""
    start = max(text.find("<"), 0)
    text = (
        DECLARATION.sub("", text[start : start + ENCODING_BYTES]) + text[start + ENCODING_BYTES :]
    )
    return REFERENCE.sub(_mended_reference, NOT_XML.sub("", text)).lstrip()


def _mended_reference(match: re.Match[str]) -> str:
    number, name = match[1], match[2]
    if number is not None:
        code = int(number[1:], 16) if number[0] in "xX" else int(number)
        allowed = code <= 0x10FFFF and not NOT_XML.match(chr(code))
        return match[0].lower() if allowed else ""
    if name is None:
        return "&amp;" if match[0] == "&" else match[0]
    if name in PREDEFINED:
        return match[0]
    meant = html5.get(f"{name};")
    if meant is None:
        return f"&amp;{name};"
    return "".join(f"&#{ord(character)};" for character in meant)


def _grow(text: str) -> tuple[ElementTree.Element | None, str | None]:
    """Root element, and what stopped the parser before its end tag."""
    # Without namespaces: prefixes that were never declared are no error then.
    parser = expat.ParserCreate("utf-8")
    builder = ElementTree.TreeBuilder()
    scopes: list[dict[str, str]] = [{}]
    depth = 0
    complete = False

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        declared = {k: v for k, v in attributes.items() if k == "xmlns" or k.startswith("xmlns:")}
        scopes.append(scopes[-1] | declared if declared else scopes[-1])
        builder.start(
            _expanded(tag, scopes[-1], element=True),
            {
                _expanded(key, scopes[-1], element=False): value
                for key, value in attributes.items()
                if key not in declared
            },
        )

    def end(tag: str) -> None:
        nonlocal depth, complete
        depth -= 1
        complete = depth == 0
        builder.end(_expanded(tag, scopes.pop(), element=True))

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = lambda data: builder.data(data) if depth else None
    parser.buffer_text = False  # what is buffered when the parser stops would be lost
    failure: str | None = None
    try:
        for begin in range(0, len(text), FEED_CHARS):
            parser.Parse(text[begin : begin + FEED_CHARS].encode("utf-8"), False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        failure = str(error)
    if complete:
        return builder.close(), None  # what follows the root element is no part of the file
    if len(scopes) == 1:
        return None, failure or "it is empty"
    while depth:
        depth -= 1
        scopes.pop()
        builder.end("")
    return builder.close(), failure


def _expanded(name: str, scope: dict[str, str], *, element: bool) -> str:
    """``{namespace}name``; without the namespace where the prefix was never declared."""
    prefix, colon, rest = name.partition(":")
    if not colon:
        namespace = scope.get("xmlns", "") if element else ""
        return f"{{{namespace}}}{name}" if namespace else name
    if prefix == "xml":
        return f"{{http://www.w3.org/XML/1998/namespace}}{rest}"
    namespace = scope.get(f"xmlns:{prefix}", "")
    return f"{{{namespace}}}{rest}" if namespace else rest


@lru_cache(maxsize=4096)  # documents have few names, and ask for them millions of times
def local(tag: object) -> str:
    """Tag or attribute name without its namespace; empty for comments."""
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""
