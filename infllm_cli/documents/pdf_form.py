"""What was filled in or noted on a PDF's page: form values, added text, comments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# What most forms call a ticked box: it says nothing beyond that.
TICKED = frozenset(("yes", "on", "1", "true", "ja", "oui", "x"))
UNTICKED = ("", "Off")
# By pdfium's and by PDF's names. A pop-up shows its parent's text; a link has none of its own.
SILENT = frozenset(("Link", "Popup", "Widget"))


@dataclass(frozen=True)
class Field:
    """One place of a form. ``kind``: text, choice, checkbox, radio or signature.

    ``value`` is the field's, ``export`` what this box or button stands for; ``shown`` whether its
    appearance is the ticked one.
    """

    kind: str
    name: str
    value: str
    export: str = ""
    shown: bool = False

    @property
    def ticked(self) -> bool:
        if self.value in UNTICKED:
            return self.shown
        return self.shown or not self.export or self.value == self.export


@dataclass(frozen=True)
class Comment:
    """A markup annotation. ``kind`` as PDF names it: Text, FreeText, Highlight, Stamp, ..."""

    kind: str
    text: str
    author: str = ""


def notes(fields: Sequence[Field], comments: Iterable[Comment]) -> list[str]:
    """Lines that say what was filled in, ticked and noted. Text fields left empty say nothing; a
    box left empty does."""
    lines: list[str] = []
    groups: dict[str, list[Field]] = {}
    for field in fields:
        if field.kind == "radio":
            if field.name not in groups:
                groups[field.name] = []
                lines.append(field.name)  # holds the group's place
            groups[field.name].append(field)
        elif field.kind == "checkbox":
            mark = "[x]" if field.ticked else "[ ]"
            means = field.export or field.value
            told = field.ticked and means not in UNTICKED and means.casefold() not in TICKED
            lines.append(f"{mark} {field.name}" + (f": {means}" if told else ""))
        elif field.value.strip():
            lines.append(f"{field.name}: {field.value.strip()}")
    lines = [_chosen(line, groups[line]) if line in groups else line for line in lines]
    for comment in comments:
        text = comment.text.strip()
        if not text or comment.kind in SILENT:
            continue
        if comment.kind == "FreeText":
            lines.append(f"Added text: {text}")
        else:
            by = f" by {comment.author.strip()}" if comment.author.strip() else ""
            lines.append(f"Comment{by}: {text}")
    return lines


def _chosen(name: str, buttons: list[Field]) -> str:
    chosen = [button for button in buttons if button.ticked]
    if not chosen:
        return f"[ ] {name}"
    return f"{name}: {chosen[0].export or chosen[0].value}"
