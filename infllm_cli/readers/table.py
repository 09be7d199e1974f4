"""The readers by name. Free of torch: a reader is imported when it is used."""

from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING

from infllm.cli.errors import UsageError

if TYPE_CHECKING:
    from infllm.cli.readers.base import Reader

READERS = ("infiniretri",)


def check_reader(name: str) -> str:
    """The name as it is known here. Raises UsageError for another, with the nearest one."""
    known = name.lower().replace("-", "").replace("_", "")
    if known in READERS:
        return known
    near = get_close_matches(known, READERS, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(READERS)}"
    raise UsageError(f"unknown reader {name!r}", hint)


def reader_of(name: str) -> "Reader":
    """The reader called `name`, one of `READERS`."""
    reader: Reader = getattr(import_module(f"infllm.cli.readers.{name}"), f"read_{name}")
    return reader
