"""The standard streams, whatever state a caller left them in: closed, full, or nobody reading."""

import errno
import io
import os
import sys
from typing import BinaryIO

from infllm.cli.errors import LostOutput, UsageError

NAMES = {0: "standard input", 1: "standard output", 2: "standard error"}


class StandardOutput(io.TextIOWrapper):
    """stdout on which every failed write is a LostOutput, or a BrokenPipeError.

    Whoever writes - our own lines, the help, a table - cannot take it for a failure of its own.
    """

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _lost(error) from error

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _lost(error) from error


def _lost(error: OSError) -> LostOutput:
    closed = error.errno == errno.EBADF
    why = "it is closed" if closed else (error.strerror or str(error))
    return LostOutput(f"standard output: {why}", "what should stand there is not complete")


def _stdout_bytes() -> BinaryIO:
    if isinstance(sys.stdout, io.TextIOWrapper):
        return sys.stdout.detach()
    return open(1, "wb", closefd=False)


def settle_streams() -> None:
    """Make all three descriptors safe to use; to be called before any other file is opened.

    A closed one would be given to the next file that is opened, and answers or notes would go into
    it. A closed stdout fails at the first write, a closed stdin is None, and nobody is told what
    goes to a closed stderr.
    """
    # The wrong way round on purpose, so that writing to stdout fails instead of being swallowed.
    for descriptor, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            _occupy(descriptor, mode)
    raw = _stdout_bytes()
    terminal = raw.isatty()
    sys.stdout = StandardOutput(raw, encoding="utf-8", errors="replace", line_buffering=terminal)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _occupy(descriptor: int, mode: int) -> None:
    opened = os.open(os.devnull, mode)
    if opened != descriptor:
        os.dup2(opened, descriptor)
        os.close(opened)


def force_utf8() -> None:
    """UTF-8 on all streams whatever the locale says; what UTF-8 cannot hold becomes `?`."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="replace")


def forget(descriptor: int) -> None:
    """After stdout (1) or stderr (2) failed: keeps the interpreter's last flush from failing."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, descriptor)
    os.close(devnull)
    if descriptor == 1 and isinstance(sys.stdout, StandardOutput):
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def tell(text: str) -> None:
    """A line, or several, on stderr. Where stderr cannot be written, nobody wants to read them."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        forget(2)


def stdin_bytes(what: str) -> BinaryIO:
    """Standard input as bytes, to read `what` from.

    Raises:
        UsageError: it is closed, or a terminal.
    """
    if sys.stdin is None or sys.stdin.closed:
        raise UsageError(
            f"'-' reads {what} from standard input, which is closed", "name a file instead"
        )
    if sys.stdin.isatty():
        raise UsageError(
            "'-' reads standard input, and that is a terminal",
            "pipe a document in: cat book.txt | infllm ask - 'question'"
            if what == "a document"
            else f"pipe {what} in: echo 'Who inherits the house?' | infllm ask book.pdf -",
        )
    return getattr(sys.stdin, "buffer", None) or io.BytesIO(sys.stdin.read().encode())


def stdin_text(what: str) -> str:
    """All of standard input.

    Raises:
        UsageError: it is closed, a terminal, not UTF-8, or fails.
    """
    try:
        return stdin_bytes(what).read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError("standard input is not UTF-8 text", f"pipe {what} in as UTF-8") from error
    except OSError as error:
        raise UsageError(f"standard input: {error.strerror}", "name a file instead") from error
