"""Tables of contents of an EPUB: which chapter begins where, down to places inside a page."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from infllm.cli.documents.epub_package import Book, Item
from infllm.cli.documents.errors import DocumentError, LimitExceeded
from infllm.cli.documents.xmltree import local, parse_xml

NOT_IN_TITLES = frozenset({"rt", "rp", "script", "style"})
BREAKS = frozenset({"br", "p", "div", "li", "hr"})
LABEL_CHARS = 200


@dataclass(frozen=True)
class Entry:
    """A line of a table of contents: ``fragment`` is the id it points to, empty for the page."""

    label: str
    href: str
    depth: int


Labels = dict[str, dict[str, str]]


def read_contents(book: Book) -> Labels:
    """Labels by page (member name) and id in it; by "" for the page as a whole.

    From the EPUB 3 navigation document, else the EPUB 2 NCX. A book without a readable one is
    read all the same; headings then name the chapters.
    """
    for item, entries in ((_nav(book), _nav_entries), (_ncx(book), _ncx_entries)):
        if item is None or item.member is None:
            continue
        try:
            root = parse_xml(book.archive.read(item.member), book.archive.source, item.member)
        except LimitExceeded:
            raise
        except DocumentError as error:
            reason = error.message.removeprefix(f"{book.archive.source}: ")
            book.warnings.append(f"the table of contents cannot be used: {reason}")
            continue
        labels = _labels(book, posixpath.dirname(item.member), entries(root))
        if labels:
            return labels
    return {}


def _labels(book: Book, folder: str, entries: Iterator[Entry]) -> Labels:
    labels: Labels = {}
    depths: dict[tuple[str, str], int] = {}
    for entry in entries:
        _, member = book.resolve(folder, entry.href)
        if member is None or not entry.label:
            continue
        fragment = unquote(entry.href.partition("#")[2])
        place = member, fragment
        # A part and its first chapter may begin at one place: the chapter names it.
        if place not in depths or entry.depth > depths[place]:
            depths[place] = entry.depth
            labels.setdefault(member, {})[fragment] = entry.label[:LABEL_CHARS]
    return labels


def _nav(book: Book) -> Item | None:
    return next((item for item in book.items if "nav" in item.properties), None)


def _ncx(book: Book) -> Item | None:
    spine = next((e for e in book.package.iter() if local(e.tag) == "spine"), None)
    named = book.by_id.get(spine.get("toc", "") if spine is not None else "")
    if named is not None and named.member is not None and not named.is_page:
        return named
    return next(
        (
            item
            for item in book.items
            if "dtbncx" in item.media_type or item.name.lower().endswith(".ncx")
        ),
        None,
    )


def _nav_entries(root: Element) -> Iterator[Entry]:
    """Links of the table of contents; not those of page lists and landmarks."""
    navs = [element for element in root.iter() if local(element.tag) == "nav"]
    tocs = [nav for nav in navs if {"toc", "doc-toc"} & _roles(nav)]
    plain = [nav for nav in navs if not _roles(nav)]
    for nav in tocs or plain[:1] or ([] if navs else [root]):
        yield from _links(nav, 0)


def _roles(nav: Element) -> set[str]:
    given = (text for key, text in nav.attrib.items() if local(key) in ("type", "role"))
    return set(" ".join(given).lower().split())


def _links(nav: Element, depth: int) -> Iterator[Entry]:
    stack = [(nav, depth)]
    while stack:
        element, level = stack.pop()
        if local(element.tag) == "a":
            yield Entry(label_text(element), element.get("href", "").strip(), level)
            continue
        level += local(element.tag) in ("ol", "ul")
        stack.extend((one, level) for one in reversed(element))


def _ncx_entries(root: Element) -> Iterator[Entry]:
    stack = [(root, 0)]
    while stack:
        element, level = stack.pop()
        tag = local(element.tag)
        if tag in ("pageList", "navList"):
            continue
        if tag == "navPoint":
            level += 1
            label = next((one for one in element if local(one.tag) == "navLabel"), None)
            content = next((one for one in element if local(one.tag) == "content"), None)
            if label is not None and content is not None:
                yield Entry(label_text(label), content.get("src", "").strip(), level)
        stack.extend((one, level) for one in reversed(element))


def label_text(element: Element) -> str:
    """A title without its markup: no readings of ruby, line breaks as spaces, images by alt."""
    pieces: list[str] = []
    stack: list[Element | str] = [element]
    while stack:
        one = stack.pop()
        if isinstance(one, str):
            pieces.append(one)
            continue
        tag = local(one.tag)
        if tag in BREAKS:
            pieces.append(" ")
        elif tag == "img":
            pieces.append(one.get("alt", ""))
        if tag in NOT_IN_TITLES:
            continue
        for child in reversed(one):
            if child.tail:
                stack.append(child.tail)
            stack.append(child)
        if one.text:
            stack.append(one.text)
    return " ".join("".join(pieces).split())
