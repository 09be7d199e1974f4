"""Records of a data file, one after the other: JSON lines, a JSON array, or parquet.

No file is ever held as a whole, and a record that is damaged stops no other one.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from infllm.cli.bench.sample import BadSample

MAX_RECORD = 256 << 20  # bytes; the longest contexts of the suites take some ten million
PIECE = 1 << 20
PARQUET_ROWS = 8  # decoded at a time
_OUTSIDE = re.compile(rb'["{}\[\]]')
_INSIDE = re.compile(rb'["\\]')


@dataclass(frozen=True)
class Record:
    """One object of a data file; `where` names the file and its line or number."""

    where: str
    fields: dict[str, Any]


def read_records(path: Path) -> Iterator[Record | BadSample]:
    """The records of a file by its suffix: .json, .parquet, and JSON lines for all else."""
    if path.suffix == ".parquet":
        yield from _parquet(path)
    elif path.suffix == ".json":
        with path.open("rb") as stream:
            for number, found in enumerate(_elements(stream), 1):
                yield _parsed(f"{path.name} record {number}", found)
    else:
        with path.open("rb") as stream:
            for number, line in enumerate(_lines(stream), 1):
                if line is None or line.strip():
                    yield _parsed(f"{path.name}:{number}", line)


def _parsed(where: str, data: bytes | str | None) -> Record | BadSample:
    if data is None:
        return BadSample(where, where, f"it is longer than {MAX_RECORD >> 20} MiB")
    if isinstance(data, str):
        return BadSample(where, where, data)
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return BadSample(where, where, f"it is not JSON: {error}")
    if not isinstance(value, dict):
        return BadSample(where, where, f"it is {_kind(value)}, not an object")
    return Record(where, value)


def _kind(value: Any) -> str:
    names = {str: "a text", list: "a list", dict: "an object", bool: "true or false"}
    return "nothing" if value is None else names.get(type(value), "a number")


def _lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """Lines; None for one that is too long, whose rest is passed over."""
    while line := stream.readline(MAX_RECORD + 1):
        if len(line) <= MAX_RECORD:
            yield line
            continue
        while not line.endswith(b"\n") and (line := stream.readline(PIECE)):
            pass
        yield None


def _elements(stream: BinaryIO) -> Iterator[bytes | str | None]:
    """The objects of an array as bytes; a text says what is wrong in its place, and ends it."""
    buffer = bytearray(stream.read(PIECE).removeprefix(b"\xef\xbb\xbf"))
    if buffer.lstrip()[:1] != b"[":
        yield "the file is not an array of objects"
        return
    at = depth = start = 0
    inside = False
    while True:
        found = (_INSIDE if inside else _OUTSIDE).search(buffer, at)
        if found is None:
            if len(buffer) > MAX_RECORD:
                yield None
                return
            at = max(at, len(buffer))
            piece = stream.read(PIECE)
            if not piece:
                yield "the file ends within it"
                return
            buffer += piece
            continue
        at = found.end()
        sign = found.group()
        if inside:
            inside = sign == b"\\"
            at += inside  # what is escaped is passed over, also where it comes with the next piece
        elif sign == b'"':
            inside = True
        elif sign in b"{[":
            if depth == 1:
                start = found.start()
            depth += 1
        else:
            depth -= 1
            if depth < 1:
                return
            if depth == 1:
                if bytes(buffer[:start]).strip(b" \t\r\n,["):
                    yield f"{bytes(buffer[:start]).strip()[:40]!r} stands before it"
                yield bytes(buffer[start:at])
                del buffer[:at]
                at = start = 0


def _parquet(path: Path) -> Iterator[Record | BadSample]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield Record(f"{path.name} row {number}", row)
    except (OSError, pyarrow.ArrowException) as error:
        where = f"{path.name} row {number + 1}"
        yield BadSample(where, where, f"the file cannot be read from here on: {error}")
