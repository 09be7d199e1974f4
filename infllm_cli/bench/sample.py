"""What a benchmark asks: samples, each a context and one or several questions about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Turn:
    """One question over a sample's context, and what a right answer is.

    `tail` is the prompt's text after the context, `references` the accepted answers (never empty),
    `extra` what a metric needs besides (choices, classes).
    """

    tail: str
    references: tuple[str, ...]
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """One context with its questions. `head` + `context` + a turn's `tail` are the prompt.

    `id` is unique in its task and the same in every run. `meta` says what reports group by: the
    wanted `length` in tokens and `depth` in percent, where a sample was made to a size.
    """

    id: str
    head: str
    context: str
    turns: tuple[Turn, ...]
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BadSample:
    """A sample that could not be made of its data; `where` names file, line and field."""

    id: str
    where: str
    why: str


class Asked(Protocol):
    """A task, as far as those who make samples of it and score answers to them need it."""

    @property
    def suite(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def answer_tokens(self) -> int: ...
    @property
    def metric(self) -> str: ...
    @property
    def metric_options(self) -> Mapping[str, Any]: ...

    def words(self, completion: bool) -> tuple[str, str]:
        """The prompt's text before and after the context, fields not yet filled in."""
