"""`infllm chat`, questions piped in: turns, commands, Ctrl-C, and conversations that are kept."""

import io
import json
import re
import sys

import pytest

from infllm.cli.memory import about_memory
from tests.cli.stories import fact, question, story

HARBOUR = question("vague-harbor")
ANSWER = "7281934"


@pytest.fixture
def chat(infllm, monkeypatch):
    """`chat(source, "line", ...)`: a conversation of these lines."""

    def run(source: object, *lines: str, options: tuple[str, ...] = ()):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return infllm("chat", source, *options)

    return run


@pytest.fixture
def echo(fakes):
    """Answers with the number of the turn."""
    fakes.answer = lambda text: f" answer {text.count('Question:')}"
    return fakes


def test_answers_alone_on_stdout(chat, echo, book):
    result = chat(book, "Who?", "", "   ", "Where?")
    assert (result.code, result.out) == (0, "answer 1\nanswer 2\n")
    assert result.err == ""


def test_a_turn_sees_those_before_it_and_a_reset_forgets_them(chat, echo, book):
    result = chat(book, "One?", "Two?", "/reset", "One again?")
    assert result.out == "answer 1\nanswer 2\nanswer 1\n"
    assert result.err == "the conversation is forgotten\n"


def test_the_end_of_the_input_ends_and_so_does_quit(chat, echo, book):
    assert chat(book).out == ""
    for end in ("/quit", "/exit", "/q"):
        result = chat(book, "One?", end, "Two?")
        assert (result.code, result.out) == (0, "answer 1\n")
        assert echo.engine.closed


def test_a_last_line_without_line_feed_is_asked(infllm, echo, book, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Who?"))
    assert infllm("chat", book).out == "answer 1\n"


def test_cite(chat, fakes, book):
    result = chat(book, "/cite", "What is the pass key?", "/cite", "/reset", "/cite")
    assert result.out == "12345\n"
    assert result.err == (
        "nothing was answered yet\n"
        f'[1] {book}, line 1: "The pass key is 12345."\n'
        "the conversation is forgotten\n"
        "nothing was answered yet\n"
    )


def test_cite_where_nothing_speaks_for_the_answer(chat, fakes, book):
    fakes.answer = lambda text: " Saturn"
    result = chat(book, "Which planet has rings?", "/cite")
    assert result.err == "nothing in the documents speaks for the last answer\n"


def test_help_names_every_command(chat, echo, book):
    result = chat(book, "/help")
    assert result.out == ""
    for name in ("/cite", "/reset", "/save", "/memory", "/help", "/quit"):
        assert f"\n{name} " in f"\n{result.err}"


def test_an_unknown_command_is_told_and_the_conversation_goes_on(chat, echo, book):
    result = chat(book, "/sing\x1b[2J loud", "/save", "Who?")
    assert (result.code, result.out) == (0, "answer 1\n")
    assert result.raw_err == (
        "error: /sing[2J is not a command\nhint: see /help\n"
        "error: /save needs a name\nhint: for example: /save talk.mem\n"
    )


def test_an_answer_cut_at_its_limit_says_so(chat, echo, book):
    result = chat(book, "Who?", options=("--max-new-tokens", "1"))
    assert (result.out, result.err) == (
        "answer\n",
        "the answer was cut at 1 tokens (--max-new-tokens)\n",
    )


def test_standard_input_is_no_document_here(chat, echo):
    result = chat("-", "Who?")
    assert (result.code, result.out) == (2, "")
    assert "standard input is where the questions come from" in result.err


def test_sources_are_needed(infllm):
    assert infllm("chat").code == 2


# ---- Ctrl-C -------------------------------------------------------------------------------------


def test_ctrl_c_stops_an_answer_and_the_next_line_is_asked(chat, fakes, book):
    fakes.answer = lambda text: " one two three"

    def interrupt(engine) -> None:
        engine.interrupt_answer_at = 2

    fakes.prepare = interrupt
    result = chat(book, "Count.", "Again?")
    assert (result.code, result.out) == (0, "one two\none two\n")
    assert result.err == "stopped\nstopped\n"
    # A turn that was stopped is read as far as it came.
    assert (
        fakes.engine.sessions[-1]
        .text()
        .endswith("\n\nQuestion: Count.\nAnswer: one two\n\nQuestion: Again?\nAnswer: one two")
    )


def test_ctrl_c_while_a_question_is_read_forgets_that_question(chat, echo, book, monkeypatch):
    from tests.cli.fakes import FakeSession

    read = FakeSession.read

    def stopping(self, ids: list[int]) -> None:
        if "Never?" in self.engine.tokenizer.decode(ids):
            raise KeyboardInterrupt
        read(self, ids)

    monkeypatch.setattr(FakeSession, "read", stopping)
    result = chat(book, "One?", "Never?", "Two?")
    assert (result.code, result.out) == (0, "answer 1\nanswer 2\n")
    assert result.err == "stopped\n"


# ---- with the real engine -----------------------------------------------------------------------


def test_a_memory_is_talked_about_and_stays_as_it_is(chat, infllm, harbour, shelf):
    before = {path.name: path.read_bytes() for path in harbour.iterdir()}
    result = chat(harbour, HARBOUR, "/cite", "/memory", HARBOUR)
    assert result.code == 0
    assert result.out.splitlines()[0] == ANSWER
    source = f"{shelf}/harbour.txt"
    assert f'[1] {source}, line 1: "{fact("vague-harbor", ANSWER)}"\n' in result.err
    assert f"documents: {source}\n" in result.err
    assert re.search(r"[\d,]+ tokens in \d+ units, 1 turn of conversation; ", result.raw_err)
    assert {path.name: path.read_bytes() for path in harbour.iterdir()} == before


def test_a_conversation_that_was_saved_is_gone_on_with(chat, infllm, harbour, tmp_path):
    talk = tmp_path / "talk.mem"
    result = chat(harbour, HARBOUR, f"/save {talk}", f"/save {talk}")
    assert result.code == 0
    assert f"saved to {talk}; go on with: infllm chat {talk}\n" in result.err
    assert f"error: {talk} is a memory already\n" in result.err
    assert about_memory(talk)["turns"] == 1
    assert infllm("memory", "verify", talk).code == 0

    together = chat(harbour, HARBOUR, HARBOUR).out.splitlines()
    assert chat(talk, HARBOUR).out.splitlines() == together[1:]
    assert re.search(r", 1 turn of conversation", chat(talk, "/memory").raw_err)
    assert infllm("ask", talk, HARBOUR).out == f"{ANSWER}\n"


def test_documents_appended_to_a_conversation_are_cited_where_they_stand(
    chat, infllm, harbour, tmp_path
):
    talk, sequel = tmp_path / "talk.mem", tmp_path / "sequel.txt"
    chat(harbour, "Who painted the mill?", "Who swept the quay?", f"/save {talk}")
    sequel.write_text(story(40, fact("quiet-meadow", "5510362"), seed=1))
    assert infllm("index", "--append", sequel, "-o", talk).code == 0
    assert about_memory(talk)["turns"] == 2
    for asked, cited in (
        (HARBOUR, fact("vague-harbor", ANSWER)),
        (question("quiet-meadow"), fact("quiet-meadow", "5510362")),
    ):
        fields = json.loads(infllm("ask", talk, asked, "--json").out)
        assert fields["citations"][0]["quote"] == cited
        assert fields["citations"][0]["verified"]


def test_a_place_that_holds_other_files_is_refused_and_the_conversation_goes_on(
    chat, harbour, tmp_path
):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("Dear Ada")
    result = chat(harbour, f"/save {mine}", HARBOUR)
    assert (result.code, result.out) == (0, f"{ANSWER}\n")
    assert "holds other files (letter.txt) and no memory" in result.err


def test_a_line_that_is_no_unicode_is_asked_all_the_same(infllm, harbour, monkeypatch):
    piped = io.TextIOWrapper(
        io.BytesIO(b"Wh\xff?\n" + HARBOUR.encode()), "utf-8", "surrogateescape"
    )
    monkeypatch.setattr(sys, "stdin", piped)
    result = infllm("chat", harbour, "--max-new-tokens", "8")
    assert (result.code, result.out.splitlines()[-1]) == (0, ANSWER)
