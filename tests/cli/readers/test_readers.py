"""`infllm ask --reader`: what it reads, keeps, cites and refuses, with the built-in model."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infllm.cli.readers.base import Excerpt
from infllm.cli.readers.infiniretri import ask_about
from infllm.cli.readers.sentences import SHORT_IN_WINDOWS, sentences, windows
from infllm.engine.text import prompt_text
from tests.cli.memories import ANSWER, HARBOUR, MEADOW
from tests.cli.stories import fact, story

SMALL = ("--set", "infiniretri.window=200", "--set", "infiniretri.topk=40")


@pytest.fixture
def two(tmp_path):
    """A story of some 3,000 tokens that tells two numbers."""
    path = tmp_path / "two.txt"
    path.write_text(story(200, fact("vague-harbor", ANSWER), fact("quiet-meadow", "1029384")))
    return path


# ---- the command --------------------------------------------------------------------------------


def test_the_answer_is_found_and_cited(infllm, pocket, two):
    result = infllm("ask", two, HARBOUR, "--reader", "infiniretri", *SMALL)
    assert (result.code, result.out) == (0, f"{ANSWER}\n")
    assert f'[1] {two}, line 1: "{fact("vague-harbor", ANSWER)}"' in result.err
    assert "pocket, infiniretri, peak memory" in result.err


def test_json_tells_the_reader_and_all_that_was_read(infllm, pocket, two):
    result = infllm("ask", two, MEADOW, "--reader", "infiniretri", *SMALL, "--json")
    fields = json.loads(result.out)
    assert (fields["answer"], fields["reader"], fields["policy"]) == (
        "1029384",
        "infiniretri",
        None,
    )
    assert fields["tokens_read"] > fields["tokens_given"] > 2000
    assert fields["citations"][0]["verified"]
    assert (fields["memory"], fields["tokens_truncated"]) == (None, 0)


def test_each_question_of_a_file_is_read_for(infllm, pocket, two, tmp_path):
    questions, answers = tmp_path / "q.txt", tmp_path / "a.jsonl"
    questions.write_text(f"{HARBOUR}\n{MEADOW}\n")
    ask = "ask", two, "--questions", questions, "-o", answers, "--reader", "infiniretri"
    assert infllm(*ask, *SMALL).code == 0
    found = [json.loads(line)["answer"] for line in answers.read_text().splitlines()]
    assert found == [ANSWER, "1029384"]
    assert "2 of 2 questions answered" in infllm(*ask, *SMALL).err
    other = infllm(*ask, *SMALL, "--set", "infiniretri.topk=41")
    assert other.code == 2
    assert "reader_settings" in other.err


def test_the_documents_of_a_memory_are_read_anew(infllm, pocket, harbour):
    result = infllm("ask", harbour, HARBOUR, "--reader", "infiniretri", *SMALL)
    assert (result.code, result.out) == (0, f"{ANSWER}\n")
    assert "harbour.txt, line 1" in result.err


def test_what_max_len_leaves_out_is_not_read(infllm, pocket, two):
    cut = "--set", "max_len=1000", "--set", "truncation=prefix"
    result = infllm("ask", two, HARBOUR, "--reader", "infiniretri", *SMALL, *cut, "--json")
    fields = json.loads(result.out)
    assert fields["tokens_truncated"] > 1000
    assert fields["answer"] != ANSWER


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--reader", "infiniretry"], "did you mean 'infiniretri'?"),
        (["--reader", "infiniretri", "--policy", "origin"], "--policy asks for a memory"),
        (["--reader", "infiniretri", "--read-back"], "--read-back asks for a memory"),
        (["--reader", "infiniretri", "--explain"], "--explain and --plot asks for a memory"),
        (["--reader", "infiniretri", "--max-tokens", "10"], "more than the budget of 10"),
    ],
)
def test_what_does_not_go_with_a_reader(infllm, pocket, two, more, says):
    result = infllm("ask", two, HARBOUR, *more)
    assert result.code in (2, 4)
    assert says in result.err


def test_interrupted_while_reading(infllm, pocket, two, monkeypatch):
    from infllm.engine import Engine

    plain, seen = Engine.attention_rows, []

    def rows(self, ids, first):
        seen.append(ids)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return plain(self, ids, first)

    monkeypatch.setattr(Engine, "attention_rows", rows)
    result = infllm("ask", two, HARBOUR, "--reader", "infiniretri", *SMALL)
    assert result.code == 130
    assert "of the documents" in result.err


# ---- the method ---------------------------------------------------------------------------------

TEXTS = st.text(st.sampled_from("ab .\n!?。é" * 2 + "c"), max_size=120)


@given(TEXTS, st.integers(1, 12))
def test_windows_hold_all_of_a_text_and_no_more_than_fits(text, room):
    """Also what has no sentence's end, which the published code loses."""

    def tokens(piece):
        return len(piece)

    found = windows(text, tokens, room)
    assert "".join(text[a:b] for a, b in found) == text[: found[-1][1] if found else 0]
    assert not text[found[-1][1] if found else 0 :].strip()
    assert all(b - a <= room for a, b in found)
    ranges = sentences(text, SHORT_IN_WINDOWS)
    assert [b for _, b in ranges[:-1]] == [a for a, _ in ranges[1:]]


def test_a_run_without_an_end_is_read(pocket, infllm, tmp_path):
    """Nine hundred characters of one word, and a fact behind them."""
    path = tmp_path / "run.txt"
    path.write_text(f"{'QWxhZGRpbjpvcGVu' * 60} {fact('vague-harbor', ANSWER)}")
    result = infllm("ask", path, HARBOUR, "--reader", "infiniretri", *SMALL)
    assert result.out == f"{ANSWER}\n"


def test_control_tokens_in_a_document_are_text(pocket, infllm, text):
    assert infllm("ask", text, HARBOUR, "--reader", "infiniretri", *SMALL).code == 0
    engine = pocket[-1]
    tokenizer = engine.tokenizer
    control = tokenizer.decode([]) + next(iter(tokenizer._added))
    prompt = prompt_text(tokenizer, engine.config, "ask", question="Why?")
    document = f"One. {control} Two is a longer sentence."
    asked = ask_about(tokenizer, prompt, Excerpt.of(document, 0, len(document)), "Why?")
    assert not set(asked.ids[len(prompt.bos_ids) :]) & tokenizer.control_ids
    first, last = asked.columns
    assert tokenizer.spell(asked.ids[first:last]).strip() == document
    assert tokenizer.spell(asked.ids[asked.first_row :]).startswith("Question: Why?")


def test_an_excerpt_knows_where_it_stands():
    text = "0123456789"
    joined = Excerpt.of(text, 2, 4) + Excerpt(" ", np.array([-1])) + Excerpt.of(text, 4, 6)
    assert joined.text == "23 45"
    assert joined.ranges() == [(2, 6)]
    assert joined[1:].ranges() == [(3, 6)]
    apart = Excerpt.of(text, 0, 2) + Excerpt.of(text, 7, 9)
    assert apart.ranges() == [(0, 2), (7, 9)]
    assert Excerpt("  ", np.array([-1, -1])).stripped().ranges() == []
