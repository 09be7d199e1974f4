"""Benchmark suites as data: one YAML file a task, validated, listed, found by name."""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from itertools import islice
from pathlib import Path
from string import Formatter
from typing import Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    model_validator,
)

from infllm.cli.bench.extras import need
from infllm.cli.bench.generators import GENERATORS, Generator, generate
from infllm.cli.bench.metrics import METRICS, check_options
from infllm.cli.bench.readers import Data, find_data, read_samples
from infllm.cli.bench.sample import BadSample, Sample
from infllm.cli.bench.source import Source
from infllm.cli.errors import UsageError

FOLDER = Path(str(files(__package__))) / "suite_files"
SUITE_FILE = "_suite.yaml"
T = TypeVar("T")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Published(_Model):
    """A figure of others, in percent, with the place where it stands."""

    method: str
    model: str
    score: float
    source: str


class Task(_Model):
    """One task of a suite.

    prompt: the suite's own words with `{context}` once and names of fields; what stands before
    the context is the head, the rest the tail. completion_prompt: its form for models without a
    chat template, where that is not the same. answer_tokens: the longest answer. chat: whether a
    chat template is put around the prompt. stop: texts that end an answer. source: where the
    task's definition comes from, and its licence.
    """

    suite: str
    name: str
    title: str
    version: int = Field(ge=1)
    source: str
    prompt: str
    completion_prompt: str | None = None
    answer_tokens: int = Field(ge=1)
    metric: str
    metric_options: dict[str, Any] = {}
    chat: bool = True
    stop: list[str] = []
    language: Literal["en", "zh", "code"] = "en"
    data: Data | None = None
    generator: SerializeAsAny[Generator] | None = None
    published: list[Published] = []

    @model_validator(mode="before")
    @classmethod
    def _named_generator(cls, values: Any) -> Any:
        """`generator: {name: niah, ...}` as the generator of that name with its arguments."""
        given = values.get("generator") if isinstance(values, dict) else None
        if not isinstance(given, dict):
            return values
        name = given.get("name")
        if name not in GENERATORS:
            known = ", ".join(GENERATORS)
            raise ValueError(f"generator: no generator {name!r}; there are: {known}")
        return {**values, "generator": GENERATORS[name](**given)}

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.data is None) == (self.generator is None):
            raise ValueError("give either data or generator")
        check_options(self.metric, self.metric_options)
        for prompt in (self.prompt, self.completion_prompt):
            if prompt is not None:
                self._check_prompt(prompt)
        return self

    def _check_prompt(self, prompt: str) -> None:
        names = [name for _, name, _, _ in Formatter().parse(prompt) if name is not None]
        if names.count("context") != 1:
            raise ValueError("a prompt holds {context} exactly once")
        made_of = self.data or self.generator
        assert made_of is not None
        head, tail = made_of.head_fields(), made_of.tail_fields()
        at = names.index("context")
        for name in names[:at]:
            if name not in head:
                raise ValueError(f"nothing that is the same for all questions fills {{{name}}}")
        for name in names[at + 1 :]:
            if name not in head | tail:
                raise ValueError(f"nothing fills {{{name}}}")

    @property
    def id(self) -> str:
        return f"{self.suite}:{self.name}"

    def words(self, completion: bool) -> tuple[str, str]:
        """The prompt's text before and after the context, fields not yet filled in."""
        prompt = self.completion_prompt if completion else None
        head, _, tail = (prompt or self.prompt).partition("{context}")
        return head, tail

    def check_installed(self) -> None:
        """Find out before a long run whether the libraries that the task needs are there.

        Raises:
            MissingExtra: one is not installed.
        """
        need(METRICS[self.metric].libraries, f"{self.id} (metric {self.metric})")
        if self.generator is not None:
            need(self.generator.libraries(), f"{self.id} (generator {self.generator.name})")
        elif self.data is not None and any(name.endswith(".parquet") for name in self.data.files):
            need(["pyarrow"], f"{self.id} (parquet files)")

    def samples(self, source: Source, limit: int | None = None) -> Iterator[Sample | BadSample]:
        """The task's samples in a fixed order, at most `limit` (of each length, if generated).

        What cannot be made into a sample is given as a BadSample in its place.

        Raises:
            UsageError: something that the task needs is not in `source`, or a length is too
                short. InfllmError: the data is not where it should be.
        """
        if self.generator is not None:
            count = source.count if limit is None else min(limit, source.count)
            yield from generate(self, self.generator, source, count)
        else:
            assert self.data is not None
            yield from islice(read_samples(self, self.data, source), limit)


def data_files(task: Task, source: Source) -> list[Path]:
    """The files that decide what a task's samples are, for hashing.

    Raises:
        UsageError, InfllmError: files that the task needs are not there.
    """
    if task.data is not None:
        return find_data(task, task.data, source)
    assert task.generator is not None
    used = []
    if task.generator.uses_haystack() and source.haystack is not None:
        used.append(source.haystack)
    if task.generator.uses_qa() and source.qa is not None:
        used.append(source.qa)
    return [file for path in used for file in _files(path)]


def _files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


class Hub(_Model):
    """Where a suite's files are published; without `revision` the newest is pinned when fetched.

    files: paths or patterns in the repository; an archive is unpacked. sha256: of files, where
    known beforehand; all others are checked against the sums that the hub gives.
    """

    repository: str
    revision: str | None = None
    files: list[str]
    sha256: dict[str, str] = {}


class Suite(_Model):
    """What a suite's tasks have in common; `source` names its licence."""

    title: str
    url: str
    source: str
    hub: Hub | None = None
    published: dict[str, list[Published]] = {}


@cache
def suites() -> dict[str, dict[str, Task]]:
    """All tasks by suite and name, in the order of their names' numbers."""
    found = {}
    for folder in sorted(path for path in FOLDER.iterdir() if path.is_dir()):
        paths = [path for path in folder.glob("*.yaml") if not path.name.startswith("_")]
        tasks = [load_task(path) for path in sorted(paths)]
        found[folder.name] = {task.name: task for task in tasks}
    return found


@cache
def suite(name: str) -> Suite:
    """What is said of the suite as a whole."""
    return Suite.model_validate(_yaml(FOLDER / name / SUITE_FILE))


def load_task(path: Path) -> Task:
    """The task of one file; `include: FILE` takes over the keys of a file beside it.

    Raises:
        UsageError: the file is no task; says where and why.
    """
    values = _yaml(path)
    values = {"suite": path.parent.name, "name": path.stem, **values}
    if "include" in values:
        values = {**_yaml(path.parent / str(values.pop("include"))), **values}
    if "source" not in values and (path.parent / SUITE_FILE).exists():
        values["source"] = _yaml(path.parent / SUITE_FILE).get("source")
    try:
        return Task.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "task"
        message = first["msg"].removeprefix("Value error, ")
        near = get_close_matches(where, Task.model_fields, 1)
        hint = f"did you mean {near[0]!r}?" if first["type"] == "extra_forbidden" and near else None
        raise UsageError(f"{path}: {where}: {message}", hint) from error


def find_tasks(*specs: str) -> list[Task]:
    """The tasks that `SUITE[:TASK,...]` name, each once, in the order named.

    A name that ends in .yaml is the file of a task of one's own.

    Raises:
        UsageError: no such suite, task or file; suggests the nearest name.
    """
    chosen: dict[str, Task] = {}
    for spec in specs:
        if spec.endswith(".yaml"):
            task = load_task(Path(spec))
            chosen[task.id] = task
            continue
        name, colon, wanted = spec.partition(":")
        tasks = _get(suites(), name.strip(), "suite", f"known suites: {', '.join(suites())}")
        names = [part.strip() for part in wanted.split(",") if part.strip()]
        if colon and not names:
            raise UsageError(f"{spec!r} names no task", f"see: infllm bench list {name}")
        hint = f"see: infllm bench list {name}"
        for task in [_get(tasks, part, f"task of {name}", hint) for part in names or tasks]:
            chosen[task.id] = task
    if not chosen:
        raise UsageError("no suite was named", f"known suites: {', '.join(suites())}")
    return list(chosen.values())


def _get(known: dict[str, T], name: str, kind: str, hint: str) -> T:
    if name in known:
        return known[name]
    close = get_close_matches(name.lower().replace("-", "_"), known, 1, cutoff=0.5)
    within = [other for other in known if name and name.lower() in other.lower()]
    near = (close or within)[:1]
    raise UsageError(f"no {kind} {name!r}", f"did you mean {near[0]!r}?" if near else hint)


def _yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        reason = re.sub(r"\s+", " ", str(error))
        raise UsageError(f"{path}: cannot be read as YAML: {reason}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path}: a task is a mapping of keys to values")
    return values
