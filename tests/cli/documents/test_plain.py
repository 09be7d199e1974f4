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


def test_controls_that_break_a_line_are_part_of_the_line_of_the_file() -> None:
    document = read_plain(b"one\x0bmore\ntwo\x0cpage\n# Head\n77\x1f88\n", "x", "markdown")
    assert document.text == "one\nmore\ntwo\npage\n# Head\n77 88\n"
    lines = {
        word: document.origin(document.text.index(word)).line for word in document.text.split()
    }
    assert lines == {"one": 1, "more": 1, "two": 2, "page": 2, "#": 3, "Head": 3, "77": 4, "88": 4}
    assert document.origin(document.text.index("77")).chapter == "Head"


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("# One #", "One"),
        ("## C# and F#", "C# and F#"),
        ("# a # #", "a #"),
        ("# #", None),
        ("#\tx  ##  ", "x"),
    ],
)
def test_closing_marks_of_a_heading(line: str, name: str | None) -> None:
    assert read_plain(line.encode(), "x", "markdown").title == name


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


ODD_NOTEBOOKS = [
    ({"metadata": None, "cells": [{"cell_type": "markdown", "source": "a"}]}, "a"),
    ({"cells": [{"cell_type": "raw", "source": ["a\n", "b"]}]}, "a\nb"),
    ({"cells": [{"cell_type": "code", "source": None}, {"source": "a"}]}, "a"),
    (
        {
            "metadata": {"kernelspec": None, "language_info": {"name": "C++"}},
            "cells": [{"cell_type": "code", "source": "x;", "outputs": None, "metadata": None}],
        },
        "```C++\nx;\n```",
    ),
    (
        {
            "nbformat": 3,
            "worksheets": [
                {
                    "cells": [
                        {"cell_type": "heading", "level": 2, "source": "Part"},
                        {"cell_type": "code", "language": "python", "input": ["f()"]},
                    ]
                }
            ],
        },
        "## Part\n\n```python\nf()\n```",
    ),
]


@pytest.mark.parametrize(("notebook", "text"), ODD_NOTEBOOKS)
def test_odd_but_valid_notebooks(notebook: dict, text: str) -> None:
    assert read_plain(json.dumps(notebook).encode(), "x", "notebook").text == text


OUTPUTS = [
    ({"output_type": "stream", "name": "stderr", "text": ["a\n", "b\n"]}, "a\nb"),
    ({"output_type": "execute_result", "data": {"text/plain": ["42"], "text/html": "x"}}, "42"),
    ({"output_type": "pyout", "text": ["42"]}, "42"),
    (
        {"data": {"text/html": "<style>p{}</style><table><tr><td>a<td>&lt;b<tr><td>c</table>"}},
        "a | <b\nc",
    ),
    ({"data": {"application/json": {"a": 1}}}, '{"a": 1}'),
    ({"data": {"image/png": "iVBO"}}, "[image/png]"),
    (
        {
            "output_type": "error",
            "ename": "ValueError",
            "evalue": "bad port 4711",
            "traceback": ["\x1b[31mValueError\x1b[0m: bad port 4711"],
        },
        "ValueError: bad port 4711",
    ),
    ({"output_type": "error", "ename": "E", "evalue": "5", "traceback": []}, "E: 5"),
]


@pytest.mark.parametrize(("output", "text"), OUTPUTS)
def test_outputs_are_told_or_read(output: dict, text: str) -> None:
    notebook = {"cells": [{"cell_type": "code", "source": "f()", "outputs": [output]}]}
    data = json.dumps(notebook).encode()
    told = read_plain(data, "x", "notebook")
    assert told.text == "```\nf()\n```"
    assert [(left.what, left.count, left.samples) for left in told.left_out] == [
        ("notebook output", 1, (" ".join(text.split()),))
    ]
    given = read_plain(data, "x", "notebook", outputs=True)
    assert given.text == f"```\nf()\n```\n\n```output\n{text}\n```"
    assert given.left_out == []
