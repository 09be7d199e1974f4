"""`infllm chat`: a conversation over documents, or over a memory of them."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from infllm.cli import options as opt
from infllm.cli.errors import InfllmError, UsageError
from infllm.cli.output import Output

if TYPE_CHECKING:
    from infllm.cli.tasks.conversation import Conversation
    from infllm.engine.errors import EngineError

PROMPT = "> "
HELP = """\
/cite          show again what the last answer rests on
/reset         forget the conversation, keep the documents
/save NAME.mem keep documents and conversation as a memory of its own
/memory        what is in memory
/help          this list
/quit          end (as does Ctrl-D); Ctrl-C stops an answer"""


@opt.spread
def chat(
    *,
    sources: opt.Sources = None,
    flags: opt.EngineFlags,
    documents: opt.DocumentFlags,
    answering: opt.SamplingFlags,
    max_tokens: opt.Budget = None,
    no_cache: opt.NoCache = False,
    streams: opt.NoteFlags,
) -> None:
    """Talk about documents, or about a memory of them; questions may come from a pipe.

    The conversation is read into the memory behind the documents, as long as it may become.

    \b
    Examples:
      infllm chat book.mem
      printf 'Who is the narrator?\\n/cite\\n' | infllm chat book.pdf
    """
    from infllm.cli.reading import with_prompt_stops
    from infllm.cli.remember import remember
    from infllm.cli.sources import need_sources
    from infllm.cli.tasks.conversation import Conversation
    from infllm.cli.tasks.drafting import tell_of_drafts

    out = streams.output("chat")
    choice = flags.choice()
    sources = need_sources(sources, "infllm chat book.mem")
    if "-" in sources:
        raise UsageError(
            "standard input is where the questions come from",
            "index the document first: cat book.txt | infllm index - -o book.mem",
        )
    if sys.stdin is None:
        raise UsageError("standard input, where the questions come from, is closed", "")
    sampling = answering.sampling()
    engine, memory = remember(choice, sources, documents, out, budget=max_tokens, keep=not no_cache)
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    with engine:
        tell_of_drafts(engine, sampling, out)
        talk = Conversation(engine, memory, with_prompt_stops(engine, sampling))
        if interactive:
            _use_history()
            out.note("ask, or /help; Ctrl-D ends")
        while (line := _next_line(interactive, out)) is not None:
            if not line:
                continue
            try:
                if line.startswith("/"):
                    if not _command(line, talk, out):
                        break
                else:
                    _answer(line, talk, out)
            except KeyboardInterrupt:  # while a question was read
                out.note("stopped")
            except _told_errors() as error:
                from infllm.cli.output import stderr_line

                stderr_line(error.message, label="error", style="bold red")
                if error.hint:
                    stderr_line(error.hint, label="hint", style="bold cyan")


def _told_errors() -> tuple[type[InfllmError], type["EngineError"]]:
    """What ends a question and not the conversation."""
    from infllm.engine.errors import EngineError

    return InfllmError, EngineError


def _next_line(interactive: bool, out: Output) -> str | None:
    """A stripped line; None at the end. Ctrl-C at the prompt takes back what was typed."""
    while True:
        try:
            if interactive:
                return input(PROMPT).strip()
            line = sys.stdin.readline()
            return line.strip() if line else None
        except EOFError:
            out.line()
            return None
        except KeyboardInterrupt:
            if not interactive:
                raise
            out.line()
            out.note("Ctrl-D or /quit ends")


def _answer(question: str, talk: "Conversation", out: Output) -> None:
    from infllm.cli.replies import tell_cut, tell_thinking

    reply = talk.ask(question, out.write)
    out.line()
    tell_thinking(reply.answer, out)
    if reply.answer.finish == "interrupted":
        out.note("stopped")
    tell_cut(reply.answer.finish, talk.sampling.max_new_tokens, out)


def _command(line: str, talk: "Conversation", out: Output) -> bool:
    """Do what a line that begins with / says; False ends the conversation."""
    from infllm.cli.replies import tell_citations
    from infllm.cli.text import count, one_line, plural, size

    name, _, argument = line[1:].partition(" ")
    argument = argument.strip()
    if name in ("quit", "exit", "q"):
        return False
    if name == "help":
        out.note_lines(HELP)
    elif name == "cite":
        if talk.last is None:
            out.note("nothing was answered yet")
        elif not talk.last.citations:
            out.note("nothing in the documents speaks for the last answer")
        else:
            tell_citations(talk.last, out)
    elif name == "reset":
        talk.reset()
        out.note("the conversation is forgotten")
    elif name == "memory":
        stats = talk.session.stats
        documents = ", ".join(one_line(d.source) for d in talk.memory.collection.documents[:5])
        out.note(f"documents: {documents}")
        out.note(
            f"{count(talk.session.position)} tokens in {count(stats.units)} units, "
            f"{plural(talk.turns, 'turn')} of conversation; {size(stats.device_bytes)} on the "
            f"device, {size(stats.host_bytes)} on the host, {size(stats.disk_bytes)} on disk"
        )
    elif name == "save":
        if not argument:
            raise UsageError("/save needs a name", "for example: /save talk.mem")
        talk.save(Path(argument))
        out.note(f"saved to {argument}; go on with: infllm chat {argument}")
    else:
        raise UsageError(f"/{one_line(name)} is not a command", "see /help")
    return True


def _use_history() -> None:
    """Lines typed before, in the user's own files; without it where readline is missing."""
    try:
        import readline
    except ImportError:
        return
    import atexit
    import os

    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    try:
        path = Path(base).expanduser() / "infllm" / "history"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        readline.read_history_file(path)
    except (OSError, RuntimeError):  # no home, or none to write to
        return
    readline.set_history_length(1000)
    atexit.register(_save_history, path)


def _save_history(path: Path) -> None:
    import readline
    from contextlib import suppress

    with suppress(OSError):
        readline.write_history_file(path)
