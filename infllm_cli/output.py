"""Where words go: the answer to stdout, everything else to stderr."""

import json
import math
import os
import sys
from dataclasses import dataclass
from typing import Any

from infllm.cli.text import clean, one_line

SCHEMA = 1


def force_utf8() -> None:
    """UTF-8 on both streams whatever the locale says; what UTF-8 cannot hold becomes `?`."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="replace")


def forget_stdout() -> None:
    """After the reader of a pipe went away: keeps the interpreter's last flush from failing."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)


@dataclass(frozen=True)
class Output:
    """The streams of one command.

    `command` names it in JSON; `as_json` means one object on stdout and nothing else there;
    `quiet` leaves errors and warnings alone on stderr; `verbose` adds detail there.
    """

    command: str
    as_json: bool = False
    quiet: bool = False
    verbose: int = 0

    @property
    def live(self) -> bool:
        """Whether moving progress may be drawn: stderr is a terminal and not asked to be quiet."""
        return sys.stderr.isatty() and not self.quiet

    def write(self, text: str) -> None:
        """A piece of the answer, at once."""
        if text and not self.as_json:
            sys.stdout.write(clean(text))
            sys.stdout.flush()

    def line(self, text: str = "") -> None:
        self.write(f"{text}\n")

    def object(self, fields: dict[str, Any]) -> None:
        """The one JSON object of a command, when JSON was asked for."""
        if self.as_json:
            print_object({"schema": SCHEMA, "command": self.command, **fields})

    def note(self, text: str) -> None:
        """What the user may want to know and no program needs."""
        if not self.quiet:
            stderr_line(text)

    def note_lines(self, text: str) -> None:
        """Several lines for the user, as they stand."""
        if not self.quiet:
            print(clean(text), file=sys.stderr, flush=True)

    def detail(self, text: str) -> None:
        """What only `-v` shows."""
        if self.verbose and not self.quiet:
            stderr_line(text)

    def warn(self, text: str) -> None:
        stderr_line(text, label="warning", style="bold yellow")


def print_object(fields: dict[str, Any]) -> None:
    """One line of JSON; a number that is not finite becomes null, since JSON has no such."""
    sys.stdout.write(json.dumps(_finite(fields), ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return value


def stderr_line(text: str, label: str = "", style: str = "") -> None:
    """One line on stderr; the label is coloured on a terminal unless NO_COLOR is set."""
    text = one_line(text)
    if not label:
        print(text, file=sys.stderr, flush=True)
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.text import Text

        line = Text.assemble((f"{label}:", style), " ", text)
        Console(stderr=True).print(line, soft_wrap=True)
    else:
        print(f"{label}: {text}", file=sys.stderr, flush=True)


def print_error(message: str, hint: str, command: str, code: int, as_json: bool) -> None:
    """The error and its hint, one line each on stderr; with JSON, also as an object on stdout."""
    stderr_line(message, label="error", style="bold red")
    if hint:
        stderr_line(hint, label="hint", style="bold cyan")
    if as_json:
        error = {"error": one_line(message), "hint": one_line(hint), "code": code}
        print_object({"schema": SCHEMA, "command": command, **error})
