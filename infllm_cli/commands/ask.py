"""`infllm ask`: a question about documents of any length."""

from typing import TYPE_CHECKING, Annotated

import typer

from infllm.cli import options as opt
from infllm.cli.errors import Interrupted, UsageError
from infllm.cli.output import Output
from infllm.cli.replies import answer_fields, tell_citations, tell_finish, tell_thinking

if TYPE_CHECKING:
    from infllm.cli.memory import Memory
    from infllm.cli.tasks.questions import Reply
    from infllm.engine.session import UnitMass

STDIN = "-"
Question = Annotated[
    str | None,
    typer.Argument(
        metavar="QUESTION", show_default=False, help="In quotes, or - for standard input."
    ),
]


@opt.spread
def ask(
    *,
    sources: opt.Sources = None,
    question: Question = None,
    questions: Annotated[
        str | None,
        typer.Option(
            "--questions", metavar="FILE", help="Ask each line of a file, in place of QUESTION."
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="With --questions: JSON lines; what is answered there is not asked again.",
        ),
    ] = None,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Throw the answers in --output FILE away and begin anew."),
    ] = False,
    flags: opt.EngineFlags,
    documents: opt.DocumentFlags,
    reader: opt.Reader = None,
    read_back: opt.ReadBack = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Draw which parts of the document were looked up.")
    ] = False,
    plot: opt.Plot = None,
    answering: opt.SamplingFlags,
    max_tokens: opt.Budget = None,
    no_cache: opt.NoCache = False,
    dry_run: opt.DryRun = False,
    streams: opt.StreamFlags,
) -> None:
    """Ask a question about documents of any length, or about a memory of them.

    The answer streams to standard output, all else goes to standard error: the sentences that it
    rests on, with page or line, and what reading took. What was read is kept for the next question.

    \b
    Examples:
      infllm ask book.pdf "Who inherits the house?"
      infllm ask src/ docs/ "Where is the retry limit set?"
      infllm ask book.mem --questions questions.txt -o answers.jsonl
      cat book.txt | infllm ask - "Who is the narrator?" --json
      echo "Who is the narrator?" | infllm ask book.txt -
    """
    from infllm.cli.plots import check_plot

    out = streams.output("ask")
    choice = flags.choice()
    sampling = answering.sampling()
    check_plot(plot)
    if restart and output is None:
        raise UsageError("--restart goes with --output", "name the file to begin anew")
    if reader is not None:
        reader = _checked_reader(reader, flags.policy, read_back, explain or plot is not None)
    if questions is not None:
        from infllm.cli.commands.ask_many import ManyQuestions, ask_many

        sources = [*(sources or []), *([question] if question is not None else [])]
        if explain or plot is not None:
            raise UsageError("--explain and --plot go with one question", "leave out --questions")
        if dry_run:
            from infllm.cli.commands.inspect import report

            report(out, choice, sources, documents, max_tokens)
            return
        keep, back = not no_cache, read_back
        many = ManyQuestions(questions, output, restart, reader)
        ask_many(out, choice, sources, many, documents, sampling, back, max_tokens, keep)
        return
    if output is not None:
        raise UsageError("--output goes with --questions", "write > answer.txt for one answer")
    sources, question = _split(sources, question)
    if question == STDIN:
        question = _piped_question(sources)
    if dry_run:
        from infllm.cli.commands.inspect import report

        report(out, choice, sources, documents, max_tokens)
        return

    if reader is not None:
        from infllm.cli.commands.ask_reader import ask_reader

        ask_reader(out, choice, sources, question, reader, documents, sampling, max_tokens)
        return

    from infllm.cli.models.real_hint import tell_of_real_models
    from infllm.cli.opening import preset_name
    from infllm.cli.reading import peak_memory_bytes, with_prompt_stops
    from infllm.cli.remember import remember
    from infllm.cli.sources import all_left_out
    from infllm.cli.tasks.drafting import tell_of_drafts
    from infllm.cli.tasks.questions import ask_memory
    from infllm.cli.text import seconds, size

    engine, memory = remember(
        choice, sources, documents, out, question=question, budget=max_tokens, keep=not no_cache
    )
    with engine:
        sampling = with_prompt_stops(engine, sampling)
        tell_of_drafts(engine, sampling, out)
        back = engine.config.read_back if read_back is None else read_back
        try:
            reply = ask_memory(engine, memory, question, sampling, out.write, back)
        except KeyboardInterrupt:
            raise Interrupted(
                "interrupted while reading the question",
                "the documents are kept" if memory.folder else "the same command starts over",
            ) from None
        out.line()
        kind = engine.config.model.type
        name = preset_name(engine.config, choice) if not memory.choice else memory.choice["name"]
        out.object(
            {
                **answer_fields(question, reply),
                "sources": [document.source for document in memory.collection.documents],
                "left_out": all_left_out(memory.collection),
                **reading_fields(memory, reply),
                "preset": name,
                "policy": kind,
                "device": str(engine.device),
                "peak_memory_bytes": peak_memory_bytes(),
            }
        )
        tell_citations(reply, out)
        if explain:
            tell_lookups(memory, reply, out)
        if plot is not None:
            from infllm.cli.plots import draw_lookups

            steps, pieces = lookups(reply)
            draw_lookups(plot, reply.looks, steps, pieces, memory.session.position, question)
            out.note(f"drew {plot}")
    out.note(
        f"{reading_sentence(memory, reply)}answered in {seconds(reply.answering)}; "
        f"{name}, {kind}, peak memory {size(peak_memory_bytes())}"
    )
    tell_thinking(reply.answer, out)
    tell_of_real_models(engine.config, out)
    tell_finish(reply.answer.finish, sampling.max_new_tokens, out)


def _checked_reader(reader: str, policy: str | None, read_back: bool | None, drawn: bool) -> str:
    """The reader's name; what goes with a memory is refused beside it."""
    from infllm.cli.readers.table import check_reader

    beside = {"--policy": policy is not None, "--read-back": bool(read_back)}
    beside["--explain and --plot"] = drawn
    for flag, given in beside.items():
        if given:
            raise UsageError(
                f"{flag} asks for a memory, and a reader has none", "leave out one of the two"
            )
    return check_reader(reader)


def reading_fields(memory: "Memory", reply: "Reply") -> dict:
    """What JSON says of the reading: of the documents, now or when the memory was made, and of the
    question. Tokens that were read back are not counted, and their seconds are not either."""
    return {
        **memory.reading.plus(reply.tokens, reply.seconds).fields,
        "memory": str(memory.folder) if memory.folder is not None else None,
        "reused": memory.reused,
    }


def reading_sentence(memory: "Memory", reply: "Reply") -> str:
    """What was read now: all, or the question alone; the tokens and seconds that JSON has."""
    from infllm.cli.text import count, seconds

    back = f"{count(reply.read_back)} read back, " if reply.read_back else ""
    if not memory.reused:
        return f"{memory.reading.plus(reply.tokens, reply.seconds).sentence}, {back}"
    return f"read the question's {count(reply.tokens)} tokens in {seconds(reply.seconds)}, {back}"


def lookups(reply: "Reply") -> tuple[list[list["UnitMass"]], list[str]]:
    """Units and texts of the tokens that were answered from the document itself."""
    if reply.read_back:  # the units of those that were read back stand elsewhere
        return [], []
    return reply.answer.units, reply.answer.pieces


def tell_lookups(memory: "Memory", reply: "Reply", out: Output) -> None:
    """The strip of --explain, as wide as the terminal."""
    import shutil
    import sys

    from infllm.cli.tasks.explain import draw_strip

    if not reply.looks:
        out.note("nothing was looked up: the whole text is within the window, or has no units")
        return
    width = min(200, shutil.get_terminal_size().columns) if sys.stderr.isatty() else 80
    steps, pieces = lookups(reply)
    length = memory.session.position
    out.note_lines("\n".join(draw_strip(reply.looks, steps, pieces, length, width)))
    if reply.read_back:
        out.note(f"read back {reply.read_back} tokens of it, and answered from these")


def _split(sources: list[str] | None, question: str | None) -> tuple[list[str], str]:
    """Sources and question, checked before anything slow happens."""
    import os

    example = 'for example: infllm ask book.pdf "Who inherits the house?"'
    if not sources and question is None:
        raise UsageError("no source and no question given", example)
    if not sources or question is None:
        raise UsageError("a source and a question are needed; only one of them was given", example)
    question = _stripped(question)
    if question != STDIN and os.path.exists(question):
        raise UsageError(
            f"the last argument is the question, and {question!r} is a file or folder",
            "put the question, in quotes, after all sources",
        )
    return list(sources), question


def _stripped(question: str) -> str:
    question = question.encode("utf-8", "replace").decode().strip()
    if not question:
        raise UsageError(
            "the question is empty", 'for example: infllm ask book.pdf "Who inherits the house?"'
        )
    return question


def _piped_question(sources: list[str]) -> str:
    from infllm.cli.streams import stdin_text

    if STDIN in sources:
        raise UsageError(
            "standard input (-) is named as source and as question, and can be read once only",
            "put the question in quotes, or name the document's file",
        )
    return _stripped(stdin_text("a question"))
