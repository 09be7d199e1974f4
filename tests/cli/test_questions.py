"""Many questions to one memory, and the file that their answers go to."""

import io
import json
import os
import re
import sys
from pathlib import Path

import pytest

from tests.cli.memories import ANSWER, HARBOUR


@pytest.fixture
def asked(tmp_path) -> Path:
    path = tmp_path / "questions.txt"
    path.write_text("What is the pass key?\n\n  Which colour?  \nWhat is the pass key?\nWhy?\n")
    return path


ASKED = ["What is the pass key?", "Which colour?", "Why?"]


@pytest.fixture
def answers(fakes):
    """Answers that tell their question, and with it that every question sees no other."""

    def answer(text: str) -> str:
        document, *questions = text.split("\n\nQuestion:")
        assert "pass key" in document
        return " to" + "".join(questions).removesuffix("\nAnswer:")

    fakes.answer = answer
    return fakes


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_line_of_a_file_is_asked_once(infllm, answers, book, asked):
    result = infllm("ask", book, "--questions", asked)
    assert result.code == 0
    assert result.out == "".join(f"{line}\nto {line}\n\n" for line in ASKED)
    assert result.err.endswith("3 questions answered in T\n")
    assert len(answers.engines) == 1


def test_text_answers_have_their_citations_on_standard_error(infllm, fakes, book, asked):
    result = infllm("ask", book, "--questions", asked)
    assert f'[1] {book}, line 1: "The pass key is 12345."' in result.err
    assert "[1]" not in result.out


def test_questions_as_json_lines(infllm, answers, book, asked):
    result = infllm("ask", book, "--questions", asked, "--json")
    found = [json.loads(line) for line in result.out.splitlines()]
    assert [fields["question"] for fields in found] == ASKED
    assert [fields["answer"] for fields in found] == [f"to {line}" for line in ASKED]
    assert {(fields["schema"], fields["command"]) for fields in found} == {(1, "ask")}


def test_questions_from_standard_input(infllm, answers, book, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Why?\nHow?\n"))
    assert infllm("ask", book, "--questions", "-").out == "Why?\nto Why?\n\nHow?\nto How?\n\n"


def test_answers_go_to_a_file_which_is_gone_on_with(infllm, answers, book, asked, tmp_path):
    output = tmp_path / "answers.jsonl"
    result = infllm("ask", book, "--questions", asked, "-o", output)
    assert (result.code, result.out) == (0, "")
    assert [fields["question"] for fields in lines(output)] == ASKED
    first = output.read_bytes()
    again = infllm("ask", book, "--questions", asked, "-o", output)
    assert (again.code, again.err) == (0, "3 of 3 questions answered\n")
    assert answers.engine.sessions == []  # nothing was read for nothing
    asked.write_text(asked.read_text() + "How?\n")
    assert "3 of 4 questions" in infllm("ask", book, "--questions", asked, "-o", output).err
    assert output.read_bytes().startswith(first)
    assert [fields["question"] for fields in lines(output)] == [*ASKED, "How?"]


@pytest.fixture
def given(infllm, answers, book, asked, tmp_path):
    """The file of answers to the three questions, and a call that asks them again."""
    output = tmp_path / "answers.jsonl"

    def ask(*options: object, source: Path = book):
        return infllm("ask", source, "--questions", asked, "-o", output, *options)

    assert ask().code == 0
    return output, ask


def test_a_line_of_the_file_is_an_answer_and_nothing_else(given):
    output, _ = given
    assert [set(line) >= {"question", "answer", "citations", "key"} for line in lines(output)] == (
        [True] * 3
    )
    beside = json.loads(output.with_name("answers.jsonl.key.json").read_text())
    assert beside["sources"]["names"].endswith("book.txt")
    assert beside["policy"] == "inf-llm"


CHANGES = {
    "--policy": (["--policy", "origin"], "policy inf-llm (now origin)"),
    "--set": (["--set", "topk=3"], "settings/model.topk 16 (now 3)"),
    "--set max_len": (["--set", "max_len=9999"], "settings/max_len None (now 9999)"),
    "--max-new-tokens": (["--max-new-tokens", "5"], "sampling/max_new_tokens 256 (now 5)"),
    "--temperature": (["--temperature", "0.5"], "sampling/temperature 0.0 (now 0.5)"),
    "--seed": (["--seed", "7"], "sampling/seed None (now 7)"),
    "--stop": (["--stop", "x"], "sampling/stop "),
    "--read-back": (["--no-read-back"], "read_back True (now False)"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_answers_that_would_be_others_are_refused_by_name(given, change):
    output, ask = given
    before = output.read_bytes()
    options, difference = CHANGES[change]
    result = ask(*options)
    assert (result.code, result.out) == (2, "")
    assert re.match(
        rf"error: the answers in {output} of .*book.txt were given otherwise: ", result.err
    )
    assert difference in result.err
    assert "begin anew with --restart" in result.err
    assert output.read_bytes() == before
    assert ask(*options, "--restart").code == 0
    assert [line["question"] for line in lines(output)] == ASKED
    assert output.read_bytes() != before
    assert ask(*options).err == "3 of 3 questions answered\n"
    assert ask().code == 2


def test_another_document_and_a_changed_one_are_refused(given, book, tmp_path):
    output, ask = given
    other = tmp_path / "other.txt"
    other.write_text(book.read_text().replace("12345", "99999"))
    refused = ask(source=other)
    assert refused.code == 2
    assert re.search(r"were given otherwise: sources/digest [0-9a-f]{12} \(now", refused.err)
    moved = book.rename(book.with_name("moved.txt"))
    assert ask(source=moved).err == "3 of 3 questions answered\n"
    moved.write_text(moved.read_text() + "\nA page more.\n")
    assert ask(source=moved).code == 2
    assert len(lines(output)) == 3


def test_another_model_or_version_is_refused(given, answers, monkeypatch):
    _, ask = given

    def other(engine) -> None:
        engine.digests = {"model": "3" * 64, "tokenizer": "2" * 64}

    answers.prepare = other
    assert "model 111111111111 (now 333333333333)" in ask().err
    answers.prepare = lambda engine: None
    assert ask().code == 0
    monkeypatch.setattr("infllm.cli.bench.manifest.version", lambda name: f"{name} 99")
    assert "versions/infllm" in ask().err


def test_answers_of_which_nothing_is_known_are_refused(given):
    output, ask = given
    beside = output.with_name("answers.jsonl.key.json")
    for content in (None, b"{}", b"\xff", b"[1]"):
        beside.unlink(missing_ok=True)
        if content is not None:
            beside.write_bytes(content)
        for line in (b"0" * 16, None):  # another run's key, and none as before there were keys
            fields = [{**one, "key": line.decode() if line else None} for one in lines(output)]
            output.write_text("".join(json.dumps(one) + "\n" for one in fields))
            result = ask()
            assert result.code == 2
            assert "depend on is not known" in result.err
    assert ask("--restart").code == 0


def test_lines_of_two_runs_in_one_file_are_refused(given):
    output, ask = given
    fields = lines(output)
    fields[1]["key"] = "0" * 16
    output.write_text("".join(json.dumps(one) + "\n" for one in fields))
    assert "not all answers in" in ask().err


def test_restart_throws_away_nothing_but_answers(infllm, answers, book, asked, tmp_path):
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear Ada,\n")
    result = infllm("ask", book, "--questions", asked, "-o", letter, "--restart")
    assert (result.code, letter.read_text()) == (2, "Dear Ada,\n")
    assert infllm("ask", book, "--questions", asked, "--restart").code == 2


def test_two_runs_do_not_write_one_file(given):
    from infllm.engine.files.storage import lock

    output, ask = given
    held = lock(output)
    try:
        assert "another run is writing" in ask().err
    finally:
        os.close(held)
    assert ask().code == 0


def test_what_the_document_is_cut_to_does_not_depend_on_what_is_left(given, asked):
    """max_len leaves room for the longest of all questions, not of those that are left."""
    output, ask = given
    cut = ["--set", "max_len=1300", "--set", "truncation=prefix"]
    asked.write_text(f"Why?\n{'word ' * 200}?\n")
    assert ask(*cut, "--restart").code == 0
    output.write_text(output.read_text().splitlines(keepends=True)[1])
    result = ask(*cut)
    assert (result.code, len(lines(output))) == (0, 2)


def test_a_full_disk_is_told_and_what_is_written_stays(given, asked, monkeypatch):
    output, ask = given
    asked.write_text(asked.read_text() + "How?\n")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("infllm.cli.answer_file.append_line", full)
    result = ask()
    assert result.code == 1
    assert f"error: {output}: No space left on device\nhint: the answers before are" in result.err
    assert len(lines(output)) == 3


def test_a_device_is_no_file_of_answers(infllm, answers, book, asked):
    result = infllm("ask", book, "--questions", asked, "-o", "/dev/null")
    assert result.code == 2
    assert "is not a regular file" in result.err


def test_source_and_questions_cannot_both_be_standard_input(infllm, answers):
    result = infllm("ask", "-", "--questions", "-")
    assert result.code == 2
    assert "can be read once only" in result.err


def test_a_last_line_that_was_cut_is_answered_again(infllm, answers, book, asked, tmp_path):
    output = tmp_path / "answers.jsonl"
    infllm("ask", book, "--questions", asked, "-o", output)
    whole = output.read_bytes()
    for cut in (1, 5, 60):
        output.write_bytes(whole[: whole.rstrip().rfind(b"\n") + 1 + cut])
        assert "2 of 3 questions" in infllm("ask", book, "--questions", asked, "-o", output).err
        assert [fields["question"] for fields in lines(output)] == ASKED


@pytest.mark.parametrize(
    "content",
    [
        b"Dear Ada,\n",
        b"Dear Ada, no line feed",
        b'{"question": "Why?", "label": 3}\n',
        b'{"question": "Why?", "answer": "x", "command": "other"}\n',
        b"[1]\n",
        b"\xff\xfe\n",
    ],
)
def test_a_file_of_something_else_is_refused_and_stays(
    infllm, answers, book, asked, tmp_path, content
):
    output = tmp_path / "mine.jsonl"
    output.write_bytes(content)
    result = infllm("ask", book, "--questions", asked, "-o", output)
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        f"error: {output} holds something else than answers\n"
        "hint: name another file with --output\n"
    )
    assert output.read_bytes() == content
    assert answers.engines == []


def test_a_place_that_cannot_be_written_is_told_before_reading(infllm, answers, book, asked):
    result = infllm("ask", book, "--questions", asked, "-o", "missing/answers.jsonl")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: missing/answers.jsonl: No such file or directory\n")
    assert answers.engines == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory"),
        (b"", "has no question"),
        (b" \n\n", "has no question"),
        (b"\xff\xfe\xfa", "not UTF-8 text"),
    ],
)
def test_files_without_questions(infllm, answers, book, tmp_path, content, message):
    path = tmp_path / "q.txt"
    if content is not None:
        path.write_bytes(content)
    result = infllm("ask", book, "--questions", path)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert answers.engines == []


def test_what_does_not_go_with_questions(infllm, answers, book, asked):
    assert infllm("ask", "--questions", asked).code == 2
    for option in (["--explain"], ["--plot", "x.png"]):
        result = infllm("ask", book, "--questions", asked, *option)
        assert result.code == 2
        assert "--explain and --plot go with one question" in result.err
    assert infllm("ask", book, "Why?", "-o", "x.jsonl").code == 2
    dry = infllm("ask", book, "--questions", asked, "--dry-run")
    assert (dry.code, answers.engines) == (0, [])
    assert str(book) in dry.out


def test_ctrl_c_keeps_the_answers_given(infllm, answers, book, asked, tmp_path):
    given = answers.answer

    def answer(text: str) -> str:
        if "Which colour?" in text:
            raise KeyboardInterrupt
        return given(text)

    answers.answer = answer
    output = tmp_path / "answers.jsonl"
    result = infllm("ask", book, "--questions", asked, "-o", output)
    assert (result.code, result.out) == (130, "")
    assert result.err == (
        "error: interrupted after 1 of 3 questions\nhint: the same command goes on with the next\n"
    )
    assert [fields["question"] for fields in lines(output)] == ASKED[:1]
    answers.answer = given
    assert infllm("ask", book, "--questions", asked, "-o", output).code == 0
    assert [fields["question"] for fields in lines(output)] == ASKED


def test_ctrl_c_while_a_question_is_read(infllm, fakes, book, monkeypatch):
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("infllm.cli.tasks.questions.look", interrupt)
    result = infllm("ask", book, "Why?")
    assert (result.code, result.out) == (130, "")
    assert result.err == (
        "error: interrupted while reading the question\nhint: the same command starts over\n"
    )


def test_the_order_of_questions_does_not_change_answers(infllm, harbour, tmp_path):
    asked = [HARBOUR, "Who swept the quay at noon?", "What did Ada Finch paint?"]
    found = []
    for order in (asked, asked[::-1]):
        path = tmp_path / "questions.txt"
        path.write_text("\n".join(order))
        limits = ["--max-new-tokens", "12", "--json"]
        result = infllm("ask", harbour, "--questions", path, *limits)
        told = [json.loads(line) for line in result.out.splitlines()]
        found.append({f["question"]: (f["answer"], f["citations"]) for f in told})
    assert list(found[0]) == list(found[1])[::-1] == asked
    assert found[0] == found[1]
    assert found[0][HARBOUR][0] == ANSWER
