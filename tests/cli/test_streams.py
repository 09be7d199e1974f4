"""Standard streams that are closed, full, or read by nobody; and questions that come by them."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
# The command line with a scripted engine, in a process whose streams may be broken.
SCRIPTED = """
import sys
from types import SimpleNamespace
sys.path.insert(0, {root!r})
from tests.cli.fakes import Fakes
Fakes(SimpleNamespace(setitem=dict.__setitem__))
from infllm.cli.main import main
main()
"""
COMMANDS = {
    "help": ["--help"],
    "version": ["--version"],
    "help of a command": ["ask", "--help"],
    "ask": ["ask", "book.txt", "What is the pass key?", "--no-cache"],
    "ask json": ["ask", "book.txt", "What is the pass key?", "--no-cache", "--json"],
    "many": ["ask", "book.txt", "--questions", "q.txt", "--no-cache"],
    "summarize": ["summarize", "book.txt"],
    "ppl": ["ppl", "book.txt"],
    "ppl json": ["ppl", "book.txt", "--json"],
    "inspect": ["inspect", "book.txt"],
    "inspect json": ["inspect", "book.txt", "--json"],
    "text": ["inspect", "--text", "book.txt"],
    "presets": ["presets", "list"],
    "preset": ["presets", "show", "pocket"],
    "memories": ["memory", "list"],
    "suites": ["bench", "list", "--json"],
}
CLOSED = "error: standard output: it is closed\nhint: what should stand there is not complete\n"
FULL = CLOSED.replace("it is closed", "No space left on device")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams")
    filler = "The grass is green. The sky is blue. " * 30
    (folder / "book.txt").write_text(f"{filler}The pass key is 12345. {filler}\n")
    (folder / "q.txt").write_text("What is the pass key?\nWhy?\n")
    (folder / "run.py").write_text(SCRIPTED.format(root=str(ROOT)))
    return folder


def shell(place: Path, script: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "INFLLM_CACHE_DIR": str(place / "cache")}
    environment["RUN"] = f"{sys.executable} {place / 'run.py'}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=place, env=environment, capture_output=True, encoding="utf-8",
        timeout=120, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done


def line(name: str) -> str:
    return "$RUN " + " ".join(f"'{part}'" for part in COMMANDS[name])


@pytest.mark.parametrize(
    ("name", "redirect", "error"),
    [
        *((name, "/dev/full", FULL) for name in COMMANDS),
        # What is written fails in the same place: of each way to write, one.
        *((name, "&-", CLOSED) for name in ("help", "version", "ask", "ask json", "presets")),
    ],
)
def test_a_stdout_that_loses_the_answer_is_told(place, name, redirect, error):
    done = shell(place, f"{line(name)} >{redirect}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(error)
    assert done.stderr.count("error:") == 1


@pytest.mark.parametrize("name", ["ask", "ppl", "help"])
def test_a_stderr_that_nobody_reads_keeps_no_answer_back(place, name):
    expected = shell(place, line(name)).stdout
    assert expected
    for redirect in ("2>&-", "2>/dev/full", "<&-"):
        done = shell(place, f"{line(name)} {redirect}")
        assert (done.returncode, len(done.stdout) > 0.9 * len(expected)) == (0, True)
    gone = shell(place, f"{line(name)} 2> >(exec 0<&-; true)")
    assert gone.returncode == 0


@pytest.mark.parametrize("name", ["ask", "ask json", "inspect", "help"])
def test_all_streams_closed(place, name):
    done = shell(place, f"{line(name)} >&- 2>&- <&-")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


@pytest.mark.parametrize("name", ["ask", "ask json", "text", "suites", "many"])
def test_a_reader_that_has_enough_is_no_failure(place, name):
    done = shell(place, f"{line(name)} | head -c 1 >&2; echo ${{PIPESTATUS[0]}}")
    assert done.stdout == "0\n"


def test_an_error_keeps_its_status_where_its_json_is_lost(place):
    for redirect in (">/dev/full", ">&-"):
        done = shell(place, f"$RUN ask none.txt Why? --json {redirect}")
        assert (done.returncode, done.stderr.count("error:")) == (3, 1)
        assert "none.txt" in done.stderr


def test_no_file_takes_the_place_of_a_closed_stream(place):
    """With stdout closed the first file that is opened would be descriptor 1."""
    before = (place / "book.txt").read_bytes()
    shell(place, f"{line('many')} -o answers.jsonl >&- 2>&- <&-")
    assert (place / "book.txt").read_bytes() == before
    for text in (place / "answers.jsonl").read_text().splitlines():
        assert json.loads(text)["command"] == "ask"


def test_what_needs_a_closed_stdin_says_so(place):
    for command in ("ask - Why?", "ask book.txt -", "ask book.txt --questions -", "chat book.txt"):
        done = shell(place, f"$RUN {command} --no-cache <&-")
        assert (done.returncode, done.stdout) == (2, "")
        assert "standard input" in done.stderr
        assert "is closed" in done.stderr


# ---- questions from standard input ----


def typed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="ascii"))


def test_a_question_from_standard_input(infllm, fakes, book, monkeypatch):
    fakes.answer = lambda text: " to" + text.partition("Question:")[2].removesuffix("\nAnswer:")
    typed(monkeypatch, "\ufeffWho is Zo\u00eb?\nAnd why?\n".encode())
    assert infllm("ask", book, "-").out == "to Who is Zo\u00eb?\nAnd why?\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [(b" \n", "the question is empty"), (b"\xff\xfe\xfa", "standard input is not UTF-8 text")],
)
def test_no_question_on_standard_input(infllm, fakes, book, monkeypatch, data, message):
    typed(monkeypatch, data)
    result = infllm("ask", book, "-")
    assert (result.code, result.out, fakes.engines) == (2, "", [])
    assert result.err.startswith(f"error: {message}\n")


def test_bytes_that_are_no_text_end_no_conversation(infllm, fakes, book, monkeypatch):
    fakes.answer = lambda text: " to" + text.rpartition("Question:")[2].removesuffix("\nAnswer:")
    typed(monkeypatch, b"Caf\xe9?\nWhy?\n")
    result = infllm("chat", book, "--no-cache")
    assert (result.code, result.out) == (0, "to Caf\ufffd?\nto Why?\n")


def test_source_and_question_cannot_both_be_standard_input(infllm, fakes, monkeypatch):
    typed(monkeypatch, b"Who?")
    result = infllm("ask", "-", "-")
    assert (result.code, fakes.engines) == (2, [])
    assert "can be read once only" in result.err


def test_a_question_from_a_terminal_is_not_waited_for(infllm, fakes, book, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    result = infllm("ask", book, "-")
    assert result.code == 2
    assert result.err == (
        "error: '-' reads standard input, and that is a terminal\n"
        "hint: pipe a question in: echo 'Who inherits the house?' | infllm ask book.pdf -\n"
    )


# ---- what a terminal would obey ----

TRAP = "\u202e\u2066\u200f\x9b31m"


def test_nothing_that_turns_a_terminal_reaches_it(infllm, fakes, tmp_path):
    fakes.answer = lambda text: f" gpj{TRAP}.exe"
    path = tmp_path / f"invoice{TRAP}fdp.txt"
    path.write_text(f"The pass key is{TRAP} 12345. Some words follow{TRAP} here.\n")
    for command in (
        ["ask", path, "What is the pass key?", "-v"],
        ["ask", path, "What is the pass key?", "--json"],
        ["inspect", path],
        ["inspect", path, "--json", "-v"],
        ["summarize", path, "-v"],
        ["ppl", path, "--json"],
        ["ask", tmp_path / f"missing{TRAP}.txt", "Why?", "--json"],
        ["memory", "show", f"none{TRAP}", "--json"],
    ):
        result = infllm(*command)
        assert not set(TRAP[:-3]) & set(result.out + result.raw_err), command
    fields = json.loads(infllm("inspect", path, "--json").out)
    assert fields["documents"][0]["source"] == str(path)  # nothing is lost to a program
