"""Word documents (.docx, .docm, .dotx): the body with its notes, running lines once."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from infllm.cli.documents.archive import Members
from infllm.cli.documents.document import Document, SpanBuilder
from infllm.cli.documents.docx_body import Block, Context, Story
from infllm.cli.documents.docx_notes import Notes
from infllm.cli.documents.docx_numbering import Numbering
from infllm.cli.documents.docx_package import Package, main_part
from infllm.cli.documents.docx_styles import attribute, child, is_on, read_styles
from infllm.cli.documents.encoding import clean
from infllm.cli.documents.errors import COPY_AGAIN, NoText, Unreadable
from infllm.cli.documents.tally import Tally
from infllm.cli.documents.xmltree import local, parse_damaged_xml

DELETED = "deleted text (tracked change)"


def read_docx(archive: Members) -> Document:
    """Raises Unreadable or NoText.

    A part that is damaged or missing is left out with a warning while the body can be read.
    Headers and footers are read once each, marked ``[header]`` and ``[footer]``, where the first
    section that shows them begins and ends. Notes follow the paragraph that refers to them.
    Comments, deleted and hidden text are left out and counted.
    """
    source = archive.source
    main = main_part(archive)
    if main is None:
        raise Unreadable(f"{source}: a Word document whose main part is missing", COPY_AGAIN)
    root, fault = parse_damaged_xml(archive.read(main), source, main)
    package = Package(archive, main)
    if fault is not None:
        package.warn(f"{main} is damaged ({fault}); what follows in it is left out")
    settings = package.related_root("settings")
    styles = read_styles(package.related_root("styles"))
    numbering = Numbering(package.related_root("numbering"), styles)
    context = Context(package, styles, numbering, Notes(package, settings), Tally())
    context.notes.read = lambda note, part: Story(context, note, part).text(note)
    reader = _Reader(context, root, settings)
    out = SpanBuilder(source)
    chapter: str | None = None
    title: str | None = None
    first: str | None = None
    for block in reader.blocks():
        if not block.text.strip():
            continue
        if block.heading or block.title:
            chapter = " ".join(block.text.split())
            first = first or chapter
            title = title or (chapter if block.title else None)
        out.add(("\n\n" if out.length else "") + block.text, chapter=chapter)
    body, spans = out.finish()
    reader.tell(body)
    warnings = package.warnings + context.notes.tell(context.tally)
    left_out = context.tally.left_out()
    if not body:
        lost = "; ".join([*warnings, *(f"{one.count} {one.what}" for one in left_out)])
        raise NoText(
            f"{source}: a Word document without text" + (f" ({lost})" if lost else ""),
            "If it holds scanned pages, export it as PDF and run OCR, e.g. ocrmypdf.",
        )
    return Document(
        source,
        "docx",
        body,
        spans,
        title=title or first,
        warnings=warnings,
        extractor="docx 2",
        left_out=left_out,
    )


class _Reader:
    """The body section by section, between its headers and footers."""

    def __init__(self, context: Context, root: Element, settings: Element | None):
        self.context = context
        self.root = root
        self.body = Story(context, root, context.package.main)
        self.sections = list(_sections(root))
        self.both_sides = bool(is_on(child(settings, "evenAndOddHeaders")))
        self.shown: dict[tuple[str, str], str] = {}  # member by (header or footer, type)
        self.read: dict[str, str] = {}  # text of each header and footer
        self.used: set[str] = set()
        self.told: set[str] = set()

    def blocks(self) -> Iterator[Block]:
        number = 0
        self._enter(number)
        yield from self._running("header")
        for block in self.body.blocks(self.root):
            if block.section is None:
                yield block
                continue
            yield from self._running("footer")
            number += 1
            self._enter(number)
            yield from self._running("header")
        yield from self._running("footer")

    def _enter(self, number: int) -> None:
        """Headers and footers of a section; those not given are those of the section before."""
        package = self.context.package
        if not package.has_relations:
            self.shown = {(kind, name): name for kind, name in package.running_parts()}
            return
        if number >= len(self.sections):
            return
        section = self.sections[number]
        self.shown.pop(("header", "first"), None)
        self.shown.pop(("footer", "first"), None)
        for reference in section:
            kind = local(reference.tag).removesuffix("Reference")
            which = attribute(reference, "type") or "default"
            if kind not in ("header", "footer"):
                continue
            if which == "first" and not is_on(child(section, "titlePg")):
                continue
            if which == "even" and not self.both_sides:
                continue
            name = package.target(package.main, attribute(reference, "id") or "")
            if name is not None:
                self.shown[kind, which] = name

    def _running(self, kind: str) -> Iterator[Block]:
        for (one, _), name in self.shown.items():
            if one == kind:
                self.used.add(name)
                text = self._text(name)
                if text and text not in self.told:
                    self.told.add(text)
                    yield Block(f"[{kind}] {text}")

    def _text(self, name: str) -> str:
        if name not in self.read:
            root = self.context.package.part(name)
            story = Story(self.context, root, name, running=True) if root is not None else None
            self.read[name] = clean(story.text(root)).strip() if story and root is not None else ""
        return self.read[name]

    def tell(self, body: str) -> None:
        """Count what the body does not show."""
        tally = self.context.tally
        together = " ".join(body.split())
        for text in self.body.inline.moved_from:
            if " ".join(text.split()) not in together:
                tally.add(DELETED, text)
        for kind, name in self.context.package.running_parts():
            if name not in self.used and self._text(name):
                tally.add(f"{kind} that no page shows", self._text(name))
        comments = self.context.package.related_root("comments")
        for comment in comments if comments is not None else ():
            text = " ".join(t.text or "" for t in comment.iter() if local(t.tag) == "t")
            if text.strip():
                tally.add("comment", text)


def _sections(element: Element) -> Iterator[Element]:
    """Section properties in order, without the record of what they were before a change."""
    stack = [element]
    while stack:
        one = stack.pop()
        if local(one.tag) == "sectPr":
            yield one
        elif local(one.tag) not in ("sectPrChange", "pPrChange"):
            stack.extend(reversed(one))
