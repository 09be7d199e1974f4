"""`infllm ask`: streams, JSON, errors and Ctrl-C, with a scripted engine."""

import io
import json
import sys

import pytest


def test_answer_alone_on_stdout(infllm, fakes, book):
    result = infllm("ask", book, "What is the pass key?")
    assert result.code == 0
    assert result.out == "12345\n"
    assert result.err == (
        f'[1] {book}, line 1: "The pass key is 12345."\n'
        "read 1,214 tokens in T (R tok/s), answered in T; pocket, inf-llm, peak memory M\n"
    )
    assert fakes.engine.closed


def test_document_and_question_are_segments_of_their_own(infllm, fakes, book):
    infllm("ask", book, "What is the pass key?")
    document, question, *_ = fakes.engine.sessions
    assert document.ended == [1207]
    assert question.ended == [1207, 1214]


def test_query_is_the_same_command(infllm, fakes, book):
    assert infllm("query", book, "What is the pass key?").out == "12345\n"


def test_quiet_says_nothing_but_the_answer(infllm, fakes, book):
    result = infllm("ask", "-q", book, "What is the pass key?")
    assert (result.out, result.raw_err) == ("12345\n", "")


def test_json(infllm, fakes, book):
    result = infllm("ask", book, "What is the pass key?", "--json")
    assert result.out.count("\n") == 1
    fields = json.loads(result.out)
    assert fields["schema"] == 1
    assert fields["command"] == "ask"
    assert fields["answer"] == "12345"
    [citation] = fields["citations"]
    assert 0 < citation.pop("score") <= 1
    assert citation == {
        "source": str(book),
        "page": None,
        "line": 1,
        "chapter": None,
        "quote": "The pass key is 12345.",
        "verified": True,
    }
    assert (fields["memory"], fields["reused"]) == (None, False)
    assert (fields["tokens_given"], fields["tokens_read"]) == (1214, 1214)
    assert fields["tokens_truncated"] == 0
    assert fields["seconds"] >= 0
    assert fields["tokens_per_second"] > 0
    assert (fields["preset"], fields["policy"], fields["finish"]) == ("pocket", "inf-llm", "stop")
    assert fields["sources"] == [str(book)]


def test_several_sources(infllm, fakes, book, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("Nothing of note.")
    result = infllm("ask", other, book, "What is the pass key?")
    assert result.out == "12345\n"


def test_standard_input(infllm, fakes, book, monkeypatch):
    piped = io.TextIOWrapper(io.BytesIO(book.read_bytes()))
    monkeypatch.setattr(sys, "stdin", piped)
    assert infllm("ask", "-", "What is the pass key?").out == "12345\n"


def test_a_policy_that_forgets(infllm, fakes, book):
    result = infllm("ask", book, "What is the pass key?", "--policy", "stream-lm")
    assert result.out == "I do not know.\n"
    assert "stream-lm" in result.err


def test_sampling_reaches_the_engine(infllm, fakes, book):
    options = "--temperature 0.5 --top-p 0.9 --top-k 5 --repetition-penalty 1.2 --seed 7"
    infllm("ask", book, "What?", *options.split(), "--max-new-tokens", "3")
    assert fakes.engine.sampling == {
        "max_new_tokens": 3,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "repetition_penalty": 1.2,
        "seed": 7,
    }


def test_an_answer_cut_at_its_limit_says_so(infllm, fakes, book):
    fakes.answer = lambda text: " one two three four"
    result = infllm("ask", book, "Count.", "--max-new-tokens", "2")
    assert result.out == "one two\n"
    assert result.err.endswith("the answer was cut at 2 tokens (--max-new-tokens)\n")


def test_stop_text_is_not_printed(infllm, fakes, book):
    fakes.answer = lambda text: " blue. Next question"
    assert infllm("ask", book, "Colour?", "--stop", ". Next").out == "blue\n"


def test_control_sequences_of_model_and_document_do_not_reach_the_terminal(infllm, fakes, tmp_path):
    evil = tmp_path / "evil\x1b[2J.txt"
    evil.write_text("Text.")
    fakes.answer = lambda text: " \x1b[31mred\x07 \x9b1mbold[/red]\r"
    result = infllm("ask", "-v", evil, "What?")
    assert result.out == "[31mred 1mbold[/red]\n"
    assert "\x1b" not in result.raw_err


def test_truncation_happens_only_when_asked_for_and_is_told(infllm, fakes, book):
    cut = ("--set", "max_len=100", "--set", "truncation=suffix")
    result = infllm("ask", book, "What is the pass key?", *cut)
    assert result.out == "I do not know.\n"
    assert "read 100 tokens in T (R tok/s), 1,114 truncated as configured" in result.err
    fields = json.loads(infllm("ask", book, "What is the pass key?", *cut, "--json").out)
    assert (fields["tokens_given"], fields["tokens_read"]) == (1214, 100)
    assert fields["tokens_truncated"] == 1114
    result = infllm("ask", book, "What is the pass key?", "--set", "max_len=100")
    assert (result.code, result.out) == (4, "")
    assert result.err == (
        "error: 1,214 tokens to read, more than max_len 100\n"
        "hint: raise max_len, or let it be cut: --set truncation=middle (or prefix, suffix)\n"
    )


def test_memory_is_predicted_before_reading(infllm, fakes, book, monkeypatch):
    assert "the memory of 1,207 tokens takes 1.21 MB on the host\n" in (
        infllm("ask", "-v", book, "What is the pass key?").raw_err
    )
    monkeypatch.setattr("infllm.cli.reading.available_memory_bytes", lambda: 10**6)
    result = infllm("ask", book, "What is the pass key?")
    assert result.out == "12345\n"
    assert result.raw_err.startswith(
        "warning: the memory of 1,207 tokens takes about 1.21 MB, and 1 MB are free; "
    )


def test_budget(infllm, fakes, book):
    result = infllm("ask", book, "What is the pass key?", "--max-tokens", "1000")
    assert (result.code, result.out) == (4, "")
    assert result.err == (
        "error: 1,214 tokens to read, more than the budget of 1,000\n"
        "hint: raise --max-tokens, or give fewer sources\n"
    )
    assert fakes.engine.sessions == []


def test_ctrl_c_while_reading_says_how_far_it_came(infllm, fakes, tmp_path):
    long = tmp_path / "long.txt"
    long.write_text("word " * 9_999 + "word")

    def interrupt(engine):
        engine.interrupt_reading_at = 5000

    fakes.prepare = interrupt
    result = infllm("ask", long, "What?")
    assert (result.code, result.out) == (130, "")
    assert result.err == (
        "error: interrupted after reading 4,096 of 10,001 tokens\n"
        "hint: nothing was answered; the same command starts over\n"
    )
    result = infllm("ask", long, "What?", "--json")
    assert result.code == 130
    assert json.loads(result.out)["code"] == 130


def test_ctrl_c_while_answering_keeps_what_was_printed(infllm, fakes, book):
    fakes.answer = lambda text: " one two three four"

    def interrupt(engine):
        engine.interrupt_answer_at = 2

    fakes.prepare = interrupt
    result = infllm("ask", book, "Count.")
    assert (result.code, result.out) == (130, "one two\n")
    assert result.err.endswith("warning: interrupted: the answer above is not complete\n")
    fields = json.loads(infllm("ask", book, "Count.", "--json").out)
    assert (fields["answer"], fields["finish"]) == ("one two", "interrupted")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no source and no question given"),
        (["book.txt"], "a source and a question are needed; only one of them was given"),
        (["book.txt", "  "], "the question is empty"),
    ],
)
def test_incomplete_command(infllm, arguments, message):
    result = infllm("ask", *arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        f'error: {message}\nhint: for example: infllm ask book.pdf "Who inherits the house?"\n'
    )


def test_a_file_where_the_question_should_be(infllm, book):
    result = infllm("ask", book, book)
    assert result.code == 2
    assert "the last argument is the question" in result.err
