"""Running heads, feet and page numbers: what goes is told, and all that may matter stays."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infllm.cli.documents.document import LeftOut
from infllm.cli.documents.pagetext import PageLines
from infllm.cli.documents.running import SAMPLES, strip_running_lines

HEIGHT, STEP = 842.0, 14.0
NAMES = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]
BODIES = [[f"{name} line {n}" for n in "abcdefgh"] for name in NAMES]


def page(body: Sequence[str], head: Sequence[str] = (), foot: Sequence[str] = ()) -> PageLines:
    """Head and foot stand in the margins, the lines of the body 14 points apart."""
    tops = [30 + STEP * n for n in range(len(head))]
    tops += [100 + STEP * n for n in range(len(body))]
    tops += [780 + STEP * n for n in range(len(foot))]
    return PageLines([*head, *body, *foot], [(top, top + 11) for top in tops], HEIGHT)


def strip(
    pages: Sequence[PageLines], labels: Sequence[str] | None = None
) -> tuple[list[str], LeftOut | None]:
    return strip_running_lines(pages, labels or [str(n + 1) for n in range(len(pages))])


def bodies() -> list[str]:
    return ["\n".join(body) for body in BODIES]


def test_a_head_goes_but_once_and_is_told() -> None:
    texts, told = strip([page(body, ["The Long Report"]) for body in BODIES])
    assert texts == ["The Long Report\n" + bodies()[0], *bodies()[1:]]
    assert told == LeftOut("running line", 5, ("The Long Report",))


@pytest.mark.parametrize("head", ["Annual report 2023", "ISO 9001 for harbours", "Confidential"])
def test_heads_with_a_year_go(head: str) -> None:
    texts, told = strip([page(body, [head]) for body in BODIES])
    assert texts[1:] == bodies()[1:]
    assert told == LeftOut("running line", 5, (head,))


def test_heads_of_left_and_right_pages_and_of_chapters_stay_once_each() -> None:
    heads = ["The Sea", "The Wall"] * 3
    texts, told = strip([page(body, [head]) for body, head in zip(BODIES, heads, strict=True)])
    assert texts == ["The Sea\n" + bodies()[0], "The Wall\n" + bodies()[1], *bodies()[2:]]
    assert told is not None
    assert (told.count, told.samples) == (4, ("The Sea", "The Wall"))


@pytest.mark.parametrize(
    "form", ["{}", "- {} -", "[{}]", "Page {}", "Page {} of 6", "{} of 6", "{}/6", "Seite {} von 6"]
)
def test_page_numbers_go_and_are_told(form: str) -> None:
    numbers = [form.format(n + 1) for n in range(6)]
    texts, told = strip([page(b, foot=[n]) for b, n in zip(BODIES, numbers, strict=True)])
    assert texts == bodies()
    assert told == LeftOut("running line", 6, tuple(numbers))


def test_a_line_with_a_page_number_and_words_stays_once() -> None:
    letters = [page(b, ["Harbour Works Ltd", f"Letter, page {n + 3} of 17"]) for n, b in
               enumerate(BODIES)]  # fmt: skip
    texts, told = strip(letters)
    assert texts == ["Harbour Works Ltd\nLetter, page 3 of 17\n" + bodies()[0], *bodies()[1:]]
    assert told is not None
    assert told.count == 10


def test_heads_of_a_book_with_the_number_on_the_outer_side() -> None:
    bodies = [[f"{name} line {n}" for n in "abcdefgh"] for name in (*NAMES, "eta", "theta")]
    heads = ["1 Of Walls", "Stones 2"] + [
        f"{n} Of Walls" if n % 2 else f"The Harbour {n}" for n in range(3, 9)
    ]
    texts, told = strip([page(body, [head]) for body, head in zip(bodies, heads, strict=True)])
    kept = [text.split("\n")[0] for text in texts]
    assert kept[:2] == heads[:2]
    assert kept[3] == "The Harbour 4"
    assert told is not None
    assert told.samples == tuple(heads[n] for n in (2, 4, 5, 6, 7))
    assert told.count == 5


def test_a_preface_is_numbered_apart() -> None:
    labels = ["i", "ii", "iii", "1", "2", "3"]
    texts, _ = strip([page(b, foot=[n]) for b, n in zip(BODIES, labels, strict=True)], labels)
    assert texts == bodies()


def test_numbers_after_unnumbered_pages_go() -> None:
    pages = [page(body, foot=[str(n - 1)] if n > 1 else []) for n, body in enumerate(BODIES)]
    assert strip(pages)[0] == bodies()


def in_the_body(line: Callable[[int], str]) -> list[PageLines]:
    return [page([*body, line(n)]) for n, body in enumerate(BODIES)]


def at_the_foot(line: Callable[[int], str]) -> list[PageLines]:
    return [page(body, foot=[line(n)]) for n, body in enumerate(BODIES)]


def at_the_head(line: Callable[[int], str]) -> list[PageLines]:
    return [page(body, [line(n)]) for n, body in enumerate(BODIES)]


@pytest.mark.parametrize("place", [in_the_body, at_the_foot, at_the_head])
@pytest.mark.parametrize(
    "line",
    [
        lambda n: f"Net pay: {3215 + 17 * n}.00",
        lambda n: "Net pay: 3200.00",
        lambda n: "Balance: 1200",
        lambda n: "Net pay 3200",
        lambda n: "Used 320 kWh",
        lambda n: "Year: 2024",
        lambda n: f"Amount due: {n + 1}",
        lambda n: f"Invoice {n + 1}",
        lambda n: f"Invoice no. {1001 + n}",
        lambda n: f"Question {n + 1}",
        lambda n: f"Sample {n + 1}: lead {3 * n + 2} ppm",
        lambda n: f"Week {n + 1}",
        lambda n: f"{n + 1}. Why we changed",
        lambda n: f"{n + 1} {NAMES[n]} 12",
        lambda n: f"Chapter {n + 1}",
        lambda n: f"{2019 + n}",
        lambda n: f"{4711 + n}",
        lambda n: f"{NAMES[n]} - {NAMES[n]}s",
        lambda n: f"{n + 1} of 3" if n < 3 else "none",
        lambda n: f"Total of page: {n * 7}",
        lambda n: f"[{10 * n:02}:15] Ida: yes",
        lambda n: f"{n * n + 7}",
    ],
)
def test_what_may_differ_in_meaning_stays(
    place: Callable[[Callable[[int], str]], list[PageLines]], line: Callable[[int], str]
) -> None:
    pages = place(line)
    assert strip(pages) == ([p.text for p in pages], None)


@pytest.mark.parametrize("line", [lambda n: str(n + 1), lambda n: "Yours, Ida", lambda n: "1"])
def test_what_does_not_stand_apart_stays(line: Callable[[int], str]) -> None:
    for pages in (in_the_body(line), [page([line(n), *b]) for n, b in enumerate(BODIES)]):
        assert strip(pages) == ([p.text for p in pages], None)


def test_what_stands_elsewhere_on_each_page_stays() -> None:
    pages = at_the_foot(lambda n: "The Long Report")
    for number, one in enumerate(pages):
        assert one.edges is not None
        one.edges[-1] = (740 + 10.0 * number, 751 + 10.0 * number)
    assert strip(pages) == ([p.text for p in pages], None)


def test_what_stands_on_few_pages_stays() -> None:
    pages = [page(body, ["The Long Report"] if n < 3 else []) for n, body in enumerate(BODIES)]
    assert strip(pages)[1] is None
    assert strip([page(body, ["The Long Report"]) for body in BODIES[:2]])[1] is None


def test_two_lines_side_by_side_are_one() -> None:
    """A number that stands by itself at the other end of the line is not alone."""
    pages = [page(body, ["Amount due", str(n + 1)]) for n, body in enumerate(BODIES)]
    for one in pages:
        assert one.edges is not None
        one.edges[1] = one.edges[0]
    assert strip(pages)[1] is None


def test_a_page_keeps_its_only_line() -> None:
    pages = [page([], [str(n + 1)]) for n in range(6)]
    assert strip(pages) == ([str(n + 1) for n in range(6)], None)
    assert strip([page(["Background"])] * 5)[1] is None


def test_without_places_only_page_numbers_at_the_foot_go() -> None:
    def plain(lines: Sequence[str]) -> PageLines:
        return PageLines(list(lines))

    assert strip([plain([*b, str(n + 1)]) for n, b in enumerate(BODIES)])[0] == bodies()
    assert strip([plain([*b, f"Page {n + 1}"]) for n, b in enumerate(BODIES)])[0] == bodies()
    for pages in (
        [plain([str(n + 1), *b]) for n, b in enumerate(BODIES)],
        [plain(["Harbour club", *b]) for b in BODIES],
        [plain([*b, f"Amount due: {n + 1}"]) for n, b in enumerate(BODIES)],
    ):
        assert strip(pages)[1] is None


LINES = st.lists(
    st.sampled_from(["a b", "1", "2", "3", "Page 1", "Page 2", "x: 4", "The Sea", "ii"]), max_size=6
)


@given(st.lists(st.tuples(LINES, LINES, LINES), min_size=1, max_size=8))
def test_nothing_with_words_is_lost_for_good(parts: list[tuple[list, list, list]]) -> None:
    pages = [page(body, head, foot) for head, body, foot in parts]
    texts, told = strip(pages)
    before = [line for one in pages for line in one.texts]
    after = [line for text in texts for line in text.split("\n") if line]
    assert len(before) - len(after) == (told.count if told else 0)
    assert {line for line in before if line in ("a b", "x: 4", "The Sea")} <= set(after)
    for one, text in zip(pages, texts, strict=True):
        assert bool(one.texts) == bool(text)
    assert told is None or 0 < len(told.samples) <= SAMPLES
