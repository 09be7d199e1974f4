"""EPUBs for the tests, of the package and the tables of contents as given."""

from __future__ import annotations

from tests.cli.documents.make import CONTAINER, archive, page

XHTML = "application/xhtml+xml"
NCX = "application/x-dtbncx+xml"


def package(
    items: list[tuple[str, str, str, str]], spine: list[str], *, title: str = "T", toc: str = ""
) -> str:
    """A package document of (id, href, media type, further attributes) items."""
    manifest = "".join(
        f'<item id="{key}" href="{href}" media-type="{kind}" {more}/>'
        for key, href, kind, more in items
    )
    order = "".join(f"<itemref idref={one}/>" if '"' in one else f'<itemref idref="{one}"/>'
                    for one in spine)  # fmt: skip
    return (
        '<package xmlns="http://www.idpf.org/2007/opf"><metadata '
        f'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{title}</dc:title></metadata>'
        f"<manifest>{manifest}</manifest><spine toc='{toc}'>{order}</spine></package>"
    )


def book(
    pages: dict[str, str],
    items: list[tuple[str, str, str, str]] | None = None,
    spine: list[str] | None = None,
    extra: dict[str, str | bytes] | None = None,
    **more: str,
) -> bytes:
    """An EPUB of bodies by member name; items and spine as given, else the pages in order."""
    items = items or [(f"i{n}", name, XHTML, "") for n, name in enumerate(pages)]
    return archive(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": CONTAINER,
            "OPS/book.opf": package(items, spine or [item[0] for item in items], **more),
            **{f"OPS/{name}": page(body) for name, body in pages.items()},
            **(extra or {}),
        }
    )


def ncx(*points: tuple[str, str]) -> str:
    lines = "".join(
        f'<navPoint><navLabel><text>{label}</text></navLabel><content src="{src}"/></navPoint>'
        for label, src in points
    )
    pages = "<pageList><pageTarget><navLabel><text>7</text></navLabel></pageTarget></pageList>"
    return (
        f'<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/"><navMap>{lines}</navMap>{pages}</ncx>'
    )


def nav(*links: tuple[str, str]) -> str:
    lines = "".join(f'<li><a href="{href}">{label}</a></li>' for label, href in links)
    return (
        '<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops">'
        '<body><nav epub:type="page-list"><ol><li><a href="a.xhtml#c2">17</a></li></ol></nav>'
        f'<nav epub:type="toc"><ol>{lines}</ol></nav></body></html>'
    )
