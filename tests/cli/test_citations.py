"""Citations: tokens and characters, evidence, and what speaks for an answer."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infllm.cli.documents import Collection, Document, Span, read_sources
from infllm.cli.passages import Passages
from infllm.cli.tasks.citations import (
    Evidence,
    cite,
    spoken_of,
    supporting,
)
from tests.cli.documents.make import pdf


@dataclass(frozen=True)
class Unit:
    start: int
    stop: int
    mass: float


def document(text: str, source: str = "a.txt") -> Document:
    return Document(source, "text", text, [Span(0, len(text), source, line=1)])


def passages(*documents: Document, first: int = 1, size: int = 4) -> Passages:
    """Read behind `first` tokens of a head; every token has `size` characters."""
    collection = Collection(list(documents))
    return Passages(collection, range(0, len(collection.text), size), first)


def everywhere(read: Passages) -> list[tuple[int, int, float]]:
    """The whole text as one place that nothing attended."""
    return [(0, read.first + len(read.offsets), 0.0)]


def quotes(read: Passages, question: str, answer: str, **options) -> list[str]:
    return [c.quote for c in cite(read, everywhere(read), question, answer, **options)]


# ---- tokens and characters ----------------------------------------------------------------------


def test_characters_of_tokens():
    read = passages(document("abcdefghij"), first=3)  # abcd efgh ij at 3, 4, 5
    assert read.characters(3, 4) == (0, 4)
    assert read.characters(4, 6) == (4, 10)
    assert read.characters(0, 4) == (0, 4)  # what lies in the head is left out
    assert read.characters(5, 99) == (8, 10)  # and what lies in the question


def test_outside_the_document_there_are_no_characters():
    read = passages(document("abcdefghij"), first=3)
    assert read.characters(0, 3) is None
    assert read.characters(6, 9) is None
    assert read.characters(4, 4) is None
    assert Passages(read.collection, [], 3).characters(0, 9) is None


def test_tokens_of_characters():
    read = passages(document("abcdefghij"), first=3)
    assert read.tokens(0, 10) == (3, 6)
    assert read.tokens(0, 4) == (3, 4)
    assert read.tokens(3, 5) == (3, 5)
    assert read.tokens(9, 10) == (5, 6)
    assert Passages(read.collection, [], 3).tokens(0, 4) == (3, 3)


def test_a_character_of_several_tokens_is_all_of_them():
    read = Passages(Collection([document("a\U0001f40ebc")]), [0, 1, 1, 1, 2, 3], 1)
    assert read.tokens(1, 2) == (2, 5)
    assert read.characters(2, 5) == (1, 2)


@given(st.data())
def test_tokens_and_back_cover_the_characters(data):
    length = data.draw(st.integers(1, 30))
    starts = data.draw(st.sets(st.integers(0, length - 1)))
    read = Passages(Collection([document("x" * length)]), sorted({0, *starts}), 2)
    start = data.draw(st.integers(0, length - 1))
    stop = data.draw(st.integers(start + 1, length))
    characters = read.characters(*read.tokens(start, stop))
    assert characters is not None
    assert characters[0] <= start
    assert stop <= characters[1]


def test_what_truncation_left_out_is_no_part_of_a_passage():
    text = "Front. Left out. Back."
    collection = Collection([document(text)])
    offsets = [0, 4, 16, 20]  # "Front." and " Back."
    read = Passages(collection, offsets, 1, kept=[(0, 6), (16, 22)])
    assert read.characters(1, 3) == (0, 6)
    assert read.characters(1, 5) == (0, 6)
    assert read.characters(3, 5) == (16, 22)
    prefix = Passages(collection, [0, 4], 1, kept=[(0, 6)])
    assert prefix.characters(1, 3) == (0, 6)


# ---- evidence -----------------------------------------------------------------------------------


def test_the_mean_of_a_pass_is_taken_off():
    evidence = Evidence([[Unit(0, 8, 0.5), Unit(8, 16, 0.2), Unit(16, 24, 0.2)]])
    assert evidence.mass == {(0, 8): pytest.approx(0.2), (8, 16): 0.0, (16, 24): 0.0}


def test_what_all_units_get_says_nothing():
    evidence = Evidence([[Unit(0, 8, 0.3), Unit(8, 16, 0.3)], [Unit(0, 8, 0.9)], []])
    assert [place[2] for place in evidence.ranked()] == [0.0, 0.0]


def test_units_are_ranked_by_the_sum_of_passes_as_parts_of_the_largest():
    evidence = Evidence(
        [
            [Unit(0, 8, 0.6), Unit(8, 16, 0.4), Unit(16, 24, 0.0), Unit(24, 32, 0.0)],
            [Unit(0, 8, 0.0), Unit(8, 16, 0.4), Unit(16, 24, 0.0), Unit(24, 32, 0.0)],
        ]
    )
    best, second, *rest = evidence.ranked()
    assert best == (8, 16, 1.0)
    assert second == (0, 8, pytest.approx(0.35 / 0.45))
    assert rest == [(16, 24, 0.0), (24, 32, 0.0)]  # of equal evidence, by place
    assert evidence.ranked(limit=1) == [best]


def test_no_evidence():
    assert Evidence().ranked() == []


# ---- support ------------------------------------------------------------------------------------

NIGHT = (
    "The harbour was quiet. The lamp of the pier was lit by Ada Finch at nine. "
    "Nobody else was there. Gulls slept on the wall. "
)


def test_the_best_sentence_is_first():
    read = passages(document(NIGHT * 3 + "A lamp stood in the hall. " + NIGHT))
    first = quotes(read, "Who lit the lamp of the pier?", "Ada Finch")[0]
    assert first == "The lamp of the pier was lit by Ada Finch at nine."


def test_a_wrong_answer_does_not_outweigh_the_question():
    text = "The lamp of the pier was lit by Ada Finch. Bert Stone sold the red boat to a miller."
    read = passages(document(text))
    best, *_ = supporting(read, everywhere(read), "Who lit the lamp of the pier?", "Bert Stone")
    assert text[best.start : best.stop] == "The lamp of the pier was lit by Ada Finch."


def test_the_sentence_with_most_of_the_question_is_cited_though_the_answer_is_of_others():
    def slip(month: str, gross: str, net: str) -> Document:
        return document(f"Month: {month}\nAda Finch\nGross pay: {gross}\nNet pay: {net}", month)

    others = [slip(month, "145.00", f"{n}00.50") for n, month in enumerate(("May", "June", "July"))]
    read = passages(*others, slip("December", "999.00", "400.50"))
    end = read.collection.text.index("# December")
    places = [(*read.tokens(0, end), 1.0), *everywhere(read)]
    found = cite(read, places, "What was the net pay in December?", "Ada Finch Gross pay: 145.00")
    assert [one.source for one in found] == ["May", "June", "December"]
    assert "Net pay: 400.50" in found[-1].quote
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def test_the_answer_decides_between_sentences_that_both_speak_to_the_question():
    text = "The lamp was lit by Ada. The lamp was lit by Bert. The lamp was lit by Cleo."
    read = passages(document(text))
    assert quotes(read, "Who lit the lamp?", "Bert")[0] == "The lamp was lit by Bert."


def test_a_short_answer_is_found_as_a_word_and_not_inside_of_others():
    text = "In 1957 the ferry sank at the pier. After 5 years the ferry was raised at the pier."
    read = passages(document(text))
    best, *_ = supporting(read, everywhere(read), "When was it?", "5")
    assert text[best.start :].startswith("After 5 years")


def test_attention_decides_where_words_do_not():
    read = passages(document("Alpha is one. Alpha is two. Alpha is six."), size=1)
    units = [(*read.tokens(14, 27), 1.0), (*read.tokens(0, 13), 0.0)]
    best, *_ = supporting(read, units, "What is alpha?", "")
    assert read.collection.text[best.start : best.stop] == "Alpha is two."


def test_nothing_is_cited_when_nothing_speaks_for_the_answer():
    read = passages(document(NIGHT))
    assert quotes(read, "Which planet has rings?", "Saturn") == []
    assert cite(read, [], "Who lit the lamp?", "Ada Finch") == []
    head = [(0, 1, 1.0)]
    assert cite(read, head, "Who lit the lamp?", "Ada Finch") == []


def test_no_more_citations_than_the_limit():
    text = " ".join(f"The lamp was lit by Ada Finch on day {day}." for day in range(9))
    read = passages(document(text))
    assert len(quotes(read, "Who lit the lamp?", "Ada Finch")) == 3
    assert len(quotes(read, "Who lit the lamp?", "Ada Finch", limit=1)) == 1


def test_a_further_citation_is_not_much_worse_than_the_best():
    text = "The grey lamp of the long pier was lit by Ada Finch. A lamp is useful. Ada ate."
    read = passages(document(text))
    assert quotes(read, "Who lit the grey lamp of the long pier?", "Ada Finch") == [
        "The grey lamp of the long pier was lit by Ada Finch."
    ]


def test_scores_are_within_bounds_and_in_order():
    read = passages(document(NIGHT * 2))
    places = [(0, 20, 1.0), (20, 60, 0.3)]
    found = supporting(read, places, "Who lit the lamp of the pier?", "Ada Finch")
    scores = [sentence.score for sentence in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


# ---- where a citation stands --------------------------------------------------------------------


def test_header_lines_of_several_documents_are_never_cited():
    read = passages(
        document("The lamp was lit by Ada.", "lamp.txt"),
        document("Gulls slept.", "The lamp was lit by Ada at nine.txt"),
    )
    found = cite(read, everywhere(read), "Who lit the lamp?", "Ada")
    assert [(c.source, c.quote) for c in found] == [("lamp.txt", "The lamp was lit by Ada.")]


def test_a_citation_stands_in_its_own_source():
    first, second = document(NIGHT, "a.txt"), document("Intro.\n\nBert sank the boat.", "b.txt")
    read = passages(first, second)
    [citation] = cite(read, everywhere(read), "Who sank the boat?", "Bert")
    assert (citation.source, citation.line) == ("b.txt", 3)
    assert second.text[citation.start : citation.stop] == citation.quote == "Bert sank the boat."
    assert citation.verified
    assert citation.place == "b.txt, line 3"


def test_quotes_are_verbatim_across_lines():
    text = "Head\n\nThe lamp of the\n  pier was lit\tby Ada.\nMore."
    read = passages(document(text))
    [citation] = cite(read, everywhere(read), "Who lit the lamp of the pier?", "Ada")
    assert citation.quote == "The lamp of the\n  pier was lit\tby Ada."
    assert citation.line == 3


def test_page_and_chapter_of_a_pdf(tmp_path: Path):
    path = tmp_path / "book.pdf"
    pages = [
        "An opening page about\nnothing in particular.",
        "Here the grey lamp was lit\nby Ada Finch at nine.",
        "A last page on which\ngulls sleep.",
    ]
    path.write_bytes(pdf(pages, preface=1, outline=[("Opening", 0), ("The pier", 1)]))
    collection = read_sources([str(path)])
    read = Passages(collection, range(0, len(collection.text), 4), 1)
    [citation] = cite(read, everywhere(read), "Who lit the grey lamp?", "Ada Finch")
    assert citation.verified
    assert " ".join(citation.quote.split()) == "Here the grey lamp was lit by Ada Finch at nine."
    assert (citation.page, citation.line, citation.chapter) == ("1", None, "The pier")
    assert citation.place == f"{path}, p. 1, The pier"


def test_a_place_is_one_clean_line():
    read = passages(document("The lamp was lit by Ada.", "a\x1b[2J\n.txt"))
    [citation] = cite(read, everywhere(read), "Who lit the lamp?", "Ada")
    assert citation.place == "a[2J .txt, line 1"
    assert citation.source == "a\x1b[2J\n.txt"


# ---- what nobody looked at ----------------------------------------------------------------------


def test_a_sentence_that_says_the_answer_is_cited_though_nothing_attended_it():
    fill = "The sea was calm. " * 400
    read = passages(document(f"{fill}Ada Finch lit the lamp of the pier. {fill}"))
    asked = "Who lit the lamp of the pier?", "It was Ada Finch."
    head = [(1, 40, 1.0)]
    assert cite(read, head, *asked) == []
    [found] = cite(read, [*head, *spoken_of(read, *asked)], *asked)
    assert (found.quote, found.verified) == ("Ada Finch lit the lamp of the pier.", True)


def test_what_was_cut_out_of_the_reading_is_not_found():
    fill = "The sea was calm. " * 40
    text = f"{fill}Ada Finch lit the lamp. {fill}"
    cut = text.index("Ada")
    end = cut + len("Ada Finch lit the lamp.")
    kept = [(0, cut), (end, len(text))]
    offsets = [*range(0, cut, 4), *range(end, len(text), 4)]
    read = Passages(Collection([document(text)]), offsets, 1, kept)
    asked = "Who lit the lamp?", "Ada Finch"
    assert cite(read, spoken_of(read, *asked), *asked) == []


def test_words_that_stand_nowhere_lead_nowhere():
    read = passages(document("The sea was calm. " * 40))
    asked = "Who lit the lamp?", "Ada Finch"
    assert cite(read, spoken_of(read, *asked), *asked) == []
    assert spoken_of(Passages(read.collection, [], 1), *asked) == []
