"""Chapters of EPUBs by their tables of contents, down to places inside a page."""

import time

import pytest

from infllm.cli.documents.epub import read_epub
from infllm.cli.documents.epub_chapters import mark_places
from tests.cli.documents.books import NCX, XHTML, book, nav, ncx
from tests.cli.documents.make import CONTAINER
from tests.cli.documents.readers import archive_reader

SECONDS = 20  # a bound against hanging, not a measurement


read = archive_reader("book.epub", read_epub)


def test_entities_in_container_and_contents(read) -> None:
    toc = (
        "<!DOCTYPE ncx PUBLIC '-//NISO//DTD ncx 2005-1//EN' 'http://www.daisy.org/ncx.dtd'>"
        "<ncx><navMap><navPoint><navLabel><text>A&nbsp;&ndash; B</text></navLabel>"
        '<content src="a.xhtml"/></navPoint></navMap></ncx>'
    )
    items = [("a", "a.xhtml", XHTML, ""), ("n", "t.ncx", NCX, "")]
    container = CONTAINER.replace("<rootfiles>", "<rootfiles>&nbsp;")
    extra = {"OPS/t.ncx": toc, "META-INF/container.xml": container}
    document = read(book({"a.xhtml": "<p>x&nbsp;&hellip;"}, items, ["a"], extra))
    assert document.text.split() == ["x", "…"]
    assert document.spans[0].chapter == "A – B"


@pytest.mark.parametrize("form", ["nav", "ncx"])
@pytest.mark.parametrize(
    "two",
    [
        '<p id="c2" class="head">TWO</p>',
        '<h2 id="c2">TWO</h2>',
        '<section id="c2"><h2>TWO</h2></section>',
        '<p><a id="c2"/>TWO</p>',
        "<p><a name='c2'></a>TWO</p>",
        '<div id="c2">\n  <p>TWO</p></div>',
        '<table id="c2"><tr><td>TWO</td></tr></table>',
        '<!-- <p id="c2"> --><h3 title="a > b" id="c2">TWO</h3>',
        '<ul><li id="c2">TWO</li></ul>',
    ],
)
def test_chapters_inside_a_page(read, form: str, two: str) -> None:
    body = f'<p id="c1">ONE</p><p>The cellar key is 5519.</p>{two}<p>The attic key is 6620.</p>'
    links = (("Chapter One", "a.xhtml#c1"), ("Chapter Two", "a.xhtml#c2"))
    kind = XHTML if form == "nav" else NCX
    more = 'properties="nav"' if form == "nav" else ""
    items = [("a", "a.xhtml", XHTML, ""), ("t", "toc.x", kind, more)]
    toc = nav(*links) if form == "nav" else ncx(*links)
    document = read(book({"a.xhtml": body}, items, ["a"], {"OPS/toc.x": toc}))
    text = document.text
    assert text.replace("- ", "") == (
        "ONE\n\nThe cellar key is 5519.\n\nTWO\n\nThe attic key is 6620."
    )
    chapters = {word: document.origin(text.index(word)).chapter
                for word in ("ONE", "5519", "TWO", "6620")}  # fmt: skip
    assert chapters == {
        "ONE": "Chapter One", "5519": "Chapter One", "TWO": "Chapter Two", "6620": "Chapter Two",
    }  # fmt: skip
    assert document.origin(text.index("5519.") + len("5519.") - 1).chapter == "Chapter One"


def test_fragments_do_not_change_the_text(read) -> None:
    body = (
        "<p>one <b id='x'>two</b><a id='y'/> three</p>\n"
        "<pre id='z'>\n  a\n   b</pre><ul id='u'><li>c"
    )
    plain = read(book({"a.xhtml": body})).text
    items = [("a", "a.xhtml", XHTML, ""), ("t", "t.ncx", NCX, "")]
    marked = read(
        book({"a.xhtml": body}, items, ["a"],
             {"OPS/t.ncx": ncx(*((f"L{key}", f"a.xhtml#{key}") for key in "xyzu"))})
    )  # fmt: skip
    assert marked.text.split() == plain.split()
    assert marked.text.startswith("one two three\n\n")
    assert [span.chapter for span in marked.spans] == [None, "Lx", "Ly", "Lz", "Lu"]


def test_a_label_whose_place_is_gone_names_the_page(read) -> None:
    items = [("a", "a.xhtml", XHTML, ""), ("b", "b.xhtml", XHTML, ""), ("t", "t.ncx", NCX, "")]
    toc = ncx(("First", "a.xhtml#nowhere"), ("Second", "b.xhtml"))
    document = read(
        book({"a.xhtml": "<p>x", "b.xhtml": "<p>y"}, items, ["a", "b"], {"OPS/t.ncx": toc})
    )
    assert [span.chapter for span in document.spans] == ["First", "Second"]


def test_headings_below_a_label(read) -> None:
    """Those that repeat it do not replace it; those that say more do."""
    body = "<p>p. 4</p><h1>The Whale</h1><p>a</p><h2>Of Tails</h2><p>b</p>"
    items = [("a", "a.xhtml", XHTML, ""), ("t", "t.ncx", NCX, "")]
    toc = ncx(("4 The Whale", "a.xhtml"))
    document = read(book({"a.xhtml": body}, items, ["a"], {"OPS/t.ncx": toc}))
    assert [span.chapter for span in document.spans] == ["4 The Whale", "Of Tails"]


def test_marks_spelt_by_the_page_itself_are_text(read) -> None:
    body = "<p>a\ufdd00\ufdd1b&#xFDD0;0&#xFDD1;c&#xFDD0;99999999&#xFDD1;d</p>"
    assert read(book({"a.xhtml": body})).text.startswith("a0b")


@pytest.mark.parametrize("piece", ["<a ", "<a", "<!--", "<p id='", '<p id="x" ', "a"])
def test_no_page_takes_long_to_mark(piece: str) -> None:
    started = time.monotonic()
    mark_places("<" + piece * 100_000, {"x": "X"})
    assert time.monotonic() - started < SECONDS


def test_labels_with_markup(read) -> None:
    label = 'Part <i>1</i><br/>The <ruby>青<rt>あお</rt></ruby> <img alt="Sea" src="x"/>'
    items = [("a", "a.xhtml", XHTML, ""), ("t", "toc.xhtml", XHTML, 'properties="nav"')]
    document = read(
        book({"a.xhtml": "<p>x"}, items, ["a"], {"OPS/toc.xhtml": nav((label, "a.xhtml"))})
    )
    assert document.spans[0].chapter == "Part 1 The 青 Sea"
