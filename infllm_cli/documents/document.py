"""A read document: text, and where every character of it came from."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one character came from. ``page`` is the printed label, ``page_index`` counts from 0,
    ``line`` from 1."""

    source: str
    page: str | None = None
    page_index: int | None = None
    chapter: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        place = [self.source]
        if self.page is not None:
            place.append(f"p. {self.page}")
        elif self.line is not None:
            place.append(f"line {self.line}")
        if self.chapter is not None:
            place.append(self.chapter)
        return ", ".join(place)


@dataclass(frozen=True, slots=True)
class Span:
    """Origin of ``text[start:end]`` (character offsets into ``Document.text``).

    ``line`` is the line of the original file where the span begins; None where lines mean
    nothing. The spans of a document are in order and cover all of its text.
    """

    start: int
    end: int
    source: str
    page: str | None = None
    page_index: int | None = None
    chapter: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that a source holds and its text does not: so many of them, with a few examples.

    ``what`` names one of them: "running line", "notebook output", "image without text".
    """

    what: str
    count: int
    samples: tuple[str, ...] = ()


@dataclass
class Document:
    """One source as text.

    ``kind``: text, markdown, rst, html, epub, pdf, docx, notebook or code. ``extractor`` names
    what made the text, with its version, because another one gives other text. ``left_out`` tells
    what of the source is not in the text; what changes its meaning always is.
    """

    source: str
    kind: str
    text: str
    spans: list[Span]
    title: str | None = None
    pages: int | None = None
    pages_without_text: int = 0
    warnings: list[str] = field(default_factory=list)
    extractor: str = ""
    left_out: list[LeftOut] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._starts = [span.start for span in self.spans]

    def origin(self, offset: int) -> Origin:
        """Origin of ``text[offset]``. Raises IndexError outside the text."""
        if not 0 <= offset < len(self.text):
            raise IndexError(f"offset {offset} outside text of {len(self.text)} characters")
        span = self.spans[bisect_right(self._starts, offset) - 1]
        line = span.line
        if line is not None:
            line += self.text.count("\n", span.start, offset)
        return Origin(span.source, span.page, span.page_index, span.chapter, line)


class SpanBuilder:
    """Collects pieces of text with their origin; joins neighbours of one origin to one span."""

    def __init__(self, source: str):
        self.source = source
        self.length = 0
        self._pieces: list[str] = []
        self._spans: list[Span] = []
        self._next_line: int | None = None  # of the character after the last one

    def add(
        self,
        text: str,
        *,
        page: str | None = None,
        page_index: int | None = None,
        chapter: str | None = None,
        line: int | None = None,
    ) -> None:
        if not text:
            return
        start = self.length
        self.length += len(text)
        self._pieces.append(text)
        span = Span(start, self.length, self.source, page, page_index, chapter, line)
        last = self._spans[-1] if self._spans else None
        if (
            last is not None
            and (last.page, last.page_index, last.chapter) == (page, page_index, chapter)
            and self._next_line == line
        ):
            span = Span(last.start, span.end, *_origin_fields(last))
            self._spans[-1] = span
        else:
            self._spans.append(span)
        if line is not None:
            self._next_line = line + text.count("\n")
        else:
            self._next_line = None

    def finish(self) -> tuple[str, list[Span]]:
        return "".join(self._pieces), self._spans


def _origin_fields(span: Span) -> tuple[str, str | None, int | None, str | None, int | None]:
    return span.source, span.page, span.page_index, span.chapter, span.line


@dataclass(frozen=True)
class Skipped:
    """A file that was met and not read, and why."""

    source: str
    reason: str


def _header(document: Document, number: int) -> str:
    name = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in document.source)
    gap = "\n\n" if number else ""
    return f"{gap}# {name}\n\n"


@dataclass
class Collection:
    """All documents of one call, and their texts as one.

    With more than one document each is preceded by a line ``# source``; the characters of that
    line have an origin too (its source, nothing else). ``headers`` are those lines, one a
    document, made where they are not given.
    """

    documents: list[Document]
    skipped: list[Skipped] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.headers:
            several = len(self.documents) > 1
            self.headers = [
                _header(document, number) if several else ""
                for number, document in enumerate(self.documents)
            ]
        pieces: list[str] = []
        self._starts: list[int] = []  # where each document's header begins
        self._bodies: list[int] = []  # where each document's text begins
        length = 0
        for document, header in zip(self.documents, self.headers, strict=True):
            self._starts.append(length)
            length += len(header)
            self._bodies.append(length)
            length += len(document.text)
            pieces += [header, document.text]
        self.text = "".join(pieces)

    def extended(self, documents: list[Document]) -> Collection:
        """With more documents behind these, whose text stays as it is."""
        count = len(self.documents)
        more = [_header(document, count + number) for number, document in enumerate(documents)]
        return Collection([*self.documents, *documents], self.skipped, [*self.headers, *more])

    @property
    def warnings(self) -> list[str]:
        return [warning for document in self.documents for warning in document.warnings]

    def locate(self, offset: int) -> tuple[Document, int] | None:
        """Document and offset inside it of ``text[offset]``; None for a header line."""
        if not 0 <= offset < len(self.text):
            raise IndexError(f"offset {offset} outside text of {len(self.text)} characters")
        number = bisect_right(self._starts, offset) - 1
        inside = offset - self._bodies[number]
        return (self.documents[number], inside) if inside >= 0 else None

    def origin(self, offset: int) -> Origin:
        """Origin of ``text[offset]``. Raises IndexError outside the text."""
        place = self.locate(offset)
        if place is None:
            return Origin(self.documents[bisect_right(self._starts, offset) - 1].source)
        document, inside = place
        return document.origin(inside)
