"""Chapters that begin inside a page: their places are marked before its text is taken out."""

from __future__ import annotations

import re
from collections.abc import Mapping

from infllm.cli.documents.document import SpanBuilder
from infllm.cli.documents.words import words

# Noncharacters, which no text holds; such as are there all the same are taken away first.
OPEN, CLOSE = "\ufdd0", "\ufdd1"
NONCHARACTERS = re.compile(f"[{OPEN}{CLOSE}]")
MARK = re.compile(f"{OPEN}([0-9]{{1,6}}){CLOSE}")
COMMENT_OR_TAG = re.compile(
    r"""<!--.*?(?:-->|\Z)|<([a-zA-Z][^\s<>/"']*)(?![^\s<>/"'])((?:[^<>"']|"[^"<]*"|'[^'<]*')*)>""",
    re.S,
)
ID = re.compile(r"""(?<![\w:.-])(xml:id|id|name)\s{0,8}=\s{0,8}(?:"([^"]*)"|'([^']*)')""")
NOT_WORD = re.compile(r"\W+")
# What holds no text of its own: a mark in it would come to stand before the table.
NO_TEXT_IN = words("table thead tbody tfoot tr colgroup col html head")


def mark_places(text: str, labels: Mapping[str, str]) -> tuple[str, list[str]]:
    """A page with a mark behind each start tag whose id has a label, and those labels in order.

    Labels of ids that the page does not have are not among them.
    """
    text = NONCHARACTERS.sub("", text)
    found: list[str] = []
    seen: set[str] = set()
    due = ""  # marks that wait for an element with text

    def mark(match: re.Match[str]) -> str:
        nonlocal due
        tag = (match[1] or "").lower()
        if not tag:
            return match[0]
        for attribute, double, single in ID.findall(match[2]):
            name = double or single
            if name in labels and name not in seen and (attribute != "name" or tag == "a"):
                seen.add(name)
                due += f"{OPEN}{len(found)}{CLOSE}"
                found.append(labels[name])
        if not due or tag in NO_TEXT_IN:
            return match[0]
        marks, due = due, ""
        return match[0] + marks

    return COMMENT_OR_TAG.sub(mark, text), found


class ChapterBuilder(SpanBuilder):
    """Passes the text of one page on to ``out``: marks out, their labels in as chapters.

    A label holds until the next one or until a heading; the heading that it stands at, or that
    says part of it, does not replace it.
    """

    def __init__(
        self, out: SpanBuilder, labels: list[str], chapter: str | None, label: str | None = None
    ):
        super().__init__(out.source)
        self.out = out
        self.labels = labels
        self.chapter = chapter if label is None else label
        self.label = label  # that holds now
        self.fresh = label is not None  # a label without text yet
        self.given = self.chapter  # what the page's headings say
        self.last = "\n"  # the character written last
        self.trim = False  # white space at the mark is the mark's own

    def add(
        self,
        text: str,
        *,
        page: str | None = None,
        page_index: int | None = None,
        chapter: str | None = None,
        line: int | None = None,
    ) -> None:
        self.length += len(text)  # the page asks whether it has written something
        chapter = MARK.sub("", chapter).strip() if chapter is not None else None
        if chapter != self.given:
            self.given = chapter
            if not self.fresh and not (self.label and _says(self.label, chapter)):
                self.chapter, self.label = chapter, None
        begin = 0
        for mark in MARK.finditer(text):
            if int(mark[1]) >= len(self.labels):
                continue  # the page spells one itself, by character references
            self._pass(text[begin : mark.start()])
            begin = mark.end()
            self.chapter = self.label = self.labels[int(mark[1])]
            self.fresh = True
            self.trim = self.last.isspace()
        self._pass(text[begin:])

    def _pass(self, text: str) -> None:
        if self.trim:
            text = text.lstrip()
        if not text:
            return
        self.trim = False
        self.fresh = self.fresh and not text.strip()
        self.last = text[-1]
        self.out.add(text, chapter=self.chapter)


def _says(label: str, heading: str | None) -> bool:
    """Whether a label holds all that a heading says: "4 The Whale" and "The Whale"."""
    said, whole = (
        f" {NOT_WORD.sub(' ', text or '').strip().casefold()} " for text in (heading, label)
    )
    return said in whole
