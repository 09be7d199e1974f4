"""An answer that goes round in a circle is stopped and told; one that differs anywhere is not."""

import json
import random
import sys
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infllm.cli.tasks.repetition import LONGEST, TIMES, TOKENS, Repetition


def stopped_at(ids):
    """How many tokens there were when the answer was stopped; None where it was not."""
    watch = Repetition()
    for number, token in enumerate(ids, start=1):
        watch.push(token)
        if watch.endless:
            return number
    return None


@given(
    st.lists(st.integers(0, 9), max_size=80),
    st.lists(st.integers(10, 99), min_size=1, max_size=LONGEST, unique=True),
)
def test_a_circle_of_any_length_is_stopped_in_its_fourth_round_or_after_32_tokens(before, circle):
    head = [number + 100 * i for i, number in enumerate(before)]  # repeats nothing itself
    rounds = max(TIMES, -(-TOKENS // len(circle)))
    end = stopped_at(head + circle * (rounds + 1))
    assert end is not None
    assert end == len(head) + max(TIMES * len(circle), TOKENS)


@given(st.integers(1, LONGEST), st.integers(0, 10**6))
def test_what_comes_three_times_goes_on(length, seed):
    circle = random.Random(seed).sample(range(1000), length)
    times = 3 if 3 * length >= TOKENS else (TOKENS - 1) // length
    assert stopped_at([*circle * times, 2000, *circle * times]) is None


@pytest.mark.parametrize("words", [1, 5, 20])
def test_lists_tables_and_numbers_that_differ_go_on(words):
    row = list(range(100, 100 + words))
    assert stopped_at([t for n in range(300) for t in (*row, n // 10, n % 10, 99)]) is None
    assert stopped_at([t for n in range(300) for t in (*row, *map(int, str(n)), 99)]) is None
    assert stopped_at([t for n in range(300) for t in (n, *row, 99)]) is None


def test_a_longer_circle_than_those_looked_for_goes_on():
    assert stopped_at(list(range(LONGEST + 1)) * 5) is None


def test_a_doubt_that_was_wrong_is_dropped():
    watch = Repetition()
    doubts = []
    for token in [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 6, 1]:
        watch.push(token)
        doubts.append(watch.doubtful)
    assert doubts == [False] * 9 + [True, True, False, False]


LOOP = " It is the report" + " of the report" * 60
TOLD = "the answer repeated itself without end and was stopped (--let-repeat)\n"


def test_ask_stops_and_tells(infllm, fakes, book):
    fakes.answer = lambda text: LOOP
    result = infllm("ask", book, "What is it?")
    assert result.code == 0
    assert result.out == "It is the report of the report of\n"
    assert result.err.endswith(TOLD)
    assert TOLD not in infllm("ask", "-q", book, "What is it?").err


def test_json_tells_by_finish(infllm, fakes, book):
    fakes.answer = lambda text: LOOP
    fields = json.loads(infllm("ask", book, "What is it?", "--json").out)
    assert fields["finish"] == "repetition"
    assert fields["answer"] == "It is the report of the report of"
    assert 32 <= fields["tokens_generated"] < 60


def test_thinking_that_goes_round_is_stopped_and_told(infllm, fakes, book):
    fakes.answer = lambda text: " <think> so" + " or is it not" * 60
    result = infllm("ask", book, "What is it?")
    assert result.out == "\n"
    assert "of thinking left out (--show-thinking): it repeated itself without end" in result.err


def test_let_repeat_goes_on(infllm, fakes, book):
    fakes.answer = lambda text: LOOP
    result = infllm("ask", book, "What is it?", "--let-repeat", "--json")
    fields = json.loads(result.out)
    assert (fields["answer"], fields["finish"]) == (LOOP.strip(), "stop")


def test_a_list_whose_items_differ_is_whole(infllm, fakes, book):
    text = " ".join(f"- The harbour of town {n} has {n * n} boats." for n in range(25))
    fakes.answer = lambda _: f" {text}"
    result = infllm("ask", book, "Which harbours?", "--max-new-tokens", "1000")
    assert result.out == f"{text}\n"
    assert TOLD not in result.err


def test_a_repetition_that_ends_is_whole(infllm, fakes, book):
    text = "He said no, no, no, no, no, no, no, and left" + " and ran" * 9
    fakes.answer = lambda _: f" {text}"
    assert infllm("ask", book, "What did he say?").out == f"{text}\n"


def test_one_cut_at_its_limit_amid_a_repetition_is_whole_up_to_there(infllm, fakes, book):
    fakes.answer = lambda text: LOOP
    result = infllm("ask", book, "What is it?", "--max-new-tokens", "16", "--json")
    fields = json.loads(result.out)
    assert fields["finish"] == "length"
    assert len(fields["answer"].split()) == 16


@pytest.mark.parametrize("strategy", ["memory", "map-reduce"])
def test_summaries_stop_and_tell(infllm, fakes, book, strategy):
    fakes.answer = lambda text: LOOP
    options = ["--max-new-tokens", "100", "--strategy", strategy]
    result = infllm("summarize", book, *options)
    assert result.out == "It is the report of the report of\n"
    assert result.err.endswith(TOLD)


def test_many_questions_stop_and_tell(infllm, fakes, book, tmp_path):
    fakes.answer = lambda text: LOOP
    (tmp_path / "q.txt").write_text("What is it?\nWhat else?\n")
    result = infllm("ask", book, "--questions", tmp_path / "q.txt")
    assert result.err.count(TOLD) == 2


def test_a_conversation_goes_on_from_what_was_shown(infllm, fakes, book, monkeypatch):
    seen = []

    def answer(text):
        seen.append(text)
        return LOOP if len(seen) == 1 else " fine"

    fakes.answer = answer
    monkeypatch.setattr(sys, "stdin", StringIO("What is it?\nAnd now?\n"))
    result = infllm("chat", book)
    assert result.out == "It is the report of the report of\nfine\n"
    assert result.err == TOLD
    assert seen[1].count("of the report") == 1
