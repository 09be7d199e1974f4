"""Results on disk: a JSON line a sample, written as it finishes, found again by the next run.

    DIR/manifest.json                what the results depend on
    DIR/<policy>/<suite>.<task>.jsonl
    DIR/timings.jsonl                what differs from run to run

In folders' names a policy's settings follow a comma: not every system has names with colons.

A file grows by whole lines. When a run is complete its lines are put into the samples' order, so
that the bytes depend neither on the number of workers nor on interruptions.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from infllm.cli.errors import InfllmError, UsageError
from infllm.engine.files.storage import create, fsync, lock, replace, sync_folder, unlink, write

FORMAT = 1  # of the manifest and of the records
MANIFEST = "manifest.json"
TEMPORARY = f".{MANIFEST}.tmp"
TIMINGS = "timings.jsonl"
LOCK = "lock"
APPEND = os.O_CREAT | os.O_WRONLY | os.O_APPEND


class ResultFile:
    """The records of one task under one policy, by the samples' ids; of two the later counts.

    Raises on creation:
        UsageError: the file holds something else, with the line's number.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, dict[str, Any]] = {}
        self._lines = 0
        unlink(self._temporary)  # of a run that was killed while it put lines into order
        data = self.path.read_bytes() if self.path.exists() else b""
        whole = data.rfind(b"\n") + 1
        if whole < len(data):  # the last line was cut by a kill
            with self.path.open("r+b") as file:
                file.truncate(whole)
        for number, record in enumerate(_records(self.path, data[:whole]), 1):
            self.records[record["id"]] = record
            self._lines = number

    @property
    def done(self) -> set[str]:
        """Ids of the samples that need no second run; those that failed get one."""
        return {id for id, record in self.records.items() if "failed" not in record}

    def append(self, record: dict[str, Any]) -> None:
        """Write a record, and return when it is on the disk.

        Raises OSError.
        """
        if self.records.get(record["id"]) == record:  # failed as before
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        append_line(self.path, record, durable=True)
        self.records[record["id"]] = record
        self._lines += 1

    def finish(self, order: Sequence[str]) -> None:
        """Put the records into the order of the ids, others behind them, each id once.

        Raises OSError.
        """
        sorted_ids = [id for id in order if id in self.records]
        sorted_ids += sorted(self.records.keys() - set(order))
        if sorted_ids == list(self.records) and self._lines == len(self.records):
            return
        self.records = {id: self.records[id] for id in sorted_ids}
        replace_file(self.path, b"".join(map(to_line, self.records.values())), self._temporary)
        self._lines = len(self.records)

    @property
    def _temporary(self) -> Path:
        return self.path.with_name(f".{self.path.name}.tmp")


def to_line(record: dict[str, Any]) -> bytes:
    """One line of JSON; a lone surrogate of the data is written as its escape."""
    text = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8", "backslashreplace")


def append_line(path: Path, record: dict[str, Any], durable: bool) -> None:
    """One write at the end of a file, so that a kill leaves at most one line cut."""
    descriptor = os.open(path, APPEND, 0o644)
    try:
        write(descriptor, to_line(record))
        if durable:
            fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes, temporary: Path) -> None:
    """Write a file whole or not at all."""
    unlink(temporary)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = create(temporary)
    try:
        write(descriptor, data)
        fsync(descriptor)
        os.fchmod(descriptor, 0o644)
    finally:
        os.close(descriptor)
    replace(temporary, path)
    sync_folder(path.parent)


def repair_lines(path: Path) -> None:
    """Take a last line away that a kill cut."""
    if path.exists():
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with path.open("r+b") as file:
                file.truncate(whole)


def _records(path: Path, data: bytes) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            record = json.loads(line)
            if not isinstance(record["id"], str) or not ("failed" in record or "scores" in record):
                raise ValueError
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path}, line {number}, is not a result",
                "remove the line: its sample is run again; or name another --output",
            ) from error
        yield record


def result_path(folder: Path, policy: str, suite: str, task: str) -> Path:
    """Where the results of a task under a policy lie."""
    return folder / policy.replace(":", ",") / f"{suite}.{task}.jsonl"


class ResultFolder:
    """A folder of results that one run at a time may write; a context manager.

    Raises on entry:
        UsageError: another run writes there, the folder holds something else, or cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def __enter__(self) -> "ResultFolder":
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            strangers = {p.name for p in self.path.iterdir()} - {LOCK}
            if strangers and not (self.path / MANIFEST).exists() and strangers != {TEMPORARY}:
                raise UsageError(
                    f"{self.path} holds files and no results of a benchmark",
                    "name an empty or a new folder with --output",
                )
            self._lock = lock(self.path / LOCK)
            if self._lock is None:
                raise UsageError(
                    f"another run is writing to {self.path}",
                    "wait for its end, or name another --output",
                )
            repair_lines(self.path / TIMINGS)
        except OSError as error:
            raise UsageError(
                f"--output {self.path}: {error.strerror}", "name a folder that can be written to"
            ) from error
        return self

    def __exit__(self, *exc: object) -> None:
        if self._lock is not None:
            os.close(self._lock)

    @property
    def manifest(self) -> dict[str, Any] | None:
        """What an earlier run left; None where there is none. Raises as `read_manifest`."""
        return read_manifest(self.path) if (self.path / MANIFEST).exists() else None

    def write_manifest(self, fields: dict[str, Any]) -> None:
        """Replace the manifest, whole or not at all. Raises OSError."""
        data = json.dumps(fields, indent=1, ensure_ascii=False).encode() + b"\n"
        path = self.path / MANIFEST
        if not path.exists() or path.read_bytes() != data:
            replace_file(path, data, self.path / TEMPORARY)

    def clear(self) -> None:
        """Remove all results, and nothing that is not ours. Raises OSError."""
        unlink(self.path / MANIFEST)  # first: what is half removed must not look like results
        for path in [*self.path.glob("*/*.jsonl"), self.path / TIMINGS]:
            unlink(path)

    def file(self, policy: str, suite: str, task: str) -> ResultFile:
        """The results of a task under a policy, so far."""
        return ResultFile(result_path(self.path, policy, suite, task))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder of results.

    Raises:
        UsageError: there is none, or it is not ours.
    """
    path = folder / MANIFEST
    try:
        fields = json.loads(path.read_bytes())
        if fields["format"] != FORMAT or not isinstance(fields["tasks"], dict):
            raise ValueError
    except OSError as error:
        raise UsageError(
            f"{folder} holds no results of a benchmark", "make some with: infllm bench run"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is not the manifest of results", "name another folder") from error
    return fields


def read_results(folder: Path) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """Policy, `suite:task` and records of every file of a folder, read without touching it.

    A last line that was cut is left out. Raises UsageError as `ResultFile`.
    """
    for path in sorted(folder.glob("*/*.jsonl")):
        data = path.read_bytes()
        records = {r["id"]: r for r in _records(path, data[: data.rfind(b"\n") + 1])}
        yield (
            path.parent.name.replace(",", ":"),
            path.stem.replace(".", ":", 1),
            list(records.values()),
        )


def read_timings(folder: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """What each result took, by `suite:task`, policy and id; the last of several. Lines that were
    cut, and results of runs that noted no time, are left out."""
    path = folder / TIMINGS
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            fields = json.loads(line)
            found[fields["task"], fields["policy"], fields["id"]] = fields
        except (ValueError, KeyError, TypeError):
            continue
    return found


def disk_error(error: OSError, folder: Path) -> InfllmError:
    """The error for a result that could not be written."""
    return InfllmError(
        f"{error.filename or folder}: {error.strerror}",
        "what was written is safe; make room and give the same command again",
    )
