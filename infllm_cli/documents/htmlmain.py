"""What has to be known of a page before it is written: rows of tables, and its main text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from selectolax.lexbor import LexborNode

from infllm.cli.documents.document import LeftOut
from infllm.cli.documents.htmlsource import unmark
from infllm.cli.documents.words import words

HEADINGS = words("h1 h2 h3 h4 h5 h6")
SILENT = words("head script style template noscript title iframe svg math")
# Elements that may be left out as a whole.
PARTS = words(
    """article aside body div dl footer form header html main menu nav ol section table tbody td tr
    ul"""
)
ROW_CHARS = 2000  # a longer row is no row of data: the table arranges the page
SAMPLES = 3
SAMPLE_CHARS = 60
FURNITURE = "block of page furniture"

# Names that authors give to what surrounds the text, as whole words of a class or id.
NAMES = re.compile(
    r"(?:^|[\s_-])(?:nav|navbar|navigation|menu|submenu|breadcrumbs?|sidebar|footer|header|masthead"
    r"|banner|cookies?|consent|share|sharing|social|related|recommended|newsletter|subscribe|promo"
    r"|advert|ads?|sponsored|widget|pagination|pager|tags|toolbar|topbar|skip)(?:$|[\s_-])",
    re.I,
)
PROSE_CHARS = 1500  # with more text outside links a part is kept, whatever it is called
BULK, BULK_CHARS = 0.4, 200  # a part with so much of the page's text outside links is kept, too
BESIDE_CHARS = 500  # a part with so much text outside other parts is where the story is told
LINKED = 0.3  # share of a part's text in links, where its name speaks against it
MOSTLY_LINKED = 0.6  # and where it stands in the text, or nothing but the links does
LINKS = 5
# Automatic: only where at least half of a page would go, and what stays is a text.
FURNITURE_SHARE = 0.5
MAIN_CHARS = 500


@dataclass
class Part:
    """An element with what its text amounts to."""

    node: int
    tag: str
    role: str
    named: bool
    main: bool
    chars: int = 0
    linked: int = 0
    links: int = 0
    central: bool = False  # holds the page's main heading or its main element
    flat: bool = True  # of a row: its cells hold no headings, tables or preformatted text
    filled: int = 0  # of a row: cells with text; of a table: rows with several
    sample: str = ""
    parts: list[Part] = field(default_factory=list)

    @property
    def prose(self) -> int:
        return self.chars - self.linked

    def takes(self, share: float) -> bool:
        return self.linked > share * self.chars


@dataclass
class Layout:
    """Nodes by their ``mem_id``: rows to be written on one line, tables whose empty cells count,
    parts that are left out."""

    rows: set[int] = field(default_factory=set)
    tables: set[int] = field(default_factory=set)
    dropped: dict[int, str] = field(default_factory=dict)

    def left_out(self) -> list[LeftOut]:
        if not self.dropped:
            return []
        samples = [sample for sample in self.dropped.values() if sample][:SAMPLES]
        return [LeftOut(FURNITURE, len(self.dropped), tuple(samples))]


def measure(root: LexborNode, main_text: bool | None) -> Layout:
    layout = Layout()
    top = Part(0, "", "", False, False)
    open_parts = [top]
    link = 0  # depth of links that are open
    for node, entering in _events(root):
        tag = node.tag or ""
        if node.is_text_node:
            text = (node.text_content or "").strip()
            if text:
                _count(open_parts[-1], text, bool(link))
        elif tag == "a":
            link += 1 if entering else -1
            open_parts[-1].links += entering
        elif tag in PARTS or tag in ("th", "caption"):
            if entering:
                open_parts.append(_part(node, tag))
            else:
                _close(open_parts, layout)
        elif entering and (tag in HEADINGS or tag == "pre"):
            open_parts[-1].flat = False
            open_parts[-1].central |= tag == "h1"
    if main_text is not False:
        _drop(top, layout, main_text)
    return layout


def _events(root: LexborNode) -> Iterator[tuple[LexborNode, bool]]:
    """Every node once, elements also when they end; nothing inside what has no text to show."""
    node: LexborNode | None = root
    while node is not None:
        yield node, True
        below = None if node.tag in SILENT else node.first_child
        while below is None:
            if not node.is_text_node:
                yield node, False
            if node.mem_id == root.mem_id:
                return
            below = node.next
            if below is None:
                parent = node.parent
                if parent is None:
                    return
                node = parent
        node = below


def _part(node: LexborNode, tag: str) -> Part:
    attributes = node.attributes
    role = (attributes.get("role") or "").lower()
    names = f"{attributes.get('class') or ''} {attributes.get('id') or ''}"
    main = tag in ("main", "article") or role == "main"
    named = bool(names.strip()) and NAMES.search(names[:500]) is not None
    return Part(node.mem_id, tag, role, named, main)


def _count(part: Part, text: str, linked: bool) -> None:
    part.chars += len(text)
    part.linked += len(text) * linked
    if len(part.sample) < SAMPLE_CHARS:
        part.sample = f"{part.sample} {' '.join(unmark(text[:300]).split())}".strip()[:SAMPLE_CHARS]


def _close(open_parts: list[Part], layout: Layout) -> None:
    part = open_parts.pop()
    above = open_parts[-1]
    above.chars += part.chars
    above.linked += part.linked
    above.links += part.links
    above.central |= part.central or part.tag == "main" or part.role == "main"
    above.flat &= part.flat and part.tag != "table"
    if len(above.sample) < SAMPLE_CHARS:
        above.sample = f"{above.sample} {part.sample}".strip()[:SAMPLE_CHARS]
    if part.tag in ("td", "th"):
        above.filled += part.chars > 0
    elif part.tag == "tr":
        if part.flat and part.chars <= ROW_CHARS:
            layout.rows.add(part.node)
            above.filled += part.filled > 1
    elif part.tag == "tbody":
        above.filled += part.filled
    elif part.tag == "table" and part.filled > 1:
        layout.tables.add(part.node)
    if part.tag in PARTS:
        above.parts.append(part)


def _drop(top: Part, layout: Layout, main_text: bool | None) -> None:
    dropped: list[Part] = []
    waiting = [(part, False, False) for part in reversed(top.parts)]
    while waiting:
        part, inside, beside = waiting.pop()
        bulk = part.prose > BULK * top.prose and part.prose > BULK_CHARS
        if part.chars and not bulk and _is_furniture(part, inside, beside):
            dropped.append(part)
        else:
            own = part.prose - sum(inner.prose for inner in part.parts)
            around = inside or part.main, beside or own > BESIDE_CHARS
            waiting += [(inner, *around) for inner in reversed(part.parts)]
    gone = sum(part.chars for part in dropped)
    stays = top.chars - gone
    prose = top.prose - sum(part.prose for part in dropped)
    if not stays or (
        main_text is None and (gone < FURNITURE_SHARE * top.chars or prose < MAIN_CHARS)
    ):
        return
    layout.dropped = {part.node: part.sample for part in dropped}


def _is_furniture(part: Part, inside: bool, beside: bool) -> bool:
    """Whether a part surrounds the text. ``inside``: it stands in the main part or an article;
    ``beside``: between paragraphs.

    In doubt it does not: nothing with much text of its own, or with the page's heading, does.
    """
    if part.central or part.main or part.prose > PROSE_CHARS or part.tag in ("html", "body"):
        return False
    if part.tag == "nav" or part.role in ("navigation", "banner", "contentinfo", "search"):
        return True
    if not inside and part.tag in ("header", "footer"):
        return True
    if part.named or (not inside and (part.tag == "aside" or part.role == "complementary")):
        return part.takes(MOSTLY_LINKED if inside or beside else LINKED)
    return not inside and not beside and part.links >= LINKS and part.takes(MOSTLY_LINKED)
