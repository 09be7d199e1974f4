"""The command as a whole: help, errors, streams, pipes, terminals."""

import json
import os
import pty
import re
import subprocess
import sys
from typing import Any

import pytest
import typer
from pypdf import PdfWriter

from infllm.cli import errors as cli_errors
from infllm.cli.command_table import ENTRIES
from infllm.cli.errors import ExitCode, exit_code
from infllm.cli.main import app
from infllm.engine import errors as engine_errors

INFLLM = [sys.executable, "-c", "from infllm.cli.main import main; main()"]


def spawn(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"capture_output": True, "encoding": "utf-8", **options}
    return subprocess.run(command, check=False, **options)


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from infllm.cli.main import run\n"
        "run(['--help'])\n"
        "heavy = {'torch', 'transformers', 'pydantic', 'rich', 'numpy', 'yaml', 'pypdf'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
        "run(['ask', '--help'])\n"
        "print(sorted(heavy & set(sys.modules) - {'pydantic'}), file=sys.stderr)\n"
    )
    result = spawn(sys.executable, "-c", code)
    assert result.stderr == "[]\n[]\n"
    assert "Ask a question about documents of any length, or about a memory" in result.stdout


@pytest.mark.parametrize("name", ENTRIES)
def test_the_help_of_all_commands_is_the_beginning_of_their_own(name):
    context = typer.main.get_command(app).make_context("infllm", ["doctor"])
    command = context.command.get_command(context, name)
    entry = ENTRIES[name]
    assert command.hidden == entry.hidden
    if not entry.hidden:
        first = " ".join(command.help.split("\n\n")[0].split())
        assert first.startswith(entry.help.removesuffix("."))


def test_help_of_all_commands_imports_none_of_them():
    code = (
        "import sys\n"
        "from infllm.cli.main import run\n"
        "run(['--help'])\n"
        "print([m for m in sys.modules if m.startswith('infllm.cli.commands')], file=sys.stderr)\n"
    )
    assert spawn(sys.executable, "-c", code).stderr == "[]\n"


def test_no_arguments_is_help_on_stderr(infllm):
    result = infllm()
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("Usage: infllm [OPTIONS] COMMAND [ARGS]...")


def test_version(infllm):
    assert re.fullmatch(r"infllm \d+\.\d+\.\d+\n", infllm("--version").out)


def test_help_fits_80_columns(infllm):
    for command in ("ask", "summarize", "passkey", "ppl", "inspect", "doctor", "presets"):
        result = infllm(command, "--help")
        assert result.code == 0
        examples = result.out.split("Examples:")[-1].split("Options:")[0]
        for line in result.out.splitlines():
            assert len(line) <= 80 or line in examples


def test_missing_file(infllm, fakes):
    result = infllm("ask", "missing.pdf", "What?")
    assert (result.code, result.out) == (3, "")
    lines = result.raw_err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("error: ")
    assert "missing.pdf" in lines[0]
    assert lines[1].startswith("hint: ")


def test_missing_file_json(infllm, fakes):
    result = infllm("ask", "missing.pdf", "What?", "--json")
    fields = json.loads(result.out)
    assert set(fields) == {"schema", "command", "error", "hint", "code"}
    assert (fields["schema"], fields["command"], fields["code"]) == (1, "ask", 3)
    assert f"error: {fields['error']}\nhint: {fields['hint']}\n" == result.raw_err


def test_a_scanned_pdf_is_never_an_empty_answer(infllm, fakes, tmp_path):
    scan = tmp_path / "scan.pdf"
    writer = PdfWriter()
    for _ in range(3):
        writer.add_blank_page(width=595, height=842)
    writer.write(scan)
    result = infllm("ask", scan, "What?")
    assert (result.code, result.out) == (3, "")
    assert "no text on 3 of 3 pages" in result.raw_err.lower()
    assert "hint: " in result.raw_err


@pytest.mark.parametrize(
    ("arguments", "code", "err"),
    [
        (
            ["ask", "b.txt", "q", "--preset", "pockt"],
            2,
            "error: no preset, YAML file or model named 'pockt'\nhint: did you mean 'pocket'?\n",
        ),
        (
            ["ask", "b.txt", "q", "--set", "tpk=3"],
            2,
            "error: unknown key 'tpk' (flag)\nhint: did you mean 'model.topk'?\n",
        ),
        (
            ["ask", "b.txt", "q", "--set", "topk"],
            2,
            "error: --set 'topk' is not KEY=VALUE\nhint: write for example --set model.topk=32\n",
        ),
        (
            ["ask", "b.txt", "q", "--set", "topk=[1"],
            2,
            "error: the value of --set 'topk=[1' cannot be read\n"
            "hint: quote it, e.g. --set 'key=\"value\"'\n",
        ),
        (
            ["ask", "--colour", "b.txt", "q"],
            2,
            "error: No such option: --colour\nhint: see: infllm ask --help\n",
        ),
        (
            ["passkey", "--trials", "none"],
            2,
            None,
        ),
    ],
)
def test_usage_errors(infllm, fakes, arguments, code, err):
    result = infllm(*arguments)
    assert (result.code, result.out) == (code, "")
    assert fakes.engines == []
    if err is not None:
        assert result.raw_err == err


def test_settings_are_checked_before_documents_are_read(infllm, fakes):
    result = infllm("ask", "missing.pdf", "q", "--set", "nothing=1")
    assert result.code == 2


def test_usage_error_json(infllm):
    fields = json.loads(infllm("ask", "--colour", "--json").out)
    assert fields == {
        "schema": 1,
        "command": "ask",
        "error": "No such option: --colour",
        "hint": "see: infllm ask --help",
        "code": 2,
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (engine_errors.ConfigError("x"), ExitCode.USAGE),
        (engine_errors.ModelNotFound("x"), ExitCode.MODEL),
        (engine_errors.UnsupportedModel("x"), ExitCode.RUNTIME),
        (engine_errors.OutOfMemory("x"), ExitCode.MEMORY),
        (MemoryError(), ExitCode.MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), ExitCode.MEMORY),
        (cli_errors.BudgetExceeded("x"), ExitCode.BUDGET),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (ValueError("x"), ExitCode.RUNTIME),
    ],
)
def test_exit_codes(error, code):
    assert exit_code(error) == code


def test_a_model_that_is_not_here_is_not_fetched_offline(infllm, fakes, book):
    result = infllm("ask", book, "What?", "--model", "nobody/no-such-model", "--offline")
    assert (result.code, result.out, fakes.engines) == (5, "", [])
    assert result.raw_err == (
        "error: the model nobody/no-such-model is not on this machine, and the network may not be "
        "used\nhint: run once without --offline to download it, or give --model a local folder\n"
    )


def test_a_download_is_announced(infllm, fakes, book, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    result = infllm("ask", book, "What?", "--model", "nobody/no-such-model")
    assert result.raw_err.startswith(
        "warning: nobody/no-such-model is not on this machine: downloading its model from the "
        "Hugging Face hub\n"
    )


def test_an_engine_error_is_told_with_its_hint(infllm, fakes, book):
    def refuse(engine):
        raise engine_errors.UnsupportedModel("Bloom uses ALiBi positions", "use another model")

    fakes.prepare = refuse
    result = infllm("ask", book, "What?")
    assert result.code == 1
    assert result.raw_err == "error: Bloom uses ALiBi positions\nhint: use another model\n"


def test_a_defect_is_named_and_traced_on_request(infllm, fakes, book):
    def fail(engine):
        raise ZeroDivisionError("by zero")

    fakes.prepare = fail
    result = infllm("ask", book, "What?")
    assert result.code == 1
    assert result.raw_err.startswith("error: ZeroDivisionError: by zero\nhint: this is a defect")
    assert "Traceback" not in result.raw_err
    assert "Traceback" in infllm("ask", "-v", book, "What?").raw_err


def test_a_closed_pipe_is_no_error(tmp_path):
    command = " ".join(f"'{part}'" for part in INFLLM)
    script = f"{command} presets show pocket | head -n 1; echo ${{PIPESTATUS[0]}}"
    result = spawn("bash", "-c", script, cwd=tmp_path)
    assert result.stderr == ""
    assert result.stdout.splitlines()[-1] == "0"
    closed = f"{command} presets list >&-"
    result = spawn("bash", "-c", closed, cwd=tmp_path)
    assert "Traceback" not in result.stderr


def test_utf8_whatever_the_locale(tmp_path):
    preset = tmp_path / "mine.yaml"
    preset.write_text("preset: pocket\ndescription: café Δ\n", encoding="utf-8")
    env = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    result = spawn(*INFLLM, "presets", "show", str(preset), "--json", env=env, cwd=tmp_path)
    assert result.returncode == 0
    assert json.loads(result.stdout)["config"]["description"] == "café Δ"


def on_terminal(columns: int, *arguments: str, **env: str) -> str:
    """What a terminal of so many columns shows."""
    import fcntl
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    child = subprocess.Popen(
        [*INFLLM, *arguments], stdout=slave, stderr=slave, stdin=slave,
        env={**environment, "TERM": "xterm-256color", **env},
    )  # fmt: skip
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # the child has closed the terminal
            break
        if not part:
            break
        shown += part
    child.wait()
    os.close(master)
    return shown.decode()


@pytest.mark.parametrize("columns", [80, 200])
def test_tables_fit_the_terminal(columns):
    shown = on_terminal(columns, "presets", "list")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert "pocket" in plain
    assert max(len(line.rstrip("\r")) for line in plain.split("\n")) <= columns


def test_no_colour_when_told_so():
    colour = re.compile(r"\x1b\[[0-9;]*[349][0-7]m")
    assert colour.search(on_terminal(80, "ask", "missing.pdf", "q"))
    assert not colour.search(on_terminal(80, "ask", "missing.pdf", "q", NO_COLOR="1"))


def test_a_terminal_is_no_document():
    shown = on_terminal(80, "ask", "-", "q", NO_COLOR="1")
    assert "'-' reads standard input, and that is a terminal" in shown
