"""Many questions to one memory: `infllm ask book.mem --questions q.txt`."""

import json
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from infllm.cli.errors import Interrupted, UsageError
from infllm.cli.options import EngineChoice, Sampling
from infllm.cli.output import SCHEMA, Output, print_object
from infllm.cli.replies import answer_fields, tell_citations
from infllm.cli.text import count, plural, seconds


def ask_many(
    out: Output,
    choice: EngineChoice,
    sources: list[str],
    questions: str,
    output: str | None,
    password: str | None,
    sampling: Sampling,
    read_back: bool | None,
    budget: int | None,
    keep: bool,
) -> None:
    """Ask each line of the file `questions`; every one starts from the same state.

    Answers go to stdout (JSON lines with `--json`), or as JSON lines to the file `output`, which
    is gone on with where it stopped.

    Raises:
        UsageError: no source, no question, a file that cannot be read or written, or was made of
            something else.
        Interrupted: Ctrl-C; says how many questions were answered.
    """
    from infllm.cli.reading import with_prompt_stops
    from infllm.cli.remember import remember
    from infllm.cli.tasks.questions import ask_memory

    if not sources:
        raise UsageError("no source given", "for example: infllm ask book.mem --questions q.txt")
    asked = _read_questions(questions)
    done = _answered(Path(output)) if output is not None else set()
    left = [question for question in asked if question not in done]
    if done:
        out.note(f"{count(len(asked) - len(left))} of {plural(len(asked), 'question')} answered")
    if not left:
        return
    longest = max(left, key=len)
    with _opened(output) as file, ExitStack() as stack:
        engine, memory = remember(
            choice, sources, password, out, question=longest, budget=budget, keep=keep
        )
        stack.enter_context(engine)
        sampling = with_prompt_stops(engine, sampling)
        back = engine.config.read_back if read_back is None else read_back
        spent = 0.0
        for number, question in enumerate(left):
            try:
                reply = ask_memory(engine, memory, question, sampling, read_back=back)
                stopped = reply.answer.finish == "interrupted"
            except KeyboardInterrupt:
                stopped = True
            if stopped:
                raise Interrupted(
                    f"interrupted after {count(number)} of {plural(len(left), 'question')}",
                    "the same command goes on with the next" if output else "",
                )
            spent += reply.seconds + reply.answer.seconds
            fields = {"schema": SCHEMA, "command": "ask", **answer_fields(question, reply)}
            if file is not None:
                file.write(json.dumps(fields, ensure_ascii=False) + "\n")
                file.flush()
            elif out.as_json:
                print_object(fields)
            else:
                out.line(f"{question}\n{reply.answer.text}")
                tell_citations(reply, out)
                out.line()
    out.note(f"{plural(len(left), 'question')} answered in {seconds(spent)}")


START = b'{"schema": '  # of every line


class _opened:
    """The output file, to be appended to; nothing where there is none."""

    def __init__(self, path: str | None) -> None:
        self.path = path
        self._file: TextIO | None = None

    def __enter__(self) -> TextIO | None:
        if self.path is not None:
            try:
                self._file = open(self.path, "a", encoding="utf-8")
            except OSError as error:
                raise UsageError(f"{self.path}: {error.strerror}", "name another file") from error
        return self._file

    def __exit__(self, *exc: object) -> None:
        if self._file is not None:
            self._file.close()


def _read_questions(path: str) -> list[str]:
    import sys

    try:
        if path == "-":
            lines: Iterable[str] = sys.stdin.read().splitlines()
        else:
            lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(f"{path}: {why}", "give a text file with a question a line") from error
    asked = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not asked:
        raise UsageError(f"{path} has no question", "write one on each line")
    return asked


def _question(line: bytes) -> str:
    """The question of a line; raises ValueError, KeyError or TypeError where it is not ours."""
    fields = json.loads(line)
    if fields["command"] != "ask" or not isinstance(fields["answer"], str):
        raise ValueError
    return str(fields["question"])


def _answered(path: Path) -> set[str]:
    """Questions that a file answers already; a last line that was cut is taken away."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "name another file") from error
    whole = data[: data.rfind(b"\n") + 1]
    rest = data[len(whole) :]
    try:
        done = {_question(line) for line in whole.splitlines()}
        if rest[: len(START)] != START[: len(rest)]:
            raise ValueError
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} holds something else than answers", "name another file with --output"
        ) from error
    if len(whole) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return done
