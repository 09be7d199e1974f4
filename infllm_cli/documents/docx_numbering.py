"""Numbers and symbols of list paragraphs, counted as Word counts them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from infllm.cli.documents.docx_styles import Styles, attribute, child, is_on, value
from infllm.cli.documents.docx_symbols import symbol
from infllm.cli.documents.numerals import numeral
from infllm.cli.documents.xmltree import local

LEVELS = 9
PLACE = re.compile(r"%([1-9])")
BULLET = "•"


@dataclass
class Level:
    start: int = 1
    format: str = "decimal"
    pattern: str = ""
    text: str = ""  # of the number, %1 being the first level's
    restart: int | None = None  # after which level (from 1) it begins again; 0: never
    legal: bool = False
    font: str = ""
    style: str | None = None
    hidden: bool = False


@dataclass
class List:
    levels: dict[int, Level] = field(default_factory=dict)
    style_link: str | None = None  # the numbering style whose list this is
    num_style_link: str | None = None  # the numbering style that holds the levels instead


@dataclass
class Instance:
    list_id: str
    levels: dict[int, Level] = field(default_factory=dict)
    starts: dict[int, int] = field(default_factory=dict)
    begun: set[int] = field(default_factory=set)


class Numbering:
    """The lists of a document and how far each has been counted."""

    def __init__(self, root: Element | None, styles: Styles):
        self.styles = styles
        self.lists: dict[str, List] = {}
        self.instances: dict[str, Instance] = {}
        self.counts: dict[str, dict[int, int]] = {}
        for element in root if root is not None else ():
            tag = local(element.tag)
            if tag == "abstractNum":
                self.lists[attribute(element, "abstractNumId") or ""] = _list(element)
            elif tag == "num":
                self.instances[attribute(element, "numId") or ""] = _instance(element)

    def label(self, properties: Element | None, style_id: str | None) -> str:
        """Number or symbol of the next paragraph with these properties; empty for none."""
        num_id, depth = self._place(properties, style_id)
        instance = self.instances.get(num_id or "")
        if instance is None:
            return ""
        list_id, numbered = self._resolve(instance)
        level = instance.levels.get(depth) or numbered.levels.get(depth)
        if level is None:
            return ""
        counts = self._count(list_id, numbered, instance, depth, level)
        if level.hidden:
            return ""
        if level.format == "bullet":
            return symbol(level.text, level.font, BULLET) if level.text else BULLET
        return self._text(level, counts, numbered, instance)

    def _place(self, properties: Element | None, style_id: str | None) -> tuple[str | None, int]:
        """Number instance and level, given directly or by the style."""
        direct = child(properties, "numPr")
        num_id = value(child(direct, "numId"))
        depth = _integer(value(child(direct, "ilvl")))
        if num_id is not None and depth is not None:
            return num_id, depth
        for style in self.styles.chain(style_id):
            inherited = child(style.paragraph, "numPr")
            if num_id is None:
                num_id = value(child(inherited, "numId"))
            if depth is None:
                depth = _integer(value(child(inherited, "ilvl")))
        if depth is None and num_id in self.instances:
            depth = self._level_of_style(self.instances[num_id], style_id)
        return num_id, depth or 0

    def _level_of_style(self, instance: Instance, style_id: str | None) -> int | None:
        _, numbered = self._resolve(instance)
        levels = numbered.levels | instance.levels
        return next(
            (n for n, level in levels.items() if style_id and level.style == style_id), None
        )

    def _resolve(self, instance: Instance) -> tuple[str, List]:
        """The list that an instance counts, through a numbering style where it names one."""
        found = self.lists.get(instance.list_id, List())
        if found.num_style_link and not found.levels:
            for list_id, other in self.lists.items():
                if other.style_link == found.num_style_link:
                    return list_id, other
        return instance.list_id, found

    def _count(
        self, list_id: str, numbered: List, instance: Instance, depth: int, level: Level
    ) -> dict[int, int]:
        counts = self.counts.setdefault(list_id, {})
        if depth in instance.starts and depth not in instance.begun:
            counts[depth] = instance.starts[depth]
        elif depth in counts:
            counts[depth] += 1
        else:
            counts[depth] = level.start
        instance.begun.add(depth)
        for above in range(depth):
            if above not in counts:
                upper = instance.levels.get(above) or numbered.levels.get(above)
                counts[above] = instance.starts.get(above, upper.start if upper else 1)
                instance.begun.add(above)
        for below in [number for number in counts if number > depth]:
            lower = instance.levels.get(below) or numbered.levels.get(below)
            restart = lower.restart if lower is not None else None
            if restart is None or (restart and depth < restart):
                del counts[below]
        return counts

    def _text(
        self, level: Level, counts: dict[int, int], numbered: List, instance: Instance
    ) -> str:
        def place(match: re.Match[str]) -> str:
            number = int(match[1]) - 1
            upper = instance.levels.get(number) or numbered.levels.get(number)
            if upper is None or upper.format == "bullet":
                return ""
            count = counts.get(number, upper.start)
            return numeral(count, "decimal" if level.legal else upper.format, upper.pattern)

        return PLACE.sub(place, level.text).strip()


def _list(element: Element) -> List:
    found = List()
    for one in element:
        tag = local(one.tag)
        if tag == "lvl":
            number = _integer(attribute(one, "ilvl"))
            if number is not None and number < LEVELS:
                found.levels[number] = _level(one)
        elif tag == "styleLink":
            found.style_link = value(one)
        elif tag == "numStyleLink":
            found.num_style_link = value(one)
    return found


def _instance(element: Element) -> Instance:
    found = Instance(value(child(element, "abstractNumId")) or "")
    for one in element:
        number = _integer(attribute(one, "ilvl"))
        if local(one.tag) != "lvlOverride" or number is None:
            continue
        level = child(one, "lvl")
        if level is not None:
            found.levels[number] = _level(level)
        start = _integer(value(child(one, "startOverride")))
        if start is not None:
            found.starts[number] = start
    return found


def _level(element: Element) -> Level:
    number_format = next((one for one in element.iter() if local(one.tag) == "numFmt"), None)
    run = child(element, "rPr")
    fonts = child(run, "rFonts")
    return Level(
        _default(_integer(value(child(element, "start"))), 1),
        value(number_format) or "decimal",
        (attribute(number_format, "format") or "") if number_format is not None else "",
        value(child(element, "lvlText")) or "",
        _integer(value(child(element, "lvlRestart"))),
        bool(is_on(child(element, "isLgl"))),
        (attribute(fonts, "ascii") or attribute(fonts, "hAnsi") or "") if fonts is not None else "",
        value(child(element, "pStyle")),
        bool(is_on(child(run, "vanish"))),
    )


def _default(number: int | None, otherwise: int) -> int:
    return otherwise if number is None else number


def _integer(text: str | None, parse: Callable[[str], int] = int) -> int | None:
    try:
        return parse(text) if text is not None else None
    except ValueError:
        return None
