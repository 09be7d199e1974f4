"""The two PDF libraries behind one interface: pypdfium2 where it is installed, else pypdf."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from infllm.cli.documents.errors import Encrypted, Unreadable

OUTLINE_ENTRIES = 20_000
OUTLINE_DEPTH = 16


@dataclass(frozen=True)
class Structure:
    """``labels``: printed page numbers, None where the PDF defines none. ``outline``: (title,
    page index) in reading order."""

    labels: list[str] | None
    outline: list[tuple[str, int]]
    title: str | None


@dataclass(frozen=True)
class PageText:
    """Raw text of a page and how many of its characters a reader does not see, by reason."""

    text: str
    hidden: dict[str, int] = field(default_factory=dict)


class PdfBackend(Protocol):
    name: str
    version: str
    pages: int

    def structure(self) -> Structure: ...
    def page(self, index: int) -> PageText: ...


def encrypted(source: str, password: str | None) -> Encrypted:
    if password is None:
        return Encrypted(f"{source}: encrypted, a password is needed", "Give it with --password.")
    return Encrypted(f"{source}: encrypted, and the password is wrong", "Check --password.")


def damaged(source: str, detail: object) -> Unreadable:
    what = " ".join(str(detail).split())[:200]
    return Unreadable(
        f"{source}: damaged or not a PDF ({what})",
        "Download or copy it again, or repair it, e.g. with qpdf or mutool clean.",
    )
