"""Almost XML is mended; what cannot be is told; nothing takes long."""

import contextlib
import time
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infllm.cli.documents import Unreadable
from infllm.cli.documents.xmltree import parse_damaged_xml, parse_xml

SECONDS = 20  # a bound against hanging, not a measurement


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "shift_jis", "utf-8-sig", "euc-jp"])
def test_encodings(encoding: str) -> None:
    declared = "utf-8" if encoding == "utf-8-sig" else encoding
    data = f'<?xml version="1.0" encoding="{declared}"?><a>日本&nbsp;</a>'.encode(encoding)
    assert parse_xml(data, "s", "n").text == "日本\xa0"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark(encoding: str) -> None:
    assert parse_xml("<a>é</a>".encode(encoding), "s", "n").text == "é"


def test_a_declared_encoding_that_is_wrong() -> None:
    data = '<?xml version="1.0" encoding="utf-8"?><a>caf\xe9</a>'.encode("latin-1")
    assert parse_xml(data, "s", "n").text == "café"


def test_namespaces_survive_mending() -> None:
    root = parse_xml(b'<a xmlns="u" xmlns:p="v" p:k="1"><p:b q:c="2">&nbsp;</p:b></a>', "s", "n")
    assert (root.tag, root.attrib) == ("{u}a", {"{v}k": "1"})
    assert (root[0].tag, root[0].attrib) == ("{v}b", {"c": "2"})


def test_what_follows_the_root_is_no_part_of_it() -> None:
    assert parse_xml(b"<a>x</a>\0\0<b/>", "s", "n").text == "x"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be"])
def test_entity_declarations_are_refused(encoding: str) -> None:
    with pytest.raises(Unreadable, match="entities"):
        parse_xml('<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>'.encode(encoding), "s", "n")


def test_up_to_the_first_fault() -> None:
    root, fault = parse_damaged_xml(b"<a><b>one</b><b>two</c><b>three</b></a>", "s", "n")
    assert ["".join(one.itertext()) for one in root] == ["one", "two"]
    assert fault == "mismatched tag: line 1, column 21"
    with pytest.raises(Unreadable, match="not well-formed"):
        parse_xml(b"<a><b>one</b>", "s", "n")


@given(st.text(max_size=50))
def test_sound_xml_says_the_same_mended(text: str) -> None:
    element = ElementTree.Element("a", {"k": "v"})
    element.text = "".join(c for c in text if c.isprintable())
    data = ElementTree.tostring(element, encoding="utf-8")
    mended = parse_xml(b"\n" + data + b"trailing", "s", "n")
    assert (mended.text or "", mended.attrib) == (element.text, {"k": "v"})


@given(st.binary(max_size=200))
def test_any_bytes_give_a_tree_or_an_error(data: bytes) -> None:
    with contextlib.suppress(Unreadable):
        root, _ = parse_damaged_xml(b"<a>" + data, "s", "n")
        assert root.tag == "a"


@pytest.mark.parametrize("piece", ["<!--", "<![CDATA[", "&", "&#", "&a", "<?xml ", "<b ", "<b>"])
def test_no_text_takes_long(piece: str) -> None:
    started = time.monotonic()
    with pytest.raises(Unreadable):
        parse_xml(("<a>&nbsp;<c>" + piece * 200_000).encode(), "s", "n")
    assert time.monotonic() - started < SECONDS
