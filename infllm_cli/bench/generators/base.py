"""What a generator of contexts is: arguments, a plan drawn from a seed, contexts of any size."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from infllm.cli.bench.source import Source

STEPS = 40  # depths at which a needle is put: 0 to 100 % in as many steps, as RULER has them


@dataclass(frozen=True)
class Question:
    """What is asked of a context: the prompt's fields after it, the answers, a metric's needs."""

    fields: dict[str, str]
    references: tuple[str, ...]
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """A context of some size and its questions.

    fields: of the prompt's head. depth: where the fact asked for stands, in percent.
    planted: texts and how often each has to occur in the context, no more and no less.
    example: a solved case that goes before the prompt.
    """

    context: str
    questions: tuple[Question, ...]
    fields: dict[str, str] = field(default_factory=dict)
    depth: float | None = None
    planted: dict[str, int] = field(default_factory=dict)
    example: "Made | None" = None


Fill = Callable[[int], Made]


@dataclass(frozen=True)
class Order:
    """One sample to be planned: its length in tokens, number and preferred depth (0 to 1)."""

    length: int
    index: int
    depth: float
    source: Source


class Generator(BaseModel, ABC):
    """Arguments of a generator, as a task's YAML gives them."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    HEAD: ClassVar[frozenset[str]] = frozenset()
    TAIL: ClassVar[frozenset[str]] = frozenset()

    name: str

    def head_fields(self) -> frozenset[str]:
        return self.HEAD

    def tail_fields(self) -> frozenset[str]:
        return self.TAIL

    def libraries(self) -> tuple[str, ...]:
        """Modules outside the core that it imports."""
        return ()

    def uses_haystack(self) -> bool:
        return False

    def uses_qa(self) -> bool:
        return False

    @abstractmethod
    def plan(self, rng: Random, order: Order) -> Fill:
        """Draws what is hidden and asked; returns the context for any number of characters.

        A context is at most as long as asked for, a few words less, but holds at least what is
        hidden. The same number gives the same context.
        """


def spread_depth(index: int, start: int) -> float:
    """Depth of sample `index`, 0 to 1: any first few samples of a cell lie far apart."""
    return (start + 17 * index) % STEPS / (STEPS - 1)


def draw_depths(rng: Random, count: int) -> list[float]:
    """`count` depths in order, 0 to 1, all different as long as there are so many."""
    if count <= STEPS:
        return sorted(step / (STEPS - 1) for step in rng.sample(range(STEPS), count))
    return sorted(rng.random() for _ in range(count))
