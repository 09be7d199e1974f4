"""Text of charts and diagrams: titles, series and values; the lines of a diagram's boxes."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from infllm.cli.documents.docx_styles import child
from infllm.cli.documents.xmltree import local


def graphic_text(root: Element) -> str:
    """One line for a chart or a diagram; empty where there is no text in it."""
    if local(root.tag) == "chartSpace":
        return _chart(root)
    lines = [_paragraphs(point) for point in root.iter() if local(point.tag) == "pt"]
    lines = [line for line in lines if line]
    return f"diagram: {'; '.join(lines)}" if lines else ""


def _chart(root: Element) -> str:
    titles = [_paragraphs(one) for one in root.iter() if local(one.tag) == "title"]
    series = [_series(one) for one in root.iter() if local(one.tag) == "ser"]
    found = [text for text in (*titles, *series) if text]
    return f"chart: {'; '.join(found)}" if found else ""


def _series(element: Element) -> str:
    name = " ".join(_points(child(element, "tx")).values())
    labels = _points(_first(element, "cat", "xVal"))
    values = _points(_first(element, "val", "yVal"))
    pairs = [
        f"{labels[index]} = {value}" if index in labels else value
        for index, value in values.items()
    ]
    return f"{name}: {', '.join(pairs)}" if name and pairs else name or ", ".join(pairs)


def _first(element: Element, *tags: str) -> Element | None:
    return next((one for one in element if local(one.tag) in tags), None)


def _points(element: Element | None) -> dict[str, str]:
    """Values that a chart keeps of its data, by their place."""
    points: dict[str, str] = {}
    for one in element.iter() if element is not None else ():
        if local(one.tag) == "pt":
            text = "".join(v.text or "" for v in one if local(v.tag) == "v").strip()
            index = one.get("idx", str(len(points)))
            points[index] = f"{points[index]} {text}" if index in points else text
        elif local(one.tag) == "v" and not points and element is not None:
            plain = (one.text or "").strip()
            if child(element, "v") is one and plain:
                points["0"] = plain
    return points


def _paragraphs(element: Element) -> str:
    lines = []
    for paragraph in element.iter():
        if local(paragraph.tag) == "p":
            text = "".join(t.text or "" for t in paragraph.iter() if local(t.tag) == "t")
            lines.append(" ".join(text.split()))
    return " ".join(line for line in lines if line)
