"""The sentences of a text, and the pieces of one that has none."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infllm.cli.tasks.citations import ENTRY_CHARS, QUOTE_CHARS, sentences


def split(text: str, start: int = 0, stop: int | None = None) -> list[str]:
    return [text[a:b] for a, b in sentences(text, start, len(text) if stop is None else stop)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("  One.   Two.  ", ["One.", "Two."]),
        ('He said "Go." She went.', ['He said "Go."', "She went."]),
        ("(It was so.) Then not.", ["(It was so.)", "Then not."]),
        ("It cost 3.50 in all. Cheap.", ["It cost 3.50 in all.", "Cheap."]),
        ("Wait\u2026 Now.", ["Wait\u2026", "Now."]),
        ("A title\n\nA sentence.", ["A title", "A sentence."]),
        ("A title\n \t\nA sentence", ["A title", "A sentence"]),
        ("One line\nand the next.", ["One line\nand the next."]),
        ("", []),
        (" \n\n ", []),
    ],
)
def test_sentences(text, expected):
    assert split(text) == expected


@pytest.mark.parametrize(
    "sentence",
    [
        "Mr. Hall met Mrs. Lowe and Dr. Ames.",
        "It was J. R. Brown of St. Ives.",
        "Take a tool, e.g. a saw, i.e. something sharp.",
        "Ship No. 7 was black vs. white.",
    ],
)
def test_an_abbreviation_ends_no_sentence(sentence):
    assert split(f"Before. {sentence} After.") == ["Before.", sentence, "After."]


def test_only_sentences_that_touch_the_range():
    text = "First one. Second one. Third one."
    assert split(text, 0, 1) == ["First one."]
    assert split(text, 9, 12) == ["First one.", "Second one."]
    assert split(text, 10, 11) == []  # the blank between two
    assert split(text, len(text) - 1) == ["Third one."]


def test_data_without_sentences_is_cut_into_short_pieces():
    pairs = [f'"key-{number}": "{number * 7919 % 10007:05d}-{number}",' for number in range(400)]
    for between in (" ", "\n"):
        text = between.join(pairs)
        cut = split(text, text.index('"key-200"'), text.index('"key-203"'))
        assert all(len(piece) <= ENTRY_CHARS for piece in cut)
        assert any(pairs[200] in piece for piece in cut)


def test_a_long_piece_is_cut_at_its_lines():
    lines = [f"{number} " + "word " * 40 for number in range(9)]
    text = "\n".join(lines)
    cut = split(text, text.index("4 word"), text.index("5 word"))
    assert all(len(piece) <= QUOTE_CHARS for piece in cut)
    assert any(piece.startswith("4 word") for piece in cut)
    assert all(piece[0].isdigit() and piece.endswith("word") for piece in cut)


def test_a_long_line_is_cut_at_blanks_and_an_endless_word_anywhere():
    text = "word " * 600
    cut = split(text, 1500, 1510)
    assert cut
    assert all(len(piece) <= QUOTE_CHARS for piece in cut)
    assert set(" ".join(cut).split()) == {"word"}
    [piece] = split("x" * 3000, 1500, 1501)
    assert 0 < len(piece) <= QUOTE_CHARS


@given(
    st.text(alphabet="ab .!?\n\u2019\u4e2d\u3002", max_size=200),
    st.integers(0, 200),
    st.integers(0, 200),
)
def test_sentences_are_in_order_apart_and_touch_the_range(text, start, length):
    found = sentences(text, start, start + length)
    for a, b in found:
        assert a < start + length
        assert b > start
        assert text[a:b] == text[a:b].strip() != ""
    assert all(x[1] <= y[0] for x, y in pairwise(found))


@given(st.text(alphabet="ab .\n", min_size=1, max_size=120))
def test_the_sentences_of_a_text_hold_all_of_it(text):
    assert "".join("".join(split(text)).split()) == "".join(text.split())
