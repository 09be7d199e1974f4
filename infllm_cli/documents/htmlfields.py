"""Text of elements that hold it in attributes: fields of forms, images."""

from __future__ import annotations

from selectolax.lexbor import LexborNode

from infllm.cli.documents.htmlsource import unmark
from infllm.cli.documents.words import words

VALUELESS = words("hidden password file image color range")
SAMPLE_CHARS = 60
SHORT = 2  # an image of so many letters is one of them: an initial, a smiley
FORMULA = ("{", "\\", "$")

Attributes = dict[str, str | None]


def image_text(attributes: Attributes) -> str:
    """What stands for an image: letters and formulas as they are, descriptions in brackets."""
    text = unmark(
        attributes.get("alt") or attributes.get("aria-label") or attributes.get("title") or ""
    ).strip()
    if len(text) <= SHORT or text.startswith(FORMULA):
        return text
    return f"[image: {text}]"


def input_text(attributes: Attributes) -> str:
    """What an input field shows: its value, whether it is chosen, its button's text."""
    kind = (attributes.get("type") or "text").strip().lower()
    chosen = "checked" in attributes
    if kind == "checkbox":
        return "[x]" if chosen else "[ ]"
    if kind == "radio":
        return "(x)" if chosen else "( )"
    if kind == "image":
        return image_text(attributes)
    value = (attributes.get("value") or "").strip()
    return f"[{value}]" if value and kind not in VALUELESS else ""


def chosen(select: LexborNode) -> list[str]:
    """Options of a list that are chosen; of one that shows a single option, else the first."""
    options = select.css("option")
    selected = [option for option in options if "selected" in option.attributes]
    if not selected and options and "multiple" not in select.attributes:
        selected = options[:1]
    return [f"[{_label(option)}]" for option in selected if _label(option)]


def not_chosen(select: LexborNode) -> list[str]:
    shown = set(chosen(select))
    labels = [_label(option) for option in select.css("option")]
    return [label[:SAMPLE_CHARS] for label in labels if label and f"[{label}]" not in shown]


def _label(option: LexborNode) -> str:
    return " ".join(unmark(option.attributes.get("label") or option.text()).split())
