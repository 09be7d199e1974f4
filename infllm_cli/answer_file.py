"""Answers on disk: JSON lines, and beside them what they depend on.

    OUT              one answer a line; each says by `key` what it depends on
    OUT.key.json     that in full: a run that would give other answers is refused by name

A file of lines alone stays what `jq` and its like expect: every line is an answer.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infllm.cli.bench.manifest import describe_engine, differences
from infllm.cli.bench.results import append_line, replace_file
from infllm.cli.errors import InfllmError, UsageError
from infllm.cli.options import Sampling
from infllm.cli.readers.table import describe_reader
from infllm.engine.files.storage import lock

if TYPE_CHECKING:
    from infllm.cli.remember import Prepared
    from infllm.engine import Engine

FORMAT = 1  # of the lines and of the key
START = b'{"schema": '  # of every line
NAMES = "sources/names"  # told, not compared: the same document may be called otherwise


def answers_depend_on(
    prepared: "Prepared", sampling: Sampling, read_back: bool, reader: str | None = None
) -> dict[str, Any]:
    """All that an answer depends on beside its question."""
    engine = prepared.engine
    by_reader: dict[str, Any] = {}
    if reader is not None:
        by_reader = {"reader": reader, "reader_settings": describe_reader(reader, engine)}
    return {
        "format": FORMAT,
        "sources": {"names": ", ".join(prepared.sources), "digest": prepared.digest},
        "prompt": _prompt_digest(engine),
        "policy": engine.config.model.type,
        "read_back": read_back,
        **by_reader,
        "sampling": _of_answers(sampling),
        **describe_engine(engine),
    }


def _of_answers(sampling: Sampling) -> dict[str, Any]:
    """What of it an answer depends on: not on what was tried on the way."""
    chosen = {**vars(sampling), "stop": list(sampling.stop)}
    del chosen["draft"]
    return chosen


def _prompt_digest(engine: "Engine") -> str:
    """Of what stands around the document, with a question that is always the same."""
    from infllm.engine.text import build_prompt

    prompt = build_prompt(engine.tokenizer, engine.config, "ask", question="?")
    return hashlib.sha256(json.dumps([prompt.head_ids, prompt.tail_ids]).encode()).hexdigest()


class AnswerFile:
    """The answers of one run to many questions, gone on with by the next; a context manager.

    Raises on entry, before anything slow is done:
        UsageError: another run writes there; the file is none, cannot be written, or holds
            something else, which not even `restart` throws away.
    """

    def __init__(self, path: str, restart: bool) -> None:
        self.path = Path(path)
        self.restart = restart
        self.done: set[str] = set()
        self.depends_on: dict[str, Any] = {}
        self._lock: int | None = None
        self._there: list[dict[str, Any]] = []  # answers of earlier runs

    @property
    def key(self) -> str:
        """Of all that the answers depend on, short enough for every line."""
        compared = {**self.depends_on, "sources": self.depends_on["sources"]["digest"]}
        return hashlib.sha256(json.dumps(compared, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def beside(self) -> Path:
        """Where what they depend on is told."""
        return self.path.with_name(f"{self.path.name}.key.json")

    def __enter__(self) -> "AnswerFile":
        if self.path.exists() and not self.path.is_file():
            raise UsageError(
                f"{self.path} is not a regular file, and cannot be gone on with",
                "--json prints the answers as lines of JSON",
            )
        try:
            with self.path.open("ab"):
                pass
            self._lock = lock(self.path)
            if self._lock is None:
                raise UsageError(
                    f"another run is writing to {self.path}", "wait for its end, or name another"
                )
            self._there = self._read()
        except OSError as error:
            self._close()
            raise UsageError(f"{self.path}: {error.strerror}", "name another file") from error
        except UsageError:
            self._close()
            raise
        return self

    def begin(self, depends_on: dict[str, Any]) -> None:
        """Go on from the answers that are there, or begin anew; `done` are their questions.

        Raises:
            UsageError: those answers depend on something else, and no restart was asked for.
        """
        self.depends_on = depends_on
        if self.restart:
            self._there = []
            os.truncate(self.path, 0)
        if self._there:
            self._refuse_others({line.get("key") for line in self._there})
        self.done = {line["question"] for line in self._there}
        fields = json.dumps(depends_on, indent=1, ensure_ascii=False) + "\n"
        temporary = self.beside.with_name(f".{self.beside.name}.tmp")
        try:
            replace_file(self.beside, fields.encode("utf-8", "backslashreplace"), temporary)
        except OSError as error:
            raise UsageError(f"{self.beside}: {error.strerror}", "name another file") from error

    def __exit__(self, *exc: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def add(self, fields: dict[str, Any]) -> None:
        """Write one answer.

        Raises:
            InfllmError: it cannot be written; those before are safe.
        """
        try:
            append_line(self.path, {**fields, "key": self.key}, durable=False)
        except OSError as error:
            raise InfllmError(
                f"{self.path}: {error.strerror}",
                "the answers before are safe; make room and give the same command again",
            ) from error

    def _read(self) -> list[dict[str, Any]]:
        """The answers that are there; a last line that was cut is taken away."""
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        rest = data[len(whole) :]
        try:
            lines = [_answer(line) for line in whole.splitlines()]
            if rest[: len(START)] != START[: len(rest)]:
                raise ValueError
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{self.path} holds something else than answers",
                "name another file with --output",
            ) from error
        if rest:
            os.truncate(self.path, len(whole))
        return lines

    def _refuse_others(self, keys: set[Any]) -> None:
        if keys == {self.key}:
            return
        changed = differences(self._told(), self.depends_on, (NAMES,))
        if changed:
            names = f" of {self._told()['sources']['names']}" if "sources" in self._told() else ""
            raise UsageError(
                f"the answers in {self.path}{names} were given otherwise: {', '.join(changed)}",
                "ask as they were asked, name another --output, or begin anew with --restart",
            )
        raise UsageError(
            f"not all answers in {self.path} are of one run", "name another --output, or --restart"
        )

    def _told(self) -> dict[str, Any]:
        try:
            told = json.loads(self.beside.read_bytes())
            if isinstance(told, dict) and isinstance(told.get("sources"), dict):
                return told
        except (OSError, ValueError):
            pass
        raise UsageError(
            f"what the answers in {self.path} depend on is not known: {self.beside.name} is not "
            "beside them, or is not ours",
            "name another --output, or begin anew with --restart",
        )


def _answer(line: bytes) -> dict[str, Any]:
    """An answer of ours; raises ValueError, KeyError or TypeError for anything else."""
    fields = json.loads(line)
    if fields["command"] != "ask" or not isinstance(fields["answer"], str):
        raise ValueError
    if not isinstance(fields["question"], str):
        raise ValueError
    return fields
