"""The two PDF libraries behind one interface: pdfium first, pypdf for what it cannot open."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from infllm.cli.documents.errors import Encrypted, Unreadable

OUTLINE_ENTRIES = 20_000
OUTLINE_DEPTH = 16
XFA = (
    "a form made by XFA, which keeps its text apart from the pages; what they show is not all: "
    "print it to PDF with a viewer that can fill it in"
)


@dataclass(frozen=True)
class Structure:
    """``labels``: printed page numbers, None where the PDF defines none. ``outline``: (title,
    page index) in reading order. ``warnings``: what the document holds that is not read."""

    labels: list[str] | None
    outline: list[tuple[str, int]]
    title: str | None
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class PageText:
    """One page as drawn.

    ``lines`` in reading order; ``edges``: of each line how far its upper and lower edge are from
    the top of a page ``height`` high, in points, or None where the library does not say.
    ``notes``: what was filled in and noted (``pdf_form``). ``hidden``: characters that a reader
    does not see, by reason. ``unmapped``: share of words whose font names no characters.
    ``damaged``: why text may be missing.
    """

    lines: list[str]
    edges: list[tuple[float, float]] | None = None
    height: float = 0.0
    notes: list[str] = field(default_factory=list)
    hidden: dict[str, int] = field(default_factory=dict)
    unmapped: float = 0.0
    damaged: str | None = None


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
