"""Footnotes and endnotes: numbered in the order of their marks, read where they are referred to."""

from __future__ import annotations

from collections.abc import Callable
from xml.etree.ElementTree import Element

from infllm.cli.documents.docx_package import Package
from infllm.cli.documents.docx_styles import attribute, child, value
from infllm.cli.documents.numerals import numeral
from infllm.cli.documents.tally import Tally
from infllm.cli.documents.xmltree import local

USUAL_FORMAT = {"footnote": "decimal", "endnote": "lowerRoman"}
SEPARATORS = frozenset({"separator", "continuationSeparator", "continuationNotice"})


class Notes:
    """The notes of a document. ``read(note, part)`` gives the text of one."""

    def __init__(self, package: Package, settings: Element | None):
        self.package = package
        self.read: Callable[[Element, str], str] = lambda note, part: ""
        self.parts: dict[str, str] = {}
        self.notes: dict[tuple[str, str], Element] = {}
        self.formats = dict(USUAL_FORMAT)
        self.numbers: dict[str, int] = {}
        self.referred: dict[tuple[str, str], str] = {}
        self.custom = 0
        self.missing: dict[str, int] = {}
        for kind in USUAL_FORMAT:
            self._settings(kind, child(settings, f"{kind}Pr"))
            name = package.related(f"{kind}s")
            root = package.part(name) if name is not None else None
            if root is None or name is None:
                continue
            self.parts[kind] = name
            for note in root:
                if local(note.tag) == kind and attribute(note, "type") not in SEPARATORS:
                    self.notes.setdefault((kind, attribute(note, "id") or ""), note)

    def _settings(self, kind: str, properties: Element | None) -> None:
        self.formats[kind] = value(child(properties, "numFmt")) or self.formats[kind]
        start = value(child(properties, "numStart")) or "1"
        self.numbers[kind] = int(start) - 1 if start.isdecimal() else 0

    def refer(self, kind: str, note_id: str, *, custom: bool) -> tuple[str, str]:
        """Mark of a reference, and the note's text where it is referred to first."""
        key = kind, note_id
        if key in self.referred:
            return self.referred[key], ""
        if custom:  # the author's own mark follows as text
            self.custom += 1
            label = f"note {self.custom}"
        else:
            self.numbers[kind] += 1
            label = numeral(self.numbers[kind], self.formats[kind])
            if kind == "endnote" and self.formats[kind] == self.formats["footnote"]:
                label = f"endnote {label}"
        self.referred[key] = f"[^{label}]"
        note = self.notes.get(key)
        if note is None:
            self.missing[kind] = self.missing.get(kind, 0) + 1
            return self.referred[key], ""
        return self.referred[key], self.read(note, self.parts[kind])

    def tell(self, tally: Tally) -> list[str]:
        """Warnings about notes that are gone; notes that nothing refers to are counted."""
        for key, note in self.notes.items():
            if key not in self.referred:
                text = "".join(t.text or "" for t in note.iter() if local(t.tag) == "t")
                if text.strip():
                    tally.add(f"{key[0]} that nothing refers to", text)
        return [f"{count} {kind}s are missing" for kind, count in self.missing.items()]
