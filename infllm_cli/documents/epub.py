"""EPUB: the pages of the spine in reading order, chapters by headings and table of contents."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

from infllm.cli.documents.archive import Archive
from infllm.cli.documents.document import Document, SpanBuilder
from infllm.cli.documents.errors import NoText, Unreadable, UnsupportedFormat
from infllm.cli.documents.html import decode_html, extract_html
from infllm.cli.documents.xmltree import local, parse_xml

CONTAINER = "META-INF/container.xml"
ENCRYPTION = "META-INF/encryption.xml"
# Obfuscated fonts; the text of such a book is plain.
FONT_OBFUSCATION = frozenset(
    {"http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC"}
)
PAGE_TYPES = frozenset(
    {"application/xhtml+xml", "text/html", "text/x-oeb1-document", "image/svg+xml"}
)


def read_epub(archive: Archive) -> Document:
    """Raises Unreadable, UnsupportedFormat (DRM), LimitExceeded or NoText.

    A page that is damaged or missing is left out with a warning while others can be read.
    """
    source = archive.source
    package_name = _package_name(archive)
    package = parse_xml(archive.read(package_name), source, package_name)
    folder = posixpath.dirname(package_name)
    items = {item.get("id", ""): item for item in package.iter() if local(item.tag) == "item"}
    pages = _spine(package, items, folder)
    if not pages:
        raise Unreadable(f"{source}: an EPUB whose package lists no pages (empty spine)")
    _refuse_drm(archive, {name for name, _ in pages})
    labels = _contents(archive, items, folder)
    out = SpanBuilder(source)
    warnings: list[str] = []
    failure: Unreadable | None = None
    hidden = 0
    chapter: str | None = None
    for name, media_type in pages:
        if media_type not in PAGE_TYPES:
            warnings.append(f"{name} ({media_type}) was left out; it is not text")
            continue
        try:
            data = archive.read(name)
        except Unreadable as error:
            failure = error
            warnings.append(f"{error.message.removeprefix(source + ': ')}; left out")
            continue
        text, warning = decode_html(data, f"{source}, {name}")
        warnings += [f"{name}: {warning}"] if warning else []
        before = out.length
        if before:
            out.add("\n\n", chapter=chapter)
        chapter = labels.get(name, chapter)
        facts = extract_html(text, out, xml=True, lines=False, chapter=chapter)
        chapter = facts.chapter
        hidden += facts.hidden
    body, spans = out.finish()
    if not body.strip():
        if failure is not None:
            raise failure
        raise NoText(
            f"{source}: no text on {len(pages)} pages; it looks like a book of pictures",
            "Convert it to PDF and run OCR, e.g. ocrmypdf.",
        )
    if hidden:
        warnings.append(f"{hidden} characters are hidden from readers; left out")
    return Document(
        source,
        "epub",
        body,
        spans,
        title=_title(package),
        warnings=warnings,
        extractor="epub 1",
    )


def _package_name(archive: Archive) -> str:
    """The first package document that the container names."""
    container = parse_xml(archive.read(CONTAINER), archive.source, CONTAINER)
    for element in container.iter():
        if local(element.tag) == "rootfile" and element.get("full-path"):
            return posixpath.normpath(element.get("full-path", ""))
    raise Unreadable(f"{archive.source}: {CONTAINER} names no package document")


def _spine(
    package: ElementTree.Element, items: dict[str, ElementTree.Element], folder: str
) -> list[tuple[str, str]]:
    """(member name, media type) of each page in reading order."""
    pages = []
    for reference in package.iter():
        item = items.get(reference.get("idref", ""))
        if local(reference.tag) == "itemref" and item is not None:
            name = _resolve(folder, item.get("href", ""))
            pages.append((name, item.get("media-type", "").strip().lower()))
    return pages


def _resolve(folder: str, href: str) -> str:
    try:
        path = unquote(urlsplit(href).path)
    except ValueError:  # e.g. an unclosed [ in what looks like a host
        path = href
    return posixpath.normpath(posixpath.join(folder, path))


def _refuse_drm(archive: Archive, pages: set[str]) -> None:
    protected: list[str] = []
    if ENCRYPTION in archive.names:
        root = parse_xml(archive.read(ENCRYPTION), archive.source, ENCRYPTION)
        for entry in root.iter():
            if local(entry.tag) != "EncryptedData":
                continue
            method = next((e for e in entry.iter() if local(e.tag) == "EncryptionMethod"), None)
            if method is not None and method.get("Algorithm") in FONT_OBFUSCATION:
                continue
            references = (e for e in entry.iter() if local(e.tag) == "CipherReference")
            protected += [_resolve("", reference.get("URI", "")) for reference in references]
    elif "META-INF/sinf.xml" in archive.names:  # FairPlay
        protected = list(pages)
    if pages.intersection(protected):
        raise UnsupportedFormat(
            f"{archive.source}: encrypted by DRM; its text cannot be read",
            "Give a copy without copy protection.",
        )


def _contents(
    archive: Archive, items: dict[str, ElementTree.Element], folder: str
) -> dict[str, str]:
    """Label of each page in the table of contents (EPUB 3 nav, else EPUB 2 NCX).

    A book without a readable one is read all the same; headings then name the chapters.
    """
    nav = next((i for i in items.values() if "nav" in i.get("properties", "").split()), None)
    ncx = next((i for i in items.values() if "dtbncx" in i.get("media-type", "")), None)
    for item in (nav, ncx):
        if item is None:
            continue
        name = _resolve(folder, item.get("href", ""))
        try:
            root = parse_xml(archive.read(name), archive.source, name)
        except Unreadable:
            continue
        labels: dict[str, str] = {}
        for label, href in _entries(root):
            page = _resolve(posixpath.dirname(name), href)
            if label and "#" not in href:
                labels.setdefault(page, label)
        if labels:
            return labels
    return {}


def _entries(root: ElementTree.Element) -> list[tuple[str, str]]:
    """(label, link) pairs of a nav or NCX document."""
    found = []
    for element in root.iter():
        tag = local(element.tag)
        if tag == "a":
            found.append((_text(element), element.get("href", "")))
        elif tag == "navPoint":
            label = next((e for e in element if local(e.tag) == "navLabel"), None)
            content = next((e for e in element if local(e.tag) == "content"), None)
            if label is not None and content is not None:
                found.append((_text(label), content.get("src", "")))
    return found


def _text(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def _title(package: ElementTree.Element) -> str | None:
    for element in package.iter():
        if local(element.tag) == "title":
            return _text(element) or None
    return None
