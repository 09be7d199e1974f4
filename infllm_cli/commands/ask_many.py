"""Many questions to one memory: `infllm ask book.mem --questions q.txt`."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infllm.cli.errors import Interrupted, UsageError
from infllm.cli.options import DocumentFlags, EngineChoice, Sampling
from infllm.cli.output import SCHEMA, Output, print_object
from infllm.cli.replies import answer_fields, tell_citations, tell_cut
from infllm.cli.text import count, plural, seconds

if TYPE_CHECKING:
    from infllm.cli.remember import Prepared
    from infllm.cli.tasks.questions import Reply

STDIN = "-"


@dataclass(frozen=True)
class ManyQuestions:
    """The file `questions` with one a line, the file that answers go to, if any, and the `reader`
    that reads for each of them, if any does."""

    questions: str
    output: str | None
    restart: bool
    reader: str | None = None


def ask_many(
    out: Output,
    choice: EngineChoice,
    sources: list[str],
    many: ManyQuestions,
    documents: DocumentFlags,
    sampling: Sampling,
    read_back: bool | None,
    budget: int | None,
    keep: bool,
) -> None:
    """Ask each question; every one starts from the same state.

    Answers go to stdout (JSON lines with `--json`), or as JSON lines to a file, which is gone on
    with where it stopped.

    Raises:
        UsageError: no source, no question, a file that cannot be read or written, or whose answers
            depend on something else.
        Interrupted: Ctrl-C; says how many questions were answered.
    """
    from infllm.cli.answer_file import AnswerFile, answers_depend_on
    from infllm.cli.reading import with_prompt_stops
    from infllm.cli.remember import prepare
    from infllm.cli.tasks.drafting import tell_of_drafts

    if not sources:
        raise UsageError("no source given", "for example: infllm ask book.mem --questions q.txt")
    if many.questions == STDIN and STDIN in sources:
        raise UsageError(
            "standard input (-) is named as source and as questions, and can be read once only",
            "name a file for one of them",
        )
    asked = _read_questions(many.questions)
    # Of all, and not of those left: where max_len cuts the document must not depend on that.
    longest = max(asked, key=len)
    with ExitStack() as stack:
        file = None
        if many.output is not None:
            file = stack.enter_context(AnswerFile(many.output, many.restart))
        prepared = prepare(
            choice, sources, documents, out, question=longest, budget=budget, keep=keep
        )
        engine = stack.enter_context(prepared.engine)
        sampling = with_prompt_stops(engine, sampling)
        tell_of_drafts(engine, sampling, out)
        back = engine.config.read_back if read_back is None else read_back
        if file is not None:
            file.begin(answers_depend_on(prepared, sampling, back, many.reader))
        done = file.done if file is not None else set()
        left = [question for question in asked if question not in done]
        if done:
            out.note(
                f"{count(len(asked) - len(left))} of {plural(len(asked), 'question')} answered"
            )
        if not left:
            return
        ask = _way_to_ask(prepared, sampling, back, many.reader, out)
        spent = 0.0
        for number, question in enumerate(left):
            try:
                reply = ask(question)
                stopped = reply.answer.finish == "interrupted"
            except (Interrupted, KeyboardInterrupt):
                stopped = True
            if stopped:
                raise Interrupted(
                    f"interrupted after {count(number)} of {plural(len(left), 'question')}",
                    "the same command goes on with the next" if file is not None else "",
                )
            spent += reply.seconds + reply.answering
            fields = {"schema": SCHEMA, "command": "ask", **answer_fields(question, reply)}
            if file is not None:
                file.add(fields)
            elif out.as_json:
                print_object(fields)
            else:
                out.line(f"{question}\n{reply.answer.text}")
                tell_citations(reply, out)
                tell_cut(reply.answer.finish, sampling.max_new_tokens, out)
                out.line()
    out.note(f"{plural(len(left), 'question')} answered in {seconds(spent)}")


def _way_to_ask(
    prepared: "Prepared", sampling: Sampling, back: bool, reader: str | None, out: Output
) -> "Callable[[str], Reply]":
    """What answers one question: the memory, read at once, or a reader."""
    if reader is not None:
        from infllm.cli.readers.answering import ReadAnew

        reading = ReadAnew(prepared.engine, prepared.documents(), reader, out)
        return lambda question: reading.ask(question, sampling)
    from infllm.cli.tasks.questions import ask_memory

    engine, memory = prepared.engine, prepared.read()
    return lambda question: ask_memory(engine, memory, question, sampling, read_back=back)


def _read_questions(path: str) -> list[str]:
    from infllm.cli.streams import stdin_text

    try:
        if path == STDIN:
            lines: Iterable[str] = stdin_text("questions").splitlines()
        else:
            lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(f"{path}: {why}", "give a text file with a question a line") from error
    asked = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not asked:
        raise UsageError(f"{path} has no question", "write one on each line")
    return asked
