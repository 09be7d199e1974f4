"""One pass over a page's tree that writes what is shown."""

from __future__ import annotations

from selectolax.lexbor import LexborNode

from infllm.cli.documents.document import LeftOut, SpanBuilder
from infllm.cli.documents.htmlfields import Attributes, chosen, image_text, input_text, not_chosen
from infllm.cli.documents.htmlmain import HEADINGS, SAMPLE_CHARS, SAMPLES, Layout
from infllm.cli.documents.htmlnodes import (
    FORMATTING,
    NOT_SHOWN,
    SCRIPTS,
    SPACE,
    elements_before,
    heading,
    is_compound,
    one_line,
    script_mark,
)
from infllm.cli.documents.htmlsource import BLOCKS, LINE, unmark
from infllm.cli.documents.htmlstyle import (
    Numbering,
    Sight,
    declarations,
    integer,
    numbering,
    script_of,
)
from infllm.cli.documents.htmltable import Table
from infllm.cli.documents.words import words

# A blank line around these; other blocks only begin a new line.
PARAGRAPHS = words(
    """article aside blockquote dl figure h1 h2 h3 h4 h5 h6 header footer main nav ol p pre section
    table ul"""
)
LISTS = words("ol ul menu dir")
ELSEWHERE = {
    "iframe": "embedded page",
    "video": "video",
    "audio": "sound",
    "canvas": "drawing made by a script",
}
CHAPTER_CHARS = 200


class Walk:
    """Without recursion: pages may be nested deep."""

    def __init__(self, out: SpanBuilder, chapter: str | None, layout: Layout):
        self.out = out
        self.chapter = chapter
        self.layout = layout
        self.hidden = 0
        self.missing: dict[str, list[str]] = {}  # what is not in the text, with names
        self.line: int | None = None
        self.last = ""  # last character written
        self.newlines = 2  # newlines at the end of the output; a page begins at a fresh line
        self.wanted = 0  # newlines due before the next text
        self.gap = ""  # space due before the next text of the same line
        self.bullet = ""  # of the list item whose first text is due
        self.mark = ""  # due before text that would join the word before it
        self.marked = False  # such text came last: what follows would join it
        self.script_ended = False
        self.scripts: list[int] = []  # raised and lowered elements that are open
        self.heading = 0
        self.pre = 0
        self.row = 0  # depth inside rows that are written on one line
        self.cells = 0  # separators of cells due before the next text
        self.formula = 0
        self.closing: list[tuple[int, str]] = []  # brackets of a formula that are open
        self.readings: list[str] | None = None  # of the ruby text that is open
        self.reading: list[str] | None = None  # the one that is being collected
        self.lists: list[Numbering] = []
        self.tables: list[Table] = []
        self.sight = Sight()
        self.sights: list[tuple[int, Sight]] = []  # to go back to when an element ends
        self.image = ""

    def left_out(self) -> list[LeftOut]:
        return [
            LeftOut(what, len(names), tuple(name for name in names if name)[:SAMPLES])
            for what, names in self.missing.items()
        ]

    def run(self, root: LexborNode) -> None:
        node: LexborNode | None = root
        while node is not None:
            below = node.first_child if self._enter(node) else None
            if below is not None:
                node = below
                continue
            while node is not None:
                if not node.is_text_node:
                    self._leave(node)
                if node.mem_id == root.mem_id:
                    return
                following = node.next
                if following is not None:
                    node = following
                    break
                node = node.parent

    def _enter(self, node: LexborNode) -> bool:
        """Text is written, a start tag takes effect. False: nothing below is to be seen."""
        if node.is_text_node:
            self._text(node.text_content or "")
            return False
        tag = node.tag
        if tag is None or tag.startswith("-"):
            return tag == "-document"
        if tag in NOT_SHOWN or (self.layout.dropped and node.mem_id in self.layout.dropped):
            return False
        attributes = node.attributes
        if not self._seen(node, tag, attributes):
            return False
        line = attributes.get(LINE)
        if line is not None and line.isdecimal():
            self.line = int(line)
        if self.formula:
            self._formula_part(node, tag)
        else:
            script = script_of(tag, attributes)
            if script:
                self._script(node, script)
        return self._begin(node, tag, attributes)

    def _seen(self, node: LexborNode, tag: str, attributes: Attributes) -> bool:
        """Whether anything of an element may be seen; takes note of what its style says."""
        hidden = "hidden" in attributes and attributes["hidden"] != "until-found"
        style = attributes.get("style")
        if style:
            declared = declarations(style)
            hidden = hidden or declared.get("display") == "none"
            sight = self.sight.under(declared)
            if sight != self.sight and not hidden:
                self.sights.append((node.mem_id, self.sight))
                self.sight = sight
        if hidden and tag != "nav":  # books hide the lists that only reading systems use
            self.hidden += len(node.text().strip())
        return not hidden

    def _begin(self, node: LexborNode, tag: str, attributes: Attributes) -> bool:
        if tag == "br":
            self._break()
        elif tag in BLOCKS:
            self._block(node, tag, attributes)
        elif tag in ("td", "th"):
            self._cell(attributes)
        elif tag == "ruby":
            self.readings = self.readings or []
        elif tag in ("rt", "rtc"):
            self.reading = [] if self.reading is None else self.reading
        elif tag in ("img", "image", "area"):
            self._image(attributes)
        elif tag == "input":
            self._field(input_text(attributes))
        elif tag == "select":
            self._field(", ".join(chosen(node)))
            self.missing.setdefault("option not chosen", []).extend(not_chosen(node))
            if not self.missing["option not chosen"]:
                del self.missing["option not chosen"]
            return False
        elif tag == "textarea":
            for number, written in enumerate(unmark(node.text()).strip().split("\n")):
                if number:
                    self._break()
                self._field(written)
            return False
        elif tag in ELSEWHERE:
            name = attributes.get("title") or attributes.get("src") or ""
            self.missing.setdefault(ELSEWHERE[tag], []).append(name[:SAMPLE_CHARS])
            return False
        elif tag == "button":
            self.gap = self.gap or " "
        elif tag == "a":
            before = node.prev
            if before is not None and before.tag == "a":
                self.gap = self.gap or " "  # entries of a menu
        elif tag == "q":
            self._text("“")
        elif tag == "math":
            self.formula += 1
        return True

    def _block(self, node: LexborNode, tag: str, attributes: Attributes) -> None:
        self.newlines_due(2 if tag in PARAGRAPHS else 1)
        if tag in HEADINGS:
            if not self.heading:
                self.chapter = heading(node)[:CHAPTER_CHARS] or self.chapter
            self.heading += 1
        elif tag in LISTS:
            self.lists.append(numbering(node, tag, attributes))
        elif tag == "li":
            mark = self.lists[-1].mark(integer(attributes.get("value"))) if self.lists else "- "
            # An item that begins with a list: "1. a. text".
            self.bullet = self.bullet + mark if self.bullet != "- " else mark
        elif tag == "pre":
            self.pre += 1
        elif tag == "table":
            self.tables.append(Table(node.mem_id in self.layout.tables))
        elif tag == "tr":
            self.cells = 0
            if self.tables:
                self.tables[-1].start_row()
            if node.mem_id in self.layout.rows:
                self.row += 1
        elif tag == "svg" and (attributes.get("aria-label") or node.css_first("title")):
            title = node.css_first("title")
            name = attributes.get("aria-label") or (title.text() if title is not None else "")
            self._text(f" [image: {one_line(name)}] ")

    def _leave(self, node: LexborNode) -> None:
        tag = node.tag
        if self.sights and self.sights[-1][0] == node.mem_id:
            self.sight = self.sights.pop()[1]
        if self.closing and self.closing[-1][0] == node.mem_id:
            self._glue(self.closing.pop()[1])
        if self.scripts and self.scripts[-1] == node.mem_id:
            self.scripts.pop()
            self.mark, self.script_ended = "", not self.scripts
        if tag in BLOCKS:
            self._end_block(tag, node)
        elif tag == "rt" and self.reading is not None:
            reading, self.reading = "".join(self.reading).strip(), None
            if self.readings is None:  # without a base
                self._text(f" ({reading})" if reading else "")
            elif reading:
                self.readings.append(reading)
        elif tag == "ruby":
            self._end_ruby(node)
        elif tag == "button":
            self.gap = self.gap or " "
        elif tag == "q":
            self._text("”")
        elif tag == "math":
            self.formula = max(0, self.formula - 1)

    def _end_block(self, tag: str, node: LexborNode) -> None:
        self.newlines_due(2 if tag in PARAGRAPHS else 1)
        if tag == "pre":
            self.pre = max(0, self.pre - 1)
        elif tag in HEADINGS:
            self.heading = max(0, self.heading - 1)
        elif tag == "li":
            self.bullet = ""
        elif tag in LISTS and self.lists:
            self.lists.pop()
        elif tag == "table" and self.tables:
            self.tables.pop()
        elif tag == "tr":
            if node.mem_id in self.layout.rows:
                self.row = max(0, self.row - 1)
                self.newlines_due(1)
            if self.tables:
                self.tables[-1].end_row()

    def _break(self) -> None:
        if self.row:
            self.gap = self.gap or " "
        else:
            self.wanted = min(self.wanted + 1 if self.wanted else 1, 2)
            self.gap = ""

    def newlines_due(self, count: int) -> None:
        if self.row:
            self.gap = self.gap or " "
            return
        self.wanted = max(self.wanted, min(count, 2))
        self.gap = ""

    def _cell(self, attributes: Attributes) -> None:
        table = self.tables[-1] if self.tables else Table(False)
        self.cells += table.cell(attributes)

    def _script(self, node: LexborNode, tag: str) -> None:
        """Raised or lowered text, set apart where it would join what stands before it."""
        self.scripts.append(node.mem_id)
        if len(self.scripts) > 1:
            return
        self.mark = script_mark(node, tag, self.last)

    def _end_ruby(self, node: LexborNode) -> None:
        """Readings in brackets behind the base; a word of several bases keeps together."""
        self.reading = None
        following = node.next
        if not self.readings or (following is not None and following.tag == "ruby"):
            return
        gap = "" if any(ord(char) > 0x2E7F for char in self.readings[0]) else " "
        readings, self.readings = self.readings, None
        self._glue(f"({gap.join(readings)})")

    def _formula_part(self, node: LexborNode, tag: str) -> None:
        parent = node.parent
        signs = SCRIPTS.get(parent.tag or "") if parent is not None else None
        number = elements_before(node) if signs else 0
        if signs and 0 < number <= len(signs):
            self._glue(signs[number - 1])
        elif tag in ("mn", "mfrac") and self.last.isdigit():
            self.gap = self.gap or " "
        if signs and is_compound(node):
            self._open(node, "(")
        elif tag == "msqrt":
            self._open(node, "√(")
        elif tag == "mtr":
            self.newlines_due(1)
        elif tag == "mtd":
            self.gap = " "

    def _open(self, node: LexborNode, bracket: str) -> None:
        self._put(bracket)
        self.gap = ""
        self.closing.append((node.mem_id, ")"))

    def _image(self, attributes: Attributes) -> None:
        text = one_line(image_text(attributes))
        if text:
            if text != self.image:  # a page repeats an image for readers without scripts
                self._text(text if len(text) <= 2 else f" {text} ")
            self.image = text
        elif attributes.get("alt") is None and "src" in attributes:
            name = (attributes["src"] or "").partition(",")[0].rsplit("/", 1)[-1]
            self.missing.setdefault("image without text", []).append(name[:SAMPLE_CHARS])

    def _field(self, text: str) -> None:
        if text:
            self._text(f" {text} ")

    def _glue(self, text: str) -> None:
        """Directly behind the last text."""
        self.gap = ""
        self._put(text)
        self.gap = ""

    def _text(self, text: str) -> None:
        text = unmark(text).translate(FORMATTING)
        if self.reading is not None:
            self.reading.append(SPACE.sub(" ", text))
            return
        if self.sight.none:
            self.hidden += len(text.strip())
            return
        if not self.pre or self.row:
            text = SPACE.sub(" ", text)
            if text.startswith(" "):
                text = text[1:]
                if not self.mark:  # 10<sup> 6</sup> is 10<sup>6</sup> all the same
                    self.gap = self.gap or " "
        if not text:
            return
        if self.pre and not self.row:
            self._put(text)
        else:
            self._put(text.rstrip(" "))
            if text.endswith(" "):
                self.gap = " "

    def _put(self, text: str) -> None:
        if not text:
            return
        lead = "\n" * max(0, self.wanted - self.newlines) if self.out.length else ""
        begins_line = bool(lead) or bool(self.newlines)
        if self.cells:
            counts = bool(self.tables) and self.tables[-1].counts_empty
            count = self.cells if counts else 1
            if not begins_line:
                lead = " | " * count
            elif counts and self.row:
                lead += "| " * count
        elif not begins_line:
            lead = self.gap or self._joint(text)
        self.marked = bool(self.mark) if self.scripts else self.marked and not lead
        text = self.bullet + text
        self.wanted, self.gap, self.bullet, self.cells, self.mark = 0, "", "", 0, ""
        self.script_ended = False
        self.out.add(lead, chapter=self.chapter, line=self.line)
        self.out.add(text, chapter=self.chapter, line=self.line)
        if self.pre and self.line is not None:
            self.line += text.count("\n")
        self.newlines = len(text) - len(text.rstrip("\n"))
        self.last = text[-1]

    def _joint(self, text: str) -> str:
        """What keeps raised or lowered text apart from its neighbours without a blank."""
        if self.mark:
            return self.mark if self.last.isalnum() or self.last in '.,;:!?)]”’"' else ""
        if self.script_ended and text[0].isalnum():
            welds = self.last.isdigit() and text[0].isdigit()
            return " " if welds or (self.marked and self.last.isalnum()) else ""
        return ""
