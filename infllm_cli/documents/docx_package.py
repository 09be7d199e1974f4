"""The parts of a Word document's package, and how they refer to each other."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from infllm.cli.documents.archive import Members
from infllm.cli.documents.errors import Unreadable
from infllm.cli.documents.xmltree import local, parse_damaged_xml

PACKAGE_RELATIONS = "_rels/.rels"
CONTENT_TYPES = "[Content_Types].xml"
MAIN_TYPE = re.compile(r"(?:wordprocessingml|ms-word)\..{0,80}main\+xml$")
USUAL_MAIN = "word/document.xml"
MAIN = "officeDocument"
OTHER_FORMATS = ("xl/", "ppt/", "visio/")


@dataclass(frozen=True)
class Relation:
    """``kind`` is the last word of its type; ``target`` a member's name, or an address."""

    id: str
    kind: str
    target: str
    external: bool


def main_part(archive: Members) -> str | None:
    """The Word document inside a package: by its relations, its usual name, or its type."""
    relations = _root(archive, PACKAGE_RELATIONS)
    for relation in _relations(relations, "") if relations is not None else ():
        found = archive.find(relation.target) if relation.kind == MAIN else None
        if found is not None:
            return None if found.lower().startswith(OTHER_FORMATS) else found
    usual = archive.find(USUAL_MAIN)
    types = _root(archive, CONTENT_TYPES) if usual is None else None
    for element in types.iter() if types is not None else ():
        if MAIN_TYPE.search(element.get("ContentType", "")):
            usual = usual or archive.find(element.get("PartName", "").lstrip("/"))
    return usual


def _root(archive: Members, name: str) -> Element | None:
    """Root of a part that other ways may stand in for where it is damaged or missing."""
    found = archive.find(name)
    try:
        data = archive.read(found) if found is not None else b""
        return parse_damaged_xml(data, archive.source, name)[0]
    except Unreadable:
        return None


class Package:
    """Reads parts; one that is missing or damaged leaves a warning and what can be read of it."""

    def __init__(self, archive: Members, main: str):
        self.archive = archive
        self.main = main
        self.warnings = [
            f"several members have the name {name}; the last is read" for name in archive.repeated
        ]
        self._relations: dict[str, dict[str, Relation]] = {}
        self.has_relations = archive.find(_relations_name(main)) is not None

    def part(self, name: str) -> Element | None:
        """Root of a part, as far as it can be read."""
        try:
            root, fault = parse_damaged_xml(self.archive.read(name), self.archive.source, name)
        except Unreadable as error:
            self.warn(f"{error.message.removeprefix(self.archive.source + ': ')}; left out")
            return None
        if fault is not None:
            self.warn(f"{name} is damaged ({fault}); what follows in it is left out")
        return root

    def relations(self, part: str) -> dict[str, Relation]:
        if part not in self._relations:
            name = self.archive.find(_relations_name(part))
            root = self.part(name) if name is not None else None
            found = _relations(root, posixpath.dirname(part)) if root is not None else ()
            self._relations[part] = {relation.id: relation for relation in found}
        return self._relations[part]

    def target(self, part: str, relation_id: str) -> str | None:
        """Member that a part refers to by a relation; None, with a warning, where it is gone."""
        relation = self.relations(part).get(relation_id)
        if relation is None or relation.external:
            return None
        found = self.archive.find(relation.target)
        if found is None:
            self.warn(f"{relation.target} is missing from the archive")
        return found

    def related(self, kind: str) -> str | None:
        """The main part's one part of a kind (styles, footnotes); by its usual name in a package
        that has lost its relations."""
        if not self.has_relations:
            return self.archive.find(posixpath.join(posixpath.dirname(self.main), f"{kind}.xml"))
        for relation in self.relations(self.main).values():
            if relation.kind == kind:
                return self.target(self.main, relation.id)
        return None

    def related_root(self, kind: str) -> Element | None:
        name = self.related(kind)
        return self.part(name) if name is not None else None

    def running_parts(self) -> list[tuple[str, str]]:
        """(kind, member) of every header and footer part."""
        if self.has_relations:
            return [
                (relation.kind, name)
                for relation in self.relations(self.main).values()
                if relation.kind in ("header", "footer")
                and (name := self.target(self.main, relation.id)) is not None
            ]
        folder = posixpath.dirname(self.main)
        return [
            (kind, name)
            for kind in ("header", "footer")
            for name in sorted(self.archive.names)
            if posixpath.dirname(name) == folder
            and posixpath.basename(name).startswith(kind)
            and name.endswith(".xml")
        ]

    def warn(self, warning: str) -> None:
        if warning not in self.warnings:
            self.warnings.append(warning)


def _relations(root: Element, folder: str) -> Iterator[Relation]:
    for element in root.iter():
        if local(element.tag) == "Relationship":
            external = element.get("TargetMode", "").lower() == "external"
            target = element.get("Target", "")
            if not external:
                target = posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/")
            kind = element.get("Type", "").rpartition("/")[2]
            yield Relation(element.get("Id", ""), kind, target, external)


def _relations_name(part: str) -> str:
    folder, name = posixpath.split(part)
    return posixpath.join(folder, "_rels", f"{name}.rels")
