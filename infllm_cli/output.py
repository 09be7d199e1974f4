"""Where words go: the answer to stdout, everything else to stderr."""

import json
import math
import re
import sys
from dataclasses import dataclass
from typing import Any

from infllm.cli.errors import LostOutput
from infllm.cli.streams import forget, tell
from infllm.cli.text import UNSAFE, clean, one_line

SCHEMA = 1
_UNSAFE = re.compile(f"[{UNSAFE}]")


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

    def exact(self, text: str) -> None:
        """Text as it is; made fit for a terminal where stdout is one."""
        sys.stdout.write(clean(text) if sys.stdout.isatty() else text)
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
            tell(clean(text))

    def detail(self, text: str) -> None:
        """What only `-v` shows."""
        if self.verbose and not self.quiet:
            stderr_line(text)

    def warn(self, text: str) -> None:
        stderr_line(text, label="warning", style="bold yellow")


def print_object(fields: dict[str, Any]) -> None:
    """One line of JSON on stdout."""
    sys.stdout.write(json_line(fields))
    sys.stdout.flush()


def json_line(fields: dict[str, Any]) -> str:
    """JSON and a line feed. A number that is not finite becomes null, since JSON has no such; what
    a terminal would obey, or a lone surrogate, is written as its escape."""
    text = json.dumps(_finite(fields), ensure_ascii=False, allow_nan=False)
    # Outside strings JSON is ASCII, so that these stand inside of them.
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


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
        tell(text)
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.text import Text

        line = Text.assemble((f"{label}:", style), " ", text)
        Console(stderr=True).print(line, soft_wrap=True)
    else:
        tell(f"{label}: {text}")


def print_error(message: str, hint: str, command: str, code: int, as_json: bool) -> None:
    """The error and its hint, one line each on stderr; with JSON, also as an object on stdout."""
    stderr_line(message, label="error", style="bold red")
    if hint:
        stderr_line(hint, label="hint", style="bold cyan")
    if as_json:
        error = {"error": one_line(message), "hint": one_line(hint), "code": code}
        try:
            print_object({"schema": SCHEMA, "command": command, **error})
        except (LostOutput, OSError):
            forget(1)  # stderr has it
