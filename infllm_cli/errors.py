"""What can go wrong, as types: each error says what and where, and carries the next step."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit status of every command."""

    OK = 0
    RUNTIME = 1
    USAGE = 2
    UNREADABLE = 3  # unreadable source, or no text in it
    BUDGET = 4
    MODEL = 5  # model missing, or offline
    MEMORY = 6
    INTERRUPTED = 130


class InfllmError(Exception):
    """Base of all errors that end a command.

    ``message`` says what failed and where, ``hint`` the next step, ``code`` the exit status.
    """

    code: ExitCode = ExitCode.RUNTIME

    def __init__(self, message: str, hint: str | None = None, code: ExitCode | None = None):
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code


class UsageError(InfllmError):
    code = ExitCode.USAGE


class BudgetExceeded(InfllmError):
    """More to read than the user allowed."""

    code = ExitCode.BUDGET


class ModelMissing(InfllmError):
    """The model is not here and may not be fetched."""

    code = ExitCode.MODEL


class MissingExtra(InfllmError):
    """An optional dependency that this feature needs is not installed."""

    code = ExitCode.RUNTIME


class LostOutput(Exception):
    """Standard output could not be written. No InfllmError: no loop over questions goes on."""

    def __init__(self, message: str, hint: str):
        super().__init__(message)
        self.message = message
        self.hint = hint


class Interrupted(InfllmError):
    """Ctrl-C, with what had been done by then."""

    code = ExitCode.INTERRUPTED


def exit_code(error: BaseException) -> ExitCode:
    """The exit status that an error of any layer stands for."""
    from infllm.engine import errors as engine

    if isinstance(error, InfllmError):
        return error.code
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    if isinstance(error, engine.ConfigError):
        return ExitCode.USAGE
    if isinstance(error, engine.ModelNotFound):
        return ExitCode.MODEL
    if isinstance(error, engine.OutOfMemory) or is_out_of_memory(error):
        return ExitCode.MEMORY
    return ExitCode.RUNTIME


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python or torch could not allocate; torch says so in words on a CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
