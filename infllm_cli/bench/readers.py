"""Samples out of the suites' own data files."""

import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from infllm.cli.bench.records import Record, read_records
from infllm.cli.bench.sample import Asked, BadSample, Sample, Turn
from infllm.cli.bench.source import Source
from infllm.cli.errors import ExitCode, InfllmError, UsageError

LETTERS = "ABCDEFGH"


class Pick(BaseModel):
    """A part of a field: the first group of `match`, or all that it matches, in lower case."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    field: str
    match: str | None = None
    lower: bool = False

    @field_validator("match")
    @classmethod
    def _compiles(cls, match: str | None) -> str | None:
        if match is not None:
            re.compile(match)
        return match


class Data(BaseModel):
    """Where a task's samples stand in its files.

    files: names or patterns in the data folder, tried in order; the first with a match wins.
    context, answers, id: fields of a record; a dot goes into lists and objects (options.0).
    fields: the prompt's fields, of the record. turns: the list of questions over one context,
    whose `turn_fields`, answers and options are then looked up in each turn.
    options: the choices; an answer is then its text and its letter. extra: what metrics need.
    meta: what reports may group by.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: list[str]
    context: str = "context"
    answers: str = "answers"
    id: str = "_id"
    fields: dict[str, str | Pick] = {}
    turns: str | None = None
    turn_fields: dict[str, str | Pick] = {}
    options: str | None = None
    extra: dict[str, str] = {}
    meta: dict[str, str] = {}

    @model_validator(mode="after")
    def _turn_fields_need_turns(self) -> Self:
        if self.turn_fields and self.turns is None:
            raise ValueError("turn_fields without turns")
        return self

    def head_fields(self) -> frozenset[str]:
        return frozenset(self.fields)

    def tail_fields(self) -> frozenset[str]:
        return frozenset(self.turn_fields)


class _Malformed(Exception):
    """A field that is missing or not what it should be."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(why)
        self.field = field


def find_data(task: Asked, data: Data, source: Source) -> list[Path]:
    """The files of a task's `data`: in the data folder, its sub-folder `data` or the suite's.

    Raises:
        UsageError: no data folder. InfllmError: it lacks the files; names them.
    """
    if source.data is None:
        raise UsageError(
            f"{task.id} reads its samples from files, and no folder was given",
            f"give --data DIR; `infllm bench fetch {task.suite} --data DIR` fills it",
        )
    for place in ("", "data", task.suite, f"{task.suite}/data"):
        for pattern in data.files:
            found = sorted(path for path in (source.data / place).glob(pattern) if path.is_file())
            if found:
                return found
    raise InfllmError(
        f"{task.id}: {source.data} does not hold {' or '.join(data.files)}",
        f"put it there, or: infllm bench fetch {task.suite} --data {source.data}",
        ExitCode.UNREADABLE,
    )


def read_samples(task: Asked, data: Data, source: Source) -> Iterator[Sample | BadSample]:
    """Every record of the files of a task's `data` as a sample, or as what is wrong with it.

    Raises:
        UsageError, InfllmError: as `find_data`.
    """
    seen: set[str] = set()
    for path in find_data(task, data, source):
        for record in read_records(path):
            if isinstance(record, BadSample):
                yield record
                continue
            try:
                sample = _sample(task, data, record, source.completion)
            except _Malformed as error:
                yield BadSample(record.where, f"{record.where} field {error.field!r}", str(error))
                continue
            name = sample.id
            if name in seen:
                name = next(new for i in count(2) if (new := f"{name}#{i}") not in seen)
                sample = Sample(name, sample.head, sample.context, sample.turns, sample.meta)
            seen.add(name)
            yield sample


def _sample(task: Asked, data: Data, record: Record, completion: bool) -> Sample:
    context = _get(record.fields, data.context)
    if not isinstance(context, str):
        raise _Malformed(data.context, f"it is {type(context).__name__}, not text")
    if not context.strip():
        raise _Malformed(data.context, "it is empty")
    fields = {name: _field(record.fields, pick) for name, pick in data.fields.items()}
    head, tail = task.words(completion)
    turns = []
    for at, asked in _asked(data, record.fields):
        # A field of the record is in reach of every turn, as choices or classes may stand there.
        try:
            own = {name: _field(asked, pick) for name, pick in data.turn_fields.items()}
            answers = _answers(data, asked)
            extra = {name: _get(asked, path) for name, path in data.extra.items()}
        except _Malformed as error:
            raise _Malformed(f"{at}{error.field}", str(error)) from error
        turns.append(Turn(tail.format_map({**fields, **own}), answers, extra))
    name = record.fields.get(data.id)
    name = record.where if name is None else str(name)
    meta = {key: _text(_get(record.fields, path), path) for key, path in data.meta.items()}
    return Sample(name, head.format_map(fields), context, tuple(turns), meta)


def _asked(data: Data, fields: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """What each question is made of, with the name of its place in the record."""
    if data.turns is None:
        return [("", fields)]
    turns = _get(fields, data.turns)
    if not isinstance(turns, list) or not turns:
        raise _Malformed(data.turns, "it is not a list of questions")
    for i, turn in enumerate(turns):
        if not isinstance(turn, dict):
            raise _Malformed(f"{data.turns}.{i}", "it is not an object")
    return [(f"{data.turns}.{i}.", {**fields, **turn}) for i, turn in enumerate(turns)]


def _get(fields: Any, path: str) -> Any:
    value = fields
    for part in path.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise _Malformed(path, "it is missing")
    return value


def _text(value: Any, path: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _Malformed(path, f"it is {type(value).__name__}, not text")
    return str(value)


def _field(fields: dict[str, Any], pick: str | Pick) -> str:
    if isinstance(pick, str):
        return _text(_get(fields, pick), pick)
    text = _text(_get(fields, pick.field), pick.field)
    if pick.match is not None:
        found = re.search(pick.match, text)
        if found is None:
            raise _Malformed(pick.field, f"nothing in it matches {pick.match!r}")
        text = found[1] if found.re.groups else found[0]
    return text.lower() if pick.lower else text


def _answers(data: Data, fields: dict[str, Any]) -> tuple[str, ...]:
    value = _get(fields, data.answers)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    values = value if isinstance(value, list) else [value]
    answers = tuple(_text(each, data.answers) for each in values)
    if not answers:
        raise _Malformed(data.answers, "it holds no answer")
    if data.options is None:
        return answers
    options = _get(fields, data.options)
    if not isinstance(options, list) or not 2 <= len(options) <= len(LETTERS):
        raise _Malformed(data.options, "it is not a list of choices")
    if answers[0] in options:
        return answers[0], LETTERS[options.index(answers[0])]
    if answers[0] in LETTERS[: len(options)]:
        return str(options[LETTERS.index(answers[0])]), answers[0]
    raise _Malformed(data.answers, f"{answers[0]!r} is none of the choices")
