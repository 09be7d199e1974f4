"""What every memory policy answers: which keys a block of queries attends, and what is kept."""

from __future__ import annotations

import abc
import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, Self

from torch import Tensor

from infllm.engine.attachment import Softmax
from infllm.kernels.partial_attention import Part, State

if TYPE_CHECKING:
    from infllm.engine.attachment import Call, Layer
    from infllm.engine.config import ModelConfig
    from infllm.engine.units import UnitStore


NO_BOUND = 2**31 - 1  # of steps that can be taken back


class Policy(abc.ABC):
    """Memory of one layer in one session.

    A call brings T new tokens: `begin`, then for each execution block `parts` and `update`, then
    `end`. A policy holds no attention arithmetic. Tensors it keeps are replaced, never written in
    place, so that a fork may share them.
    """

    # Whether calls must be told when they close a segment (`Call.closes`): then a chunk is read no
    # sooner than another token, or the end, follows it.
    asks_for_the_end = False
    keeps_by_surprise = False  # the session says at each call what stays, see `KeptTokens`
    units: UnitStore | None = None  # what is kept off the device, where a policy keeps any
    KEPT: ClassVar[tuple[str, ...]] = ("count",)  # what one call leaves for the next, by name

    def __init__(self, config: ModelConfig, layer: Layer) -> None:
        self.config = config
        self.layer = layer
        self.softmax = Softmax(layer.head_dim**-0.5)  # of the call under way
        self.count = 0  # tokens taken in since the session's start

    @property
    def query_block(self) -> int:
        """Tokens that are attended together."""
        return self.config.exc_block_size

    @abc.abstractmethod
    def begin(self, q: Tensor, k: Tensor, v: Tensor, call: Call) -> None:
        """Take in q [B, H, T, D] and k, v [B, Hkv, T, D], not rotated."""

    def spans(self, tokens: int) -> list[tuple[int, int]]:
        """Queries (start, stop) that `parts` and `update` are asked for, in order, by a call of
        `tokens` tokens."""
        return spans_of(self.query_block, tokens)

    @abc.abstractmethod
    def parts(self, start: int, stop: int) -> list[Part]:
        """What queries `start` to `stop - 1` of the call attend.

        Parts of one sequence may have E blocks of queries, each with keys of its own, in place of
        the batch: E * T = stop - start.
        """

    def before(self, start: int, stop: int) -> State | None:
        """What queries `start` to `stop - 1` attended already, beside their parts."""
        return None

    def update(self, start: int, stop: int, masses: list[Tensor | None]) -> None:  # noqa: B027
        """Account for a computed block; `masses` belong to its parts."""

    @abc.abstractmethod
    def end(self) -> None:
        """Close the call: keep what the next one needs, drop the rest."""

    @abc.abstractmethod
    def in_sight(self) -> list[tuple[int, int]]:
        """Token ranges (start, stop) that every query after `end` attends, units apart; positions
        count from the session's start."""

    @property
    def draft_room(self) -> int:
        """How many steps of one token can be made and taken back: those that make no unit and let
        nothing leave its place."""
        return NO_BOUND

    def mark(self) -> Callable[[], None]:
        """What takes this policy back, and forward again, to what it keeps now; good for the steps
        that `draft_room` allows."""
        kept = {name: getattr(self, name) for name in self.KEPT}

        def back() -> None:
            for name, value in kept.items():
                setattr(self, name, value)

        return back

    def fork(self) -> Self:
        """A copy that goes its own way; what is already kept is shared."""
        return copy.copy(self)

    def state(self) -> dict[str, Tensor | int]:
        """All that later calls depend on, memory units apart: tensors in any strides, and counts.

        What is not there yet is left out.
        """
        kept = {name: getattr(self, name) for name in self.KEPT}
        return {name: value for name, value in kept.items() if value is not None}

    def restore(self, state: Mapping[str, Tensor | int]) -> None:
        """Go on from what `state` gave; only for a policy that has seen nothing yet."""
        for name, value in state.items():
            setattr(self, name, value)

    @property
    def disk_bytes(self) -> int:
        """Bytes that are read from files when needed."""
        return 0

    @property
    def host_bytes(self) -> int:
        """Bytes kept off the device."""
        return 0

    @property
    def device_bytes(self) -> int:
        """Bytes kept on the device between calls."""
        kept = (x for x in vars(self).values() if isinstance(x, Tensor))
        return sum(x.numel() * x.element_size() for x in kept)


def spans_of(size: int, tokens: int) -> list[tuple[int, int]]:
    """(start, stop) of neighbouring spans of `size` tokens, the last one of what is left."""
    return [(start, min(start + size, tokens)) for start in range(0, tokens, size)]
