"""Small XML files (package documents, Word bodies), with entity declarations refused."""

from __future__ import annotations

from xml.etree import ElementTree

from infllm.cli.documents.errors import Unreadable


def parse_xml(data: bytes, source: str, name: str) -> ElementTree.Element:
    """Root of an XML file. Raises Unreadable.

    Expat loads no external entities and bounds the expansion of internal ones; no valid EPUB or
    DOCX declares any, so files that do are refused outright.
    """
    if b"<!ENTITY" in data or "<!ENTITY".encode("utf-16-le") in data:
        raise Unreadable(f"{source}: {name} declares XML entities, which is refused")
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise Unreadable(f"{source}: {name} is not well-formed XML ({error})") from error


def local(tag: object) -> str:
    """Tag or attribute name without its namespace; empty for comments."""
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""
