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
