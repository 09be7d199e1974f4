"""The package of an EPUB: its pages in reading order, found whatever way their names are spelt."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit
from xml.etree.ElementTree import Element

from infllm.cli.documents.archive import Members
from infllm.cli.documents.errors import COPY_AGAIN, Unreadable
from infllm.cli.documents.xmltree import local, parse_damaged_xml, parse_xml

CONTAINER = "META-INF/container.xml"
MIMETYPE = "mimetype"
EPUB = b"application/epub+zip"
PACKAGE_TYPE = "application/oebps-package+xml"
PAGE_TYPES = frozenset(
    {
        "application/xhtml+xml",
        "text/html",
        "text/x-oeb1-document",
        "image/svg+xml",
        "application/x-dtbook+xml",
    }
)
PAGE_NAMES = (".xhtml", ".html", ".htm", ".xht")
NAMES_TOLD = 3  # how many a warning tells


@dataclass(frozen=True)
class Item:
    """A file of the manifest. ``member`` is None where the archive has none of that name."""

    id: str
    href: str
    name: str
    media_type: str
    properties: frozenset[str]
    fallback: str | None
    member: str | None

    @property
    def is_page(self) -> bool:
        return self.media_type in PAGE_TYPES or (
            # A type that nobody knows, on a file that is called a page.
            not self.media_type.startswith(("image/", "audio/", "video/", "font/", "text/css"))
            and self.media_type != "application/x-dtbncx+xml"
            and self.name.lower().endswith(PAGE_NAMES)
        )


class Book:
    """The first rendition of an EPUB. Raises Unreadable where no package document is found."""

    def __init__(self, archive: Members):
        self.archive = archive
        self.warnings: list[str] = []
        self.other_renditions: list[str] = []
        self.aside: list[Item] = []
        self.loose: list[Item] = []
        self.skipped: list[str] = []  # where the spine holds nothing but what is not text
        if archive.repeated:
            self.warnings.append(
                f"several members have the name {_some(archive.repeated)}; the last is read"
            )
        self.package_name = self._package_name()
        self.package, fault = parse_damaged_xml(
            archive.read(self.package_name), archive.source, self.package_name
        )
        if fault is not None:
            self.warnings.append(
                f"{self.package_name} is damaged ({fault}); what it lists after that is left out"
            )
        self.folder = posixpath.dirname(self.package_name)
        self.items: list[Item] = []
        self.by_id: dict[str, Item] = {}
        for element in self.package.iter():
            if local(element.tag) == "item":
                item = self._item(element)
                self.items.append(item)
                self.by_id.setdefault(item.id, item)

    def resolve(self, folder: str, href: str) -> tuple[str, str | None]:
        """Name that a link means, and the member of that name."""
        path = _path(href)
        names = [posixpath.normpath(posixpath.join(folder, unquote(path)))]
        # Names that hold %, # or ? themselves were not always encoded.
        names += [posixpath.normpath(posixpath.join(folder, other)) for other in (path, href)]
        for name in names:
            member = self.archive.find(name) if name != "." else None
            if member is not None:
                return name, member
        return names[0], None

    def reading_order(self) -> list[Item]:
        """Pages of the spine in order; then those outside the main order, and those that the
        manifest lists alone, which readers reach by links."""
        linear: list[Item] = []
        aside: list[Item] = []
        seen: set[str] = set()
        unknown: list[str] = []
        skipped: list[str] = []
        for reference in self.package.iter():
            if local(reference.tag) != "itemref":
                continue
            item = self.by_id.get(reference.get("idref", "").strip())
            if item is None:
                unknown.append(reference.get("idref", ""))
                continue
            page = self._page(item)
            if page is None:
                skipped.append(f"{item.name} ({item.media_type})")
            elif (page.member or page.name) not in seen:
                seen.add(page.member or page.name)
                off = reference.get("linear", "").strip().lower() == "no"
                (aside if off else linear).append(page)
        loose = [
            item
            for item in self.items
            if item.is_page
            and item.media_type != "image/svg+xml"
            and (item.member or item.name) not in seen
            and "nav" not in item.properties
        ]
        if not linear and not aside and loose:
            self.warnings.append("the package gives no reading order; pages are read as listed")
            return _distinct(loose, seen)
        if not linear and not aside:
            self.skipped = skipped
            return []
        if unknown:
            self.warnings.append(f"the reading order names {_some(unknown)}, which is not listed")
        if skipped:
            self.warnings.append(f"{_some(skipped)} was left out; it is not text")
        if not linear:  # everything is aside: then that is the order
            linear, aside = aside, []
        self.aside, self.loose = aside, _distinct(loose, seen)
        return [*linear, *self.aside, *self.loose]

    def why_empty(self) -> str:
        if self.skipped:
            return f"the pages in its reading order are not text: {_some(self.skipped)}"
        return "an EPUB whose package lists no pages (empty spine)"

    def tell_order(self, with_text: set[str]) -> None:
        """Warn of pages that are read at the end; of those ``with_text``, not of bare covers."""
        for where, pages in (
            ("outside the main reading order", self.aside),
            ("not in the reading order", self.loose),
        ):
            names = [page.name for page in pages if page.name in with_text]
            if names:
                self.warnings.append(f"{where}, read at the end: {_some(names)}")

    def strangers(self) -> list[str]:
        """Members that belong neither to this package nor to the archive's own files."""
        own = {item.member for item in self.items} | {self.package_name, *self.other_renditions}
        return [
            name
            for name in self.archive.names
            if name not in own and name != MIMETYPE and not name.upper().startswith("META-INF/")
        ]

    def title(self) -> str | None:
        for element in self.package.iter():
            if local(element.tag) == "title":
                return " ".join("".join(element.itertext()).split()) or None
        return None

    def _item(self, element: Element) -> Item:
        href = element.get("href", "").strip()
        name, member = self.resolve(self.folder, href)
        return Item(
            element.get("id", "").strip(),
            href,
            name,
            element.get("media-type", "").strip().lower(),
            frozenset(element.get("properties", "").split()),
            element.get("fallback"),
            member,
        )

    def _page(self, item: Item) -> Item | None:
        """The item, or the page that stands for it where it is not one."""
        seen: set[str] = set()
        current: Item | None = item
        while current is not None and not current.is_page and current.id not in seen:
            seen.add(current.id)
            current = self.by_id.get(current.fallback or "")
        return current if current is not None and current.is_page else None

    def _package_name(self) -> str:
        """The first package document that the container names, else the only one there is."""
        container = self.archive.find(CONTAINER)
        failure = f"{CONTAINER} is missing"
        if container is not None:
            try:
                root = parse_xml(self.archive.read(container), self.archive.source, container)
                found = list(self._renditions(root))
                if found:
                    self.other_renditions = found[1:]
                    return found[0]
                failure = f"{CONTAINER} names no package document that is there"
            except Unreadable as error:
                if "entities" in error.message:
                    raise
                failure = error.message.removeprefix(f"{self.archive.source}: ")
        packages = [name for name in self.archive.names if name.lower().endswith(".opf")]
        if len(packages) != 1:
            raise Unreadable(f"{self.archive.source}: {failure}", COPY_AGAIN)
        self.warnings.append(f"{failure}; {packages[0]} is read")
        return packages[0]

    def _renditions(self, container: Element) -> Iterator[str]:
        seen: set[str] = set()
        for element in container.iter():
            if local(element.tag) != "rootfile" or not element.get("full-path", "").strip():
                continue
            media_type = element.get("media-type", PACKAGE_TYPE).strip().lower()
            _, member = self.resolve("", element.get("full-path", "").strip())
            if media_type == PACKAGE_TYPE and member is not None and member not in seen:
                seen.add(member)
                yield member


def is_book(archive: Members) -> bool:
    """Whether an archive is an EPUB: by its container, its type, or a package document."""
    if archive.find(CONTAINER) is not None:
        return True
    marked = archive.find(MIMETYPE)
    if marked is not None and archive.read(marked).strip() == EPUB:
        return True
    return any(name.lower().endswith(".opf") for name in archive.names)


def _path(href: str) -> str:
    """Path of a link, without its query and fragment."""
    try:
        return urlsplit(href.replace("\\", "/")).path
    except ValueError:  # e.g. an unclosed [ in what looks like a host
        return href.partition("#")[0]


def _distinct(pages: list[Item], seen: set[str]) -> list[Item]:
    found = []
    for page in pages:
        if (page.member or page.name) not in seen:
            seen.add(page.member or page.name)
            found.append(page)
    return found


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_TOLD} more" if len(names) > NAMES_TOLD else ""
    return ", ".join(names[:NAMES_TOLD]) + more
