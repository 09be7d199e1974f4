from infllm.cli.tasks.word_search import MOST, STRETCH, stretches
from infllm.cli.tasks.words import Words

FILL = "The sea was calm and the boats lay still. " * 30


def test_words_that_only_ask_say_little():
    text = "It was what it was. " + FILL + "A jsval is a word. " + FILL
    words = Words(text, "What was a jsval?", "", 0.35)
    assert 0 < 2 * words.support("It was what it was.") < words.support("A jsval is a word.")


def test_a_rare_word_is_worth_more():
    text = "The lamp of the pier. " * 20 + FILL + "A key: 3f2a-77b1."
    words = Words(text, "the lamp of 3f2a-77b1", "", 0.35)
    assert words.support("3f2a-77b1 is a key") > words.support("a lamp of ours")


def found(text, worth, **how):
    return [text[a:b] for a, b in stretches(text, worth, **how)]


def test_words_are_found_where_they_stand_together():
    text = FILL + "The keeper lit the lamp at nine." + FILL + "A lamp. " + FILL + "A keeper."
    best, *_ = found(text, {"keeper": 2.0, "lamp": 2.0, "nine": 1.0})
    assert "keeper lit the lamp" in best


def test_a_sentence_across_the_end_of_a_stretch_counts_whole():
    text = "x " * (STRETCH // 2 - 8) + "the keeper of the lamp lit it at nine " + "lamp " * 300
    best, second, *_ = stretches(text, {"keeper": 1.0, "lamp": 1.0, "nine": 1.0})
    assert {best, second} == {(0, STRETCH), (STRETCH, 2 * STRETCH)}


def test_parts_of_longer_words_and_worthless_words_lead_nowhere():
    assert stretches("Lamplight. 1375 ships. " + FILL, {"lamp": 1.0, "375": 1.0}) == []
    assert stretches("A lamp. " + FILL, {"lamp": 0.0, "pier": 1.0}) == []


def test_where_the_script_runs_words_together_they_are_found_inside():
    assert stretches("港の灯台は六月に点いた。", {"灯台": 1.0}) == [(0, 12)]


def test_letters_that_grow_in_lower_case_shift_nothing():
    text = "\u0130" * 3 * STRETCH + "The lamp."
    [(start, stop)] = stretches(text, {"lamp": 1.0})
    assert "lamp" in text[start:stop]


def test_no_more_than_asked_for_and_words_that_stand_everywhere_are_left_out():
    text = "lamp " * (MOST + 1) + "pier"
    assert len(stretches("lamp " * 1000, {"lamp": 1.0}, limit=3)) == 3
    [(start, stop)] = stretches(text, {"lamp": 1.0, "pier": 1.0})
    assert text[start:stop].endswith("pier")
