"""Errors of reading documents."""

from __future__ import annotations

from infllm.cli.errors import ExitCode, InfllmError

COPY_AGAIN = "Download or copy the file again."


class DocumentError(InfllmError):
    """A source that gives no text. Exit status 3 unless a subclass says otherwise."""

    code = ExitCode.UNREADABLE


class SourceNotFound(DocumentError):
    """No file, folder or glob match of that name."""


class Unreadable(DocumentError):
    """There, but damaged, not permitted, or not a regular file."""


class Encrypted(DocumentError):
    """Needs a password, or was given a wrong one."""


class NoText(DocumentError):
    """Opened and understood, with nothing to read in it."""


class UnsupportedFormat(DocumentError):
    """A known format that is not read, or unknown binary data."""


class LimitExceeded(DocumentError):
    """Larger, deeper or slower than the limits allow."""

    code = ExitCode.BUDGET


# Rebuilds in the parent an error that a worker process reported by name.
ERRORS: dict[str, type[DocumentError]] = {
    error.__name__: error
    for error in (SourceNotFound, Unreadable, Encrypted, NoText, UnsupportedFormat, LimitExceeded)
}
