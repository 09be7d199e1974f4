"""Equations of Word documents on one line, so that fractions and powers keep their meaning."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from infllm.cli.documents.docx_styles import child, value
from infllm.cli.documents.xmltree import local

PROPERTIES = "Pr"  # elements so named hold settings, no content


def linear(element: Element) -> str:
    """The text of an ``m:oMath`` or of a part of one."""
    return "".join(_one(child) for child in element)


def _one(element: Element) -> str:
    tag = local(element.tag)
    if tag == "t":
        return element.text or ""
    if tag == "f":
        over = _grouped(element, "num"), _grouped(element, "den")
        return f"{over[0]}/{over[1]}"
    if tag == "sSup":
        return f"{_grouped(element, 'e')}^{_grouped(element, 'sup')}"
    if tag == "sSub":
        return f"{_grouped(element, 'e')}_{_grouped(element, 'sub')}"
    if tag == "sSubSup":
        return f"{_grouped(element, 'e')}_{_grouped(element, 'sub')}^{_grouped(element, 'sup')}"
    if tag == "sPre":
        return f"_{_grouped(element, 'sub')}^{_grouped(element, 'sup')}{_grouped(element, 'e')}"
    if tag == "rad":
        degree = _part(element, "deg")
        root = f"root_{degree}" if degree else "√"
        return f"{root}({_part(element, 'e')})"
    if tag == "nary":
        sign = _setting(element, "naryPr", "chr", "∫")
        lower, upper = _part(element, "sub"), _part(element, "sup")
        bounds = (f"_({lower})" if lower else "") + (f"^({upper})" if upper else "")
        return f"{sign}{bounds} {_part(element, 'e')}"
    if tag == "d":
        begin, end = (_setting(element, "dPr", k, d) for k, d in (("begChr", "("), ("endChr", ")")))
        between = _setting(element, "dPr", "sepChr", "|")
        return begin + between.join(linear(e) for e in element if local(e.tag) == "e") + end
    if tag == "func":
        return f"{_part(element, 'fName')} {_grouped(element, 'e')}"
    if tag in ("limLow", "limUpp"):
        return f"{_part(element, 'e')}{'_' if tag == 'limLow' else '^'}({_part(element, 'lim')})"
    if tag == "acc":
        return _part(element, "e") + _setting(
            element, "accPr", "chr", "\N{COMBINING CIRCUMFLEX ACCENT}"
        )
    if tag == "m":
        rows = (row for row in element if local(row.tag) == "mr")
        return "[" + "; ".join(", ".join(linear(e) for e in row) for row in rows) + "]"
    if tag == "eqArr":
        return "; ".join(linear(e) for e in element if local(e.tag) == "e")
    if tag.endswith(PROPERTIES) or tag in ("del", "moveFrom"):
        return ""
    return linear(element)


def _part(element: Element, tag: str) -> str:
    found = child(element, tag)
    return linear(found) if found is not None else ""


def _grouped(element: Element, tag: str) -> str:
    text = _part(element, tag)
    return text if len(text) <= 1 or text.isalnum() else f"({text})"


def _setting(element: Element, properties: str, name: str, otherwise: str) -> str:
    found = child(child(element, properties), name)
    return otherwise if found is None else value(found) or ""
