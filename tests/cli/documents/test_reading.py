"""Sources as users name them, and errors that tell what to do."""

import io
import os
import time
from pathlib import Path

import pytest

from infllm.cli.documents import (
    LimitExceeded,
    Limits,
    NoText,
    SourceNotFound,
    Unreadable,
    UnsupportedFormat,
    list_sources,
    read_sources,
)
from infllm.cli.errors import ExitCode, UsageError
from tests.cli.documents.make import archive, docx, epub, page, pdf

KINDS = {
    "pdf": pdf(["some text"]),
    "epub": epub({"a.xhtml": "<p>some text"}),
    "docx": docx(("Normal", "some text")),
    "html": page("<p>some text").encode(),
    "text": b"some text",
}


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_content_decides_the_kind_not_the_name(kind: str) -> None:
    for name in ("x.pdf", "x.epub", "x"):
        Path(name).write_bytes(KINDS[kind])
        document = read_sources([name]).documents[0]
        assert (document.text, document.kind) == ("some text", kind)


@pytest.mark.parametrize("kind", KINDS)
def test_standard_input(kind: str) -> None:
    document = read_sources(["-"], stdin=io.BytesIO(KINDS[kind])).documents[0]
    assert (document.text, document.kind, document.source) == ("some text", kind, "-")


def test_names_break_ties() -> None:
    names = {"x.md": "markdown", "x.rst": "rst", "x.py": "code", "x.txt": "text", "x": "text"}
    for name, kind in names.items():
        Path(name).write_text("# some text\n")
        assert read_sources([name]).documents[0].kind == kind
    Path("x.html").write_text("<p>some text")
    assert read_sources(["x.html"]).documents[0].kind == "html"


def test_several_sources_in_order_each_once() -> None:
    for name in ("b.txt", "a.txt"):
        Path(name).write_text(f"text of {name}")
    collection = read_sources(["b.txt", "a.txt", "./b.txt"])
    assert collection.text == "# b.txt\n\ntext of b.txt\n\n# a.txt\n\ntext of a.txt"
    origin = collection.origin(collection.text.index("text of a"))
    assert (origin.source, origin.line) == ("a.txt", 1)


def test_globs() -> None:
    Path("sub/deep").mkdir(parents=True)
    for name in ("sub/b.txt", "sub/deep/a.txt", "sub/c.bin"):
        Path(name).write_bytes(b"x\0" if name.endswith("bin") else b"x")
    assert [d.source for d in read_sources(["sub/*.txt"]).documents] == ["sub/b.txt"]
    collection = read_sources(["sub/**"])
    assert [d.source for d in collection.documents] == ["sub/b.txt", "sub/deep/a.txt"]
    assert [s.source for s in collection.skipped] == ["sub/c.bin"]
    assert [d.source for d in read_sources(["s*"]).documents] == ["sub/b.txt", "sub/deep/a.txt"]


def test_a_file_whose_name_looks_like_a_pattern() -> None:
    Path("a[1].txt").write_text("text")
    assert read_sources(["a[1].txt"]).text == "text"


@pytest.mark.parametrize("name", ["missing.pdf", "*.missing", "a\0b"])
def test_missing(name: str) -> None:
    with pytest.raises(SourceNotFound) as caught:
        read_sources([name])
    assert caught.value.code == ExitCode.UNREADABLE
    assert caught.value.hint


@pytest.mark.parametrize("path", ["/dev/zero", "pipe"])
def test_endless_files_are_not_opened(path: str) -> None:
    os.mkfifo("pipe")
    with pytest.raises(Unreadable, match="not a regular file"):
        read_sources([path])


def test_endless_standard_input_is_cut_off() -> None:
    with open("/dev/zero", "rb") as zeros, pytest.raises(LimitExceeded) as caught:
        read_sources(["-"], stdin=zeros, limits=Limits(text_bytes=4 << 20))
    assert caught.value.code == ExitCode.BUDGET


def test_too_large() -> None:
    Path("x.txt").write_text("x" * 2000)
    with pytest.raises(LimitExceeded, match=r"x\.txt: larger than"):
        read_sources(["x.txt"], limits=Limits(text_bytes=1999))
    with pytest.raises(LimitExceeded, match="more than 1999 characters"):
        read_sources(["x.txt"], limits=Limits(total_chars=1999))


@pytest.mark.parametrize("data", [b"", b"\n \n"])
def test_empty(data: bytes) -> None:
    Path("x.txt").write_bytes(data)
    with pytest.raises(NoText, match="the file is empty"):
        read_sources(["x.txt"])
    with pytest.raises(NoText):
        read_sources(["-"], stdin=io.BytesIO(data))


def test_nothing_worth_reading() -> None:
    Path("folder").mkdir()
    with pytest.raises(NoText, match="folder: no files in it"):
        read_sources(["folder"])
    Path("folder/uv.lock").write_text("x")
    with pytest.raises(NoText, match=r"1 skipped \(folder/uv.lock: lock file\)"):
        read_sources(["folder"])


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"{\\rtf1 text}", "an RTF document"),
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        (archive({"xl/workbook.xml": "x"}), "an Excel workbook"),
        (archive({"a.txt": "x"}), "a zip archive"),
        (b"MZ\0\0", "binary data"),
    ],
)
def test_formats_that_are_not_read(data: bytes, what: str) -> None:
    Path("x.txt").write_bytes(data)
    with pytest.raises(UnsupportedFormat, match=what) as caught:
        read_sources(["x.txt"])
    assert caught.value.hint


def test_usage() -> None:
    with pytest.raises(UsageError):
        read_sources([])
    with pytest.raises(UsageError, match="once"):
        read_sources(["-", "-"], stdin=io.BytesIO(b"text"))


def test_an_html_page_that_exhausts_the_parser_is_given_up() -> None:
    Path("x.html").write_text("<!doctype html>" + "<p>x" * 1_000_000)
    with pytest.raises(LimitExceeded, match="parsing it took over 1 s"):
        read_sources(["x.html"], limits=Limits(parse_seconds=1))


def test_listing_says_what_would_be_read_without_reading() -> None:
    Path("folder").mkdir()
    Path("folder/a.txt").write_text("some text")
    Path("folder/b.pdf").write_bytes(b"%PDF-1.4 nothing else")
    Path("folder/uv.lock").write_text("x")
    Path("folder/x.png").write_bytes(b"\x89PNG")
    listed = list_sources(["folder", "-"])
    assert [(item.source, item.kind, item.bytes, item.reason) for item in listed] == [
        ("folder/a.txt", "text", 9, None),
        ("folder/b.pdf", "pdf", 21, None),
        ("folder/uv.lock", None, None, "lock file"),
        ("folder/x.png", None, 4, "a PNG image; this format is not read"),
        ("-", None, None, None),
    ]


def test_a_web_page_that_is_mostly_furniture_gives_its_main_text() -> None:
    menu = "".join(f"<li><a href='/{n}'>Entry {n} of the menu</a></li>" for n in range(200))
    prose = "".join(f"<p>Sentence {n} of the story is told here.</p>" for n in range(40))
    Path("x.html").write_text(
        f"<!doctype html><nav><ul>{menu}</ul></nav><main><h1>Story</h1>{prose}</main>"
        "<footer>Imprint 4711</footer>"
    )
    document = read_sources(["x.html"]).documents[0]
    assert document.text.startswith("Story\n\nSentence 0")
    assert document.text.endswith("Sentence 39 of the story is told here.")
    assert document.origin(0).line == 1
    [left_out] = document.left_out
    assert (left_out.what, left_out.count) == ("block of page furniture", 2)
    assert left_out.samples[1] == "Imprint 4711"
    whole = read_sources(["x.html"], main_text=False).documents[0]
    assert "Entry 199 of the menu" in whole.text
    assert whole.left_out == []


def test_a_page_with_a_little_furniture_keeps_it_unless_asked() -> None:
    prose = "".join(f"<p>Sentence {n} of the story is told here.</p>" for n in range(40))
    Path("x.html").write_text(f"<!doctype html><nav><a>Home</a></nav>{prose}")
    assert read_sources(["x.html"]).text.startswith("Home")
    assert read_sources(["x.html"], main_text=True).text.startswith("Sentence 0")


def test_outputs_of_notebooks_on_request() -> None:
    Path("x.ipynb").write_text(
        '{"nbformat": 4, "metadata": null, "cells": [{"cell_type": "code", "source": "f()",'
        ' "outputs": [{"output_type": "stream", "text": ["score: 4711\\n"]}]}]}'
    )
    document = read_sources(["x.ipynb"]).documents[0]
    assert document.text == "```\nf()\n```"
    assert [(out.what, out.count, out.samples) for out in document.left_out] == [
        ("notebook output", 1, ("score: 4711",))
    ]
    document = read_sources(["x.ipynb"], outputs=True).documents[0]
    assert document.text == "```\nf()\n```\n\n```output\nscore: 4711\n```"
    assert document.left_out == []


@pytest.mark.parametrize("name", ["x.md", "x.txt", "x.html"])
@pytest.mark.parametrize(
    "text",
    ["<!-- a -->\n" * 60 + "# Title", "x" * 200_000, "# " + " " * 200_000 + "x", "<" * 200_000],
)
def test_nothing_makes_reading_slow(name: str, text: str) -> None:
    Path(name).write_text(text)
    began = time.process_time()
    assert read_sources([name], limits=Limits(parse_seconds=20)).text
    assert time.process_time() - began < 5  # of this process: a bound against exponents


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_page_of_two_byte_characters_is_a_page(encoding: str) -> None:
    Path("x").write_bytes(page("<p>some text").encode(encoding))
    assert read_sources(["x"]).documents[0].kind == "html"
    assert read_sources(["x"]).text == "some text"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_page_with_a_byte_order_mark_is_a_page(encoding: str) -> None:
    Path("x").write_bytes(page("<p>some text").encode(encoding))
    assert read_sources(["x"]).documents[0].kind == "html"


def test_a_text_may_name_the_header_of_a_pdf() -> None:
    Path("x.md").write_text("A PDF begins with %PDF-1.4 and ends with %%EOF.\n")
    assert read_sources(["x.md"]).documents[0].kind == "markdown"
    Path("x.md").write_bytes(b"HTTP/1.1 200 OK\n\n" + KINDS["pdf"])
    assert read_sources(["x.md"]).documents[0].kind == "pdf"
