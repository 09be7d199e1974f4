"""Running heads, page numbers, hyphenation and ligatures of PDF pages."""

import pytest

from infllm.cli.documents.pagetext import (
    dehyphenate,
    joint,
    normalize,
    strip_running_lines,
    vocabulary,
)

BODY = ["alpha\nfirst words", "beta\nother words", "gamma\nmore words", "delta\nlast words"]


def stripped(pages: list[str], labels: list[str] | None = None) -> list[str]:
    return strip_running_lines(pages, labels or [str(n + 1) for n in range(len(pages))])


def test_a_head_that_returns_is_removed() -> None:
    assert stripped([f"The Long Report\n{body}" for body in BODY]) == BODY


def test_heads_of_left_and_right_pages_are_removed() -> None:
    heads = ["One  Report", "Report  One"] * 2
    pages = [f"{head}\n{body}" for head, body in zip(heads, BODY, strict=True)]
    assert stripped(pages) == BODY


@pytest.mark.parametrize("form", ["{}", "- {} -", "Page {} of 4", "{} 1.6 Ways"])
def test_page_numbers_are_removed(form: str) -> None:
    assert stripped([f"{body}\n{form.format(n)}" for n, body in enumerate(BODY, 1)]) == BODY


def test_roman_page_numbers_are_removed() -> None:
    numbers = ["ii", "iii", "iv", "v"]
    pages = [f"{number}\n{body}" for number, body in zip(numbers, BODY, strict=True)]
    assert stripped(pages) == BODY


def test_changing_head_beside_the_page_number_is_removed() -> None:
    heads = ["7 Introduction", "Methods 8", "9 Results", "Discussion 10"]
    pages = [f"{head}\n{body}" for head, body in zip(heads, BODY, strict=True)]
    assert stripped(pages) == BODY


def test_ordinary_lines_stay() -> None:
    assert stripped(BODY) == BODY
    tables = [f"{n * n + 7} 12\n{body}\n3 {n * 31}" for n, body in enumerate(BODY)]
    assert stripped(tables) == tables


def test_a_page_is_never_emptied() -> None:
    assert stripped(["Background"] * 5) == ["Background"] * 5


def test_ligatures_and_line_end_hyphens() -> None:
    assert normalize("e\ufb03cient \ufb02ow, Voraus\ufffesetzung\r\nx\u00ady \x04") == (
        "efficient flow, Voraus-\nsetzung\nxy"
    )


def test_words_are_joined_and_compounds_keep_their_hyphen() -> None:
    page = "a long exam-\nple of a well-\nknown thing, and a well-known one; Jean-\nPaul, vor-\nund"
    assert dehyphenate(page, vocabulary([page])) == (
        "a long example of a well-known thing, and a well-known one; Jean-Paul, vor- und"
    )


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("an exam-", "ple of", (1, "")),
        ("it goes", "on here", (0, "\n")),
        ("It ends.", "next one", (0, "\n\n")),
        ("it goes", "On", (0, "\n\n")),
        ("1990-", "2000", (0, "\n\n")),
    ],
)
def test_where_pages_meet(before: str, after: str, expected: tuple[int, str]) -> None:
    assert joint(before, after, frozenset()) == expected
