"""Text-like files keep their text; every character keeps its line; headings are chapters."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infllm.cli.documents.errors import NoText, Unreadable
from infllm.cli.documents.plain import read_plain

MARKDOWN = st.lists(
    st.sampled_from(["# One", "## Two ##", "text", "", "```", "====", "---", "  - item", "#no"]),
    max_size=15,
).map("\n".join)


@given(MARKDOWN.filter(str.strip), st.sampled_from(["text", "markdown", "rst", "code"]))
def test_text_and_lines_are_those_of_the_file(text: str, kind: str) -> None:
    document = read_plain(text.encode(), "x", kind)
    assert document.text == text
    for offset in range(len(text)):
        assert document.origin(offset).line == text.count("\n", 0, offset) + 1


def chapters(text: str, kind: str) -> list[tuple[str | None, str]]:
    document = read_plain(text.encode(), "x", kind)
    return [(span.chapter, document.text[span.start : span.end]) for span in document.spans]


def test_markdown_chapters() -> None:
    text = "lead\n# One #\na\n```\n# no\n```\nTwo\n===\nb\n- list\n---\n"
    assert chapters(text, "markdown") == [
        (None, "lead\n"),
        ("One", "# One #\na\n```\n# no\n```\n"),
        ("Two", "Two\n===\nb\n- list\n---\n"),
    ]


def test_markdown_front_matter_is_no_heading() -> None:
    assert chapters("---\ntitle: x\n---\ntext\n", "markdown") == [
        (None, "---\ntitle: x\n---\ntext\n")
    ]


def test_rst_chapters() -> None:
    text = "=====\nTitle\n=====\n\nlead\n\nPart\n----\n\ntext\nmore\n----\n"
    assert chapters(text, "rst") == [
        ("Title", "=====\nTitle\n=====\n\nlead\n\n"),
        ("Part", "Part\n----\n\ntext\nmore\n----\n"),
    ]


def test_windows_newlines_count_once() -> None:
    document = read_plain(b"a\r\nb\r\nc", "x", "text")
    assert document.text == "a\nb\nc"
    assert document.origin(4).line == 3


def test_notebook_is_its_cells() -> None:
    notebook = {
        "nbformat": 4,
        "metadata": {"language_info": {"name": "python"}},
        "cells": [
            {"cell_type": "markdown", "source": ["# Head\n", "words"]},
            {"cell_type": "code", "source": "print(1)", "outputs": [{"text": "SECRET"}]},
            {"cell_type": "code", "source": ""},
        ],
    }
    document = read_plain(json.dumps(notebook).encode(), "x.ipynb", "notebook")
    assert document.text == "# Head\nwords\n\n```python\nprint(1)\n```"
    assert document.origin(document.text.index("print")).chapter == "cell 2"
    assert document.origin(0).line is None


@pytest.mark.parametrize("data", [b"{", b"[]", b"{}", b'{"cells": 3}', b"[" * 100_000])
def test_broken_notebook(data: bytes) -> None:
    with pytest.raises(Unreadable, match=r"x\.ipynb: not a valid notebook"):
        read_plain(data, "x.ipynb", "notebook")


@pytest.mark.parametrize("data", [b"", b" \n\n", b"\xef\xbb\xbf"])
def test_nothing_in_it(data: bytes) -> None:
    with pytest.raises(NoText):
        read_plain(data, "x", "text")
