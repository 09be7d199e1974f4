"""The `infllm` command: parses, dispatches, and turns every error into a line and a status."""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from infllm.cli.command_table import CommandTable
from infllm.cli.errors import ExitCode, LostOutput, exit_code, is_out_of_memory
from infllm.cli.output import print_error
from infllm.cli.streams import force_utf8, forget, settle_streams, tell
from infllm.cli.text import clean

ALIASES = {"query": "ask", "perplexity": "ppl"}
# click's UsageError, wherever this version of typer keeps its click.
ClickUsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="infllm",
    cls=CommandTable,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    help="Ask, summarize and measure documents far longer than a model's context window.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"infllm {version('infllm')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit status; errors are told on stderr."""
    force_utf8()
    try:
        status = _dispatch(arguments)
        sys.stdout.flush()  # here, where it can be told, and not when the interpreter ends
        return status
    except BrokenPipeError:
        # The reader has all it wants (`| head`): no failure of ours.
        forget(1)
        return ExitCode.OK
    except ClickUsageError as error:
        return _usage(error, arguments)
    except (Exception, KeyboardInterrupt) as error:
        return _failure(error, arguments)


def _dispatch(arguments: Sequence[str]) -> int:
    command = typer.main.get_command(app)
    try:
        # Not command.main(): that would turn a closed pipe and Ctrl-C into statuses of its own.
        with command.make_context("infllm", list(arguments)) as context:
            command.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    return ExitCode.OK


def _command_name(arguments: Sequence[str]) -> str:
    name = next((part for part in arguments if not part.startswith("-")), "")
    return ALIASES.get(name, name)


def _usage(error: Exception, arguments: Sequence[str]) -> int:
    context = getattr(error, "ctx", None)
    message = error.format_message()  # type: ignore[attr-defined]
    if type(error).__name__ == "NoArgsIsHelpError":
        tell(message)
        return ExitCode.USAGE
    path = context.command_path if context is not None else "infllm"
    code = ExitCode.USAGE
    print_error(
        message, f"see: {path} --help", _command_name(arguments), code, "--json" in arguments
    )
    return code


def _failure(error: BaseException, arguments: Sequence[str]) -> int:
    code = exit_code(error)
    message, hint = getattr(error, "message", None), getattr(error, "hint", None)
    verbose = any(part in ("-v", "-vv", "--verbose") for part in arguments)
    if isinstance(error, LostOutput):
        forget(1)
    elif isinstance(error, KeyboardInterrupt):
        message, hint = "interrupted before anything was read", "the same command starts over"
    elif is_out_of_memory(error):
        message = "out of memory on this machine"
        hint = "give fewer sources, or a smaller window: --set n_local=..., --set topk=..."
    elif message is None:
        if isinstance(error, OSError) and error.strerror:
            where = f"{error.filename}: " if error.filename else ""
            message, hint = f"{where}{error.strerror}", "run again with -v for the traceback"
        else:
            message = f"{type(error).__name__}: {error}"
            hint = "this is a defect: run again with -v for the traceback, and report it"
        if verbose:
            import traceback

            tell(clean("".join(traceback.format_exception(error)).rstrip()))
    print_error(str(message), hint or "", _command_name(arguments), code, "--json" in arguments)
    return code


def main() -> NoReturn:
    """Entry point of the `infllm` script."""
    # Before torch is imported. Threads of GNU's OpenMP wait for each other by spinning, which takes
    # the processor from those they wait for: beside other work reading was nine times slower. So
    # short a spin costs nothing where there is no other work; none at all, a third of the speed.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    settle_streams()
    # A second Ctrl-C during clean-up ends at once instead of printing a traceback.
    status = run(sys.argv[1:])
    if status == ExitCode.INTERRUPTED:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(status)
