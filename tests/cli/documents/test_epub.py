"""EPUB: names however spelt, XML that is almost XML, what is read where and told."""

import unicodedata
from pathlib import Path

import pytest

from infllm.cli.documents import (
    LeftOut,
    Unreadable,
    UnsupportedFormat,
    list_sources,
    read_sources,
)
from infllm.cli.documents.archive import Archive
from infllm.cli.documents.epub import read_epub
from infllm.cli.documents.limits import Limits
from tests.cli.documents.books import NCX, XHTML, book, package
from tests.cli.documents.make import CONTAINER, archive, epub, page
from tests.cli.documents.readers import archive_reader

read = archive_reader("book.epub", read_epub)


@pytest.mark.parametrize(
    ("member", "href"),
    [
        ("chapter1.xhtml", "Chapter1.xhtml"),
        ("Text/A.XHTML", "text/a.xhtml"),
        (unicodedata.normalize("NFD", "café.xhtml"), "caf%C3%A9.xhtml"),
        (unicodedata.normalize("NFC", "café.xhtml"), unicodedata.normalize("NFD", "café.xhtml")),
        ("Text/a.xhtml", "Text\\a.xhtml"),
        ("Text\\a.xhtml", "Text/a.xhtml"),
        ("a.xhtml", "./a.xhtml"),
        ("a.xhtml", "../OPS/a.xhtml"),
        ("a.xhtml", "../../OPS/a.xhtml"),
        ("a.xhtml", "/OPS/a.xhtml"),
        ("a b.xhtml", "a%20b.xhtml"),
        ("a%20b.xhtml", "a%20b.xhtml"),
        ("a%20b.xhtml", "a b.xhtml"),
        ("a#1.xhtml", "a#1.xhtml"),
        ("100%.xhtml", "100%.xhtml"),
        ("STRASSE.xhtml", "straße.xhtml"),
        ("Ⅷ É.xhtml", "ⅷ%20E%CC%81.xhtml"),
    ],
)
def test_a_page_is_found_however_its_name_is_spelt(read, member: str, href: str) -> None:
    items = [("a", href, XHTML, ""), ("b", "last.xhtml", XHTML, "")]
    document = read(book({member: "<p>The key is 5519.", "last.xhtml": "<p>Second."}, items))
    assert (document.text, document.warnings) == ("The key is 5519.\n\nSecond.", [])


def test_the_exact_name_wins(read) -> None:
    pages = {"A.xhtml": "<p>upper", "a.xhtml": "<p>lower"}
    assert read(book(pages, [("x", "a.xhtml", XHTML, ""), ("y", "A.xhtml", XHTML, "")])).text == (
        "lower\n\nupper"
    )


def test_names_that_are_utf_8_without_saying_so(read) -> None:
    data = book({"café.xhtml": "<p>found"})
    plain = data.replace("é".encode(), b"\xc3\xa9")
    for start in (b"PK\x03\x04", b"PK\x01\x02"):  # clear the flag of UTF-8 names
        offset = 6 if start == b"PK\x03\x04" else 8
        at = plain.find(start)
        while at >= 0:
            flags = int.from_bytes(plain[at + offset : at + offset + 2], "little") & ~0x800
            plain = plain[: at + offset] + flags.to_bytes(2, "little") + plain[at + offset + 2 :]
            at = plain.find(start, at + 4)
    assert read(plain).text == "found"


def test_container_and_package_by_any_case(read) -> None:
    pages = {"Meta-Inf/Container.xml": CONTAINER, "ops/Book.OPF": package(
        [("a", "a.xhtml", XHTML, "")], ["a"]), "OPS/a.xhtml": page("<p>text")}  # fmt: skip
    assert read(archive(pages)).text == "text"


def test_a_book_packed_with_its_folder(tmp_path: Path) -> None:
    pages = {"META-INF/container.xml": CONTAINER, "OPS/a.xhtml": page("<p>text"),
             "OPS/book.opf": package([("a", "a.xhtml", XHTML, "")], ["a"])}  # fmt: skip
    path = tmp_path / "a.epub"
    wrapped = {f"My Book.epub/{name}": data for name, data in pages.items()}
    path.write_bytes(archive(wrapped | {"__MACOSX/._x": b"\0"}))
    assert read_sources([str(path)]).text == "text"


@pytest.mark.parametrize("before", ["\n", "\n \n", "\ufeff", "\ufeff\n", "<!-- made by X -->\n"])
def test_before_the_xml_declaration(read, before: str) -> None:
    start = before + '<?xml version="1.0" encoding="utf-8"?>'
    toc = '<ncx><navMap><navPoint><navLabel><text>One</text></navLabel><content src="a.xhtml"/>'
    document = read(
        book(
            {},
            extra={
                "META-INF/container.xml": start + CONTAINER.partition("?>")[2],
                "OPS/book.opf": start
                + package([("a", "a.xhtml", XHTML, ""), ("n", "t.ncx", NCX, "")], ["a"]),
                "OPS/t.ncx": start + toc + "</navPoint></navMap></ncx>",
                "OPS/a.xhtml": start + page("<p>text"),
            },
            items=[("a", "a.xhtml", XHTML, "")],
        )
    )
    assert (document.text, document.spans[0].chapter) == ("text", "One")


@pytest.mark.parametrize(
    ("title", "meant"),
    [
        ("Ben&nbsp;Hur", "Ben Hur"),
        ("Caf&eacute; &amp; Bar", "Café & Bar"),
        ("Tom & Jerry", "Tom & Jerry"),
        ("a &unheard; b &#38; c", "a &unheard; b & c"),
        ("one\x0b two &#x1F; three", "one two three"),
        ("<![CDATA[a &nbsp; b]]>", "a &nbsp; b"),
        ("<epub:b>Un</epub:b>declared", "Undeclared"),
    ],
)
def test_titles_in_almost_xml(read, title: str, meant: str) -> None:
    document = read(book({"a.xhtml": "<p>text"}, title=title))
    assert (document.title, document.text) == (meant, "text")


def test_pages_outside_the_main_order_come_last_and_are_told(read) -> None:
    items = [(key, f"{key}.xhtml", XHTML, "") for key in "abcd"]
    spine = ['"a" linear="no"', "b", "c", "c"]
    document = read(book({f"{key}.xhtml": f"<p>{key}" for key in "abcd"}, items, spine))
    assert document.text == "b\n\nc\n\na\n\nd"
    assert document.warnings == [
        "outside the main reading order, read at the end: OPS/a.xhtml",
        "not in the reading order, read at the end: OPS/d.xhtml",
    ]


def test_a_cover_outside_the_order_is_no_matter(read) -> None:
    items = [("c", "cover.xhtml", XHTML, ""), ("b", "b.xhtml", XHTML, "")]
    pages = {"cover.xhtml": '<img src="c.png" alt=""/>', "b.xhtml": "<p>b"}
    document = read(book(pages, items, ['"c" linear="no"', "b"]))
    assert (document.text.strip(), document.warnings) == ("b", [])


def test_what_the_spine_names_in_vain(read) -> None:
    items = [("a", "a.xhtml", XHTML, ""), ("b", "gone.xhtml", XHTML, ""),
             ("c", "c.pdf", "application/pdf", 'fallback="d"'), ("d", "d.xhtml", XHTML, ""),
             ("e", "e.mp3", "audio/mpeg", "")]  # fmt: skip
    document = read(
        book({"a.xhtml": "<p>a", "d.xhtml": "<p>d"}, items, ["a", "b", "nobody", "c", "e"])
    )
    assert document.text == "a\n\nd"
    assert document.warnings == [
        "the reading order names nobody, which is not listed",
        "OPS/e.mp3 (audio/mpeg) was left out; it is not text",
        "OPS/gone.xhtml is missing from the archive; left out",
    ]


def test_other_renditions_and_images_are_told(read) -> None:
    second = '<rootfile full-path="other/b.opf"/></rootfiles>'
    extra = {
        "META-INF/container.xml": CONTAINER.replace("</rootfiles>", second),
        "other/b.opf": package([], []),
    }
    body = '<p>x<img src="a.png"/><img src="b.png" alt=""/><img src="c.png" alt="C"/>'
    document = read(book({"a.xhtml": body}, extra=extra))
    assert document.left_out == [
        LeftOut("image without text", 1, ("a.png",)),  # an empty alt: there for the eye alone
        LeftOut("other rendition of the book", 1, ("other/b.opf",)),
    ]


def test_without_a_container_the_one_package_is_read(read) -> None:
    data = archive(
        {
            "mimetype": "application/epub+zip",
            "x/p.opf": package([("a", "a.xhtml", XHTML, "")], ["a"]),
            "x/a.xhtml": page("<p>text"),
        }
    )
    document = read(data)
    assert document.text == "text"
    assert document.warnings == ["META-INF/container.xml is missing; x/p.opf is read"]


def test_what_a_damaged_package_still_lists_is_read(read) -> None:
    items = [("a", "a.xhtml", XHTML, ""), ("b", "b.xhtml", XHTML, "")]
    cut = package(items, ["b", "a"]).rpartition("<itemref")[0]
    document = read(book({"a.xhtml": "<p>a", "b.xhtml": "<p>b"}, extra={"OPS/book.opf": cut}))
    assert document.text == "b\n\na"
    assert document.warnings[0].startswith("OPS/book.opf is damaged (no element found")
    assert document.warnings[1] == "not in the reading order, read at the end: OPS/a.xhtml"


def test_a_spine_without_text_is_told_by_name(read) -> None:
    with pytest.raises(Unreadable, match=r"are not text: OPS/a.mp3 \(audio/mpeg\)"):
        read(book({}, [("a", "a.mp3", "audio/mpeg", "")]))


def test_a_damaged_list_of_what_is_encrypted(read) -> None:
    document = read(epub({"a.xhtml": "<p>text"}, {"META-INF/encryption.xml": "<encryption><x"}))
    assert document.text == "text"
    assert document.warnings[0].startswith("what is encrypted is not known")


def test_drm_on_a_name_spelt_otherwise(read) -> None:
    rights = (
        '<encryption xmlns:e="http://www.w3.org/2001/04/xmlenc#"><e:EncryptedData>'
        '<e:EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes256-cbc"/>'
        '<e:CipherData><e:CipherReference URI="ops/A.xhtml"/></e:CipherData></e:EncryptedData>'
        "</encryption>"
    )
    with pytest.raises(UnsupportedFormat, match="DRM"):
        read(epub({"a.xhtml": "<p>noise"}, {"META-INF/encryption.xml": rights}))


def unpack(folder: Path, data: bytes) -> None:
    path = folder.with_suffix(".zip")
    path.write_bytes(data)
    with Archive(str(path), "x", Limits()) as opened:
        for name in opened.names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(opened.read(name))
    path.unlink()


def test_an_unpacked_book_is_one_book(tmp_path: Path) -> None:
    folder = tmp_path / "Book.epub"
    unpack(folder, epub({"z.xhtml": "<h1>One</h1><p>first", "a.xhtml": "<p>second"}))
    (folder / "notes.txt").write_text("mine")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref")
    for source in (str(folder), str(tmp_path), str(tmp_path / "*.epub")):
        (document,) = read_sources([source]).documents
        assert (document.source, document.kind) == (str(folder), "epub")
        assert document.text == "One\n\nfirst\n\nsecond"
        assert document.left_out == [LeftOut("file beside the book's own", 1, ("notes.txt",))]
    (listed,) = list_sources([str(folder)])
    assert (listed.kind, listed.reason) == ("epub", None)


def test_an_unpacked_book_reads_nothing_outside_itself(tmp_path: Path) -> None:
    folder = tmp_path / "book"
    unpack(folder, book({}, [("a", "../../secret.xhtml", XHTML, ""), ("b", "b.xhtml", XHTML, "")]))
    (tmp_path / "secret.xhtml").write_text(page("<p>secret"))
    (folder / "OPS" / "b.xhtml").symlink_to(tmp_path / "secret.xhtml")
    with pytest.raises(Unreadable, match="is missing"):
        read_sources([str(folder)])
