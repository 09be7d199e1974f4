from itertools import pairwise

from infllm.cli.tasks.words import FREQUENT, PLACES, SPAN, Words

FILL = "The sea was calm and the boats lay still. "


def places(text: str, question: str, limit: int = PLACES) -> list[tuple[int, int]]:
    return Words(text, question, "", 0.35).places(limit)


def holds(place: tuple[int, int], at: int) -> bool:
    return place[0] <= at < place[1]


def test_the_place_with_most_of_the_words_comes_first():
    text = (
        FILL * 50 + "The harbour is old. " + FILL * 50 + "The harbour office opened. " + FILL * 50
    )
    best, second, *_ = places(text, "When was the harbour office opened?")
    assert holds(best, text.index("office"))
    assert holds(second, text.index("harbour is old"))


def test_words_on_both_sides_of_a_step_stand_together():
    for shift in range(0, SPAN, 7):
        text = "x" * shift + FILL * 40 + "Orla Finn keeps the lamp. " + FILL * 40 + "Orla. Finn?"
        best, *_ = places(text, "orla finn lamp")
        assert holds(best, text.index("Orla"))


def test_a_rare_word_outweighs_common_ones():
    text = ("The lamp of the pier. " + FILL) * 30 + "A key: 3f2a-77b1. " + FILL * 30
    best, *_ = places(text, "What is the lamp, the pier, or the value of 3f2a-77b1?")
    assert holds(best, text.index("3f2a-77b1"))


def test_parts_of_longer_words_are_not_found():
    text = FILL * 20 + "The catalogue of 18234 things. " + FILL * 20
    assert places(text, "cat 823") == []


def test_a_word_that_is_everywhere_is_not_looked_for():
    text = "sea " * (FREQUENT + 1) + "pier"
    assert places(text, "sea") == []
    assert holds(places(text, "sea pier")[0], text.index("pier"))


def test_places_are_inside_of_the_text_and_apart():
    text = FILL * 60 + "pier"
    found = places(text, "boats calm pier", limit=5)
    assert len(found) == 5
    assert all(0 <= a < b <= len(text) for a, b in found)
    starts = sorted(a for a, _ in found)
    assert all(b - a >= 2 * SPAN for a, b in pairwise(starts))
    assert holds(found[0], text.index("pier"))


def test_nothing_asked_and_nothing_to_read():
    assert places(FILL, "") == []
    assert places("", "What?") == []
    assert places(FILL, "?!") == []


def test_letters_that_grow_in_lower_case_move_nothing():
    text = "\u0130" * 1000 + FILL * 20 + "pier. " + FILL * 20
    assert holds(places(text, "pier")[0], text.index("pier"))


def test_words_that_only_ask_say_little():
    text = "It was what it was. " + FILL * 30 + "A jsval is a word. " + FILL * 30
    best, *_ = places(text, "What was a jsval?")
    assert holds(best, text.index("jsval"))
    assert places(text, "What was it?") == []
    words = Words(text, "What was a jsval?", "", 0.35)
    assert 0 < 2 * words.support("It was what it was.") < words.support("A jsval is a word.")
