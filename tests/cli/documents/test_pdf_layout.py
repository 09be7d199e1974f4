"""The order in which a page is read, whatever the order in which it was drawn."""

import textwrap
from itertools import chain, zip_longest
from pathlib import Path

import pytest

from infllm.cli.documents.pdf_layout import Word, reading_order
from infllm.cli.documents.pdf_pdfium import PdfiumBackend
from tests.cli.documents.make import pdf, placed

KEEPER = (
    "The keeper walked along the wall and counted the stones until the light was gone, and then "
    "he went home to write down what he had seen in the long book that lay beside the lamp. "
    "Nobody in the harbour knew how many stones there were, for the sea took some of them every "
    "winter and the men brought others from the hill in spring."
)
FISHER = KEEPER.replace("keeper", "fisher").replace("stones", "nets").replace("book", "boat")
MAYOR = KEEPER.replace("keeper", "mayor").replace("stones", "votes").replace("book", "street")
TABLE = [
    ("Item", "Price", "Stock"),
    ("Apples", "1.20", "14"),
    ("Pears", "3.40", "9"),
    ("Plums and more", "12.00", "120"),
    ("Nuts", "0.80", "33"),
]
TABLE_ROWS = [" ".join(row) for row in TABLE]


def column(text: str, x: float, width: int, top: float = 760, step: float = 12) -> list:
    return [(x, top - step * n, line) for n, line in enumerate(textwrap.wrap(text, width))]


def across(*columns: list) -> list:
    """Line by line, as some programs draw."""
    return [item for row in zip_longest(*columns) for item in row if item is not None]


def table(x: float, y: float, step: float = 16, width: float = 150) -> list[list]:
    return [
        [(x + width * j, y - step * i, row[j]) for i, row in enumerate(TABLE)] for j in range(3)
    ]


def texts(*columns: list) -> list[str]:
    return [text for _, _, text in chain(*columns)]


@pytest.fixture
def read(tmp_path: Path):
    def read(items: list, before: bytes = b"", **options) -> list[str]:
        path = tmp_path / "x.pdf"
        path.write_bytes(pdf([before + placed(items)], **options))
        return PdfiumBackend(str(path), "x.pdf", None).page(0).lines

    return read


LEFT, RIGHT = column(KEEPER, 60, 38), column(FISHER, 310, 38)


@pytest.mark.parametrize("drawn", [LEFT + RIGHT, across(LEFT, RIGHT), across(RIGHT, LEFT)])
def test_two_columns_of_prose_are_read_one_after_the_other(read, drawn: list) -> None:
    assert read(drawn) == texts(LEFT, RIGHT)


def test_three_columns(read) -> None:
    columns = [column(t, 40 + 180 * n, 28) for n, t in enumerate((KEEPER, FISHER, MAYOR))]
    assert read(across(*columns)) == texts(*columns)


def test_what_goes_over_all_columns_ends_them(read) -> None:
    heading = [(60, 800, "A heading that goes over both of the columns of this page")]
    middle = [(60, 560, "A second heading that goes over both of the columns of this page")]
    note = [
        (60, 300, "1 A footnote that goes over both columns and says where the numbers are from")
    ]
    lower = column(MAYOR, 60, 38, 530), column(KEEPER, 310, 38, 530)
    drawn = heading + across(LEFT, RIGHT) + middle + across(*lower) + note
    assert read(drawn) == texts(heading, LEFT, RIGHT, middle, *lower, note)


def test_a_shorter_column_and_a_date_apart(read) -> None:
    date = [(450, 810, "May 2")]
    shorter = LEFT[:5]
    assert read(date + across(shorter, RIGHT)) == texts(date, shorter, RIGHT)


@pytest.mark.parametrize("by_rows", [True, False])
def test_a_table_is_read_by_rows(read, by_rows: bool) -> None:
    title, end = [(60, 800, "Prices of the shop")], [(60, 600, "All prices in euro.")]
    columns = table(60, 760)
    drawn = across(*columns) if by_rows else list(chain(*columns))
    assert read(title + drawn + end) == [*texts(title), *TABLE_ROWS, *texts(end)]


def test_a_table_inside_a_column(read) -> None:
    rows = table(60, 680, 12, 85)
    lower = column(MAYOR, 60, 38, 610)
    drawn = LEFT[:6] + list(chain(*rows)) + lower + RIGHT
    assert read(drawn) == [*texts(LEFT[:6]), *TABLE_ROWS, *texts(lower, RIGHT)]


def test_an_index_in_columns_stays_as_drawn(read) -> None:
    entries = [f"{name}, {n + 3}" for n, name in enumerate("abcdefghijklmnopqrst")]
    drawn = [(60 + 200 * (n // 10), 760 - 12 * (n % 10), text) for n, text in enumerate(entries)]
    assert read(drawn) == entries


def test_a_list_of_labels_and_values_stays_by_rows(read) -> None:
    rows = [("Name of the applicant", "Ida Holm"), ("Town", "Harbour"), ("Born", "May 2, 1990")]
    drawn = [
        item for n, (a, b) in enumerate(rows) for item in ((60, 700 - 14 * n, a),
        (300, 700 - 14 * n, b))
    ]  # fmt: skip
    assert read(drawn) == [f"{a} {b}" for a, b in rows]


def test_line_numbers_stay_with_their_lines(read) -> None:
    numbers = [(40, y, str(n + 1)) for n, (_, y, _) in enumerate(LEFT)]
    expected = [f"{n + 1} {text}" for n, text in enumerate(texts(LEFT))]
    assert read(across(numbers, LEFT)) == expected


CODE = [
    ("mov edx, ebx(748)", "// load primes from the trace activation record"),
    ("mov edi(0), edx", "// (*) store primes to interpreter stack"),
    ("mov esi, ebx(764)", "// load k from the trace activation record"),
    ("mov edi(8), esi", "// (*) store k to interpreter stack"),
    ("and eax, -4", "// (*) mask out object class tag for primes"),
]
CLAUSES = [
    ("Payment is due on the first of May", "The harbour works send a letter in April"),
    ("The gate is closed in the winter", "The keeper opens it for boats in need"),
    ("A lost key is paid by the tenant", "Two keys are given out for each house"),
    ("Dogs are kept on a short lead", "They may run on the beach in winter"),
]


@pytest.mark.parametrize("rows", [CODE, CLAUSES])
def test_code_and_whole_sentences_stay_by_rows(read, rows: list) -> None:
    left, right = (
        [(x, 700 - 14 * n, row[k]) for n, row in enumerate(rows)] for k, x in ((0, 60), (1, 310))
    )
    assert read(across(left, right)) == [f"{a} {b}" for a, b in rows]


def test_a_formula_stays_as_drawn() -> None:
    """Cases with fractions: numbers above each other, but their rows overlap."""
    drawn = [
        Word("H", 60, 70, 100, 110), Word("1", 100, 105, 92, 102), Word("2", 100, 105, 98, 108),
        Word("a", 140, 150, 95, 105), Word("3", 100, 105, 104, 114), Word("4", 100, 105, 110, 120),
        Word("b", 140, 150, 107, 117), Word("c", 180, 190, 100, 110),
    ]  # fmt: skip
    read = " ".join(line.text for line in reading_order([[word] for word in drawn], 800))
    assert read == "H 1 2 a 3 4 b c"


def test_lines_drawn_from_the_bottom_up(read) -> None:
    assert read(LEFT[::-1]) == texts(LEFT)


def test_a_head_and_a_foot_drawn_last(read) -> None:
    head, foot = [(60, 815, "The Long Report")], [(280, 30, "7")]
    for body in (LEFT, LEFT + RIGHT):
        assert read(body + head + foot) == texts(head, body, foot)
        assert read(foot + body + head) == texts(head, body, foot)


def test_a_page_turned_to_landscape(read) -> None:
    columns = column(KEEPER, 60, 38, 540), column(FISHER, 310, 38, 540)
    assert read(across(*columns), before=b"0 1 -1 0 595 0 cm ", rotate=90) == texts(*columns)


def test_columns_from_right_to_left() -> None:
    """Hebrew letters, so that the right column is the first."""
    words = ["אבגד", "הוז", "חטי"]

    def line(x: float, y: float, number: int) -> list[Word]:
        return [
            Word(f"{word}{number}", x - 50 * n - 45, x - 50 * n, y, y + 10)
            for n, word in enumerate(words)
        ]

    drawn = [line(x, 100 + 12 * n, n) for n in range(6) for x in (200.0, 400.0)]
    expected = [" ".join(f"{word}{n}" for word in words) for n in range(6)] * 2
    assert [found.text for found in reading_order(drawn, 800)] == expected
    lefts = [found.top for found in reading_order(drawn, 800)]
    assert lefts == [100 + 12 * n for n in range(6)] * 2


def test_no_words_are_no_lines() -> None:
    assert reading_order([], 800) == []


def test_every_word_comes_out_once(read) -> None:
    scattered = [(60 + n * 97 % 400, 300 - n * 31 % 200, f"w{n}") for n in range(40)]
    drawn = across(LEFT, RIGHT, *table(60, 560)) + scattered
    assert sorted(" ".join(read(drawn)).split()) == sorted(" ".join(texts(drawn)).split())
