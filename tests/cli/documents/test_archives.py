"""EPUB and DOCX: reading order, chapters, protection, damage, bombs."""

from pathlib import Path

import pytest

from infllm.cli.documents import (
    Document,
    LimitExceeded,
    Limits,
    NoText,
    Unreadable,
    UnsupportedFormat,
)
from infllm.cli.documents.archive import Archive
from infllm.cli.documents.docx import read_docx
from infllm.cli.documents.epub import read_epub
from tests.cli.documents.make import archive, docx, epub

ENCRYPTION = (
    '<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container" '
    'xmlns:e="http://www.w3.org/2001/04/xmlenc#"><e:EncryptedData>'
    '<e:EncryptionMethod Algorithm="{algorithm}"/>'
    '<e:CipherData><e:CipherReference URI="{target}"/></e:CipherData>'
    "</e:EncryptedData></encryption>"
)
AES = "http://www.w3.org/2001/04/xmlenc#aes256-cbc"


@pytest.fixture
def book(tmp_path: Path):
    def read(data: bytes, limits: Limits | None = None) -> Document:
        path = tmp_path / "book.epub"
        path.write_bytes(data)
        with Archive(str(path), "book.epub", limits or Limits()) as opened:
            return read_docx(opened) if "word/document.xml" in opened.names else read_epub(opened)

    return read


def test_spine_order_and_chapters(book) -> None:
    document = book(epub({"z.xhtml": "<p>lead<h2>One</h2><p>first", "a.xhtml": "<p>second"}))
    assert document.title == "A Book"
    assert document.text == "lead\n\nOne\n\nfirst\n\nsecond"
    chapters = [
        document.origin(document.text.index(w)).chapter for w in ("lead", "first", "second")
    ]
    assert chapters == [None, "One", "One"]


def test_font_obfuscation_is_no_protection(book) -> None:
    font = ENCRYPTION.format(algorithm="http://www.idpf.org/2008/embedding", target="OPS/f.otf")
    assert book(epub({"a.xhtml": "<p>text"}, {"META-INF/encryption.xml": font})).text == "text"


def test_drm_is_refused(book) -> None:
    rights = ENCRYPTION.format(algorithm=AES, target="OPS/a.xhtml")
    with pytest.raises(UnsupportedFormat, match="DRM"):
        book(epub({"a.xhtml": "<p>noise"}, {"META-INF/encryption.xml": rights}))


def test_a_damaged_page_is_left_out_with_a_warning(book) -> None:
    data = epub({"a.xhtml": "<p>kept", "b.xhtml": "<p>gone" + "xyzw" * 99})
    where = data.index(b"OPS/b.xhtml") + len("OPS/b.xhtml")
    broken = data[:where] + bytes(reversed(data[where : where + 8])) + data[where + 8 :]
    document = book(broken)
    assert document.text == "kept"
    assert len(document.warnings) == 1
    assert document.warnings[0].startswith("archive member OPS/b.xhtml is damaged")


def test_without_text(book) -> None:
    with pytest.raises(NoText, match="no text on 1 pages"):
        book(epub({"a.xhtml": "<img src='x.png'/>"}))


def test_entities_are_refused(book) -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>'
    with pytest.raises(Unreadable, match="XML entities"):
        book(archive({"META-INF/container.xml": bomb}))


def test_a_decompression_bomb_is_stopped_early(book) -> None:
    data = epub({"a.xhtml": "<p>" + "a" * 30_000_000})
    with pytest.raises(LimitExceeded, match="200 times its size"):
        book(data)


def test_the_byte_budget_holds_for_all_members_together(book) -> None:
    data = epub({"a.xhtml": "<p>" + "ab " * 300, "b.xhtml": "<p>" + "cd " * 300})
    assert book(data, Limits(archive_bytes=5000))
    with pytest.raises(LimitExceeded, match="unpacks to more than 2000 bytes"):
        book(data, Limits(archive_bytes=2000))


def test_too_many_members(book) -> None:
    with pytest.raises(LimitExceeded, match="6 archive members, 5 allowed"):
        book(archive({str(number): "" for number in range(6)}), Limits(archive_members=5))


@pytest.mark.parametrize("data", [b"PK\x03\x04 and no more", epub({"a.xhtml": "x"})[:-60]])
def test_a_cut_archive(book, data: bytes) -> None:
    with pytest.raises(Unreadable, match="damaged archive"):
        book(data)


def test_word_headings_are_chapters(book) -> None:
    document = book(docx(("Heading1", "One"), ("Normal", "a &amp; b"), ("Heading2", "Two")))
    assert document.text == "One\n\na & b\n\nTwo"
    assert [span.chapter for span in document.spans] == ["One", "Two"]


def test_word_without_text(book) -> None:
    with pytest.raises(NoText):
        book(docx(("Normal", " ")))
