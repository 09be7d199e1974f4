"""Which chunks are merged, and which layers run at which height (HOMER, arXiv 2404.10308, 3.1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from infllm.engine.errors import ConfigError


@dataclass(frozen=True)
class Branch:
    """A node of the tree, over context tokens start to stop - 1. A leaf has height 0.

    `target`: tokens that it is reduced to, those around the context included.
    """

    height: int
    start: int
    stop: int
    target: int
    children: tuple[Branch, ...] = ()

    def in_order(self) -> Iterator[Branch]:
        """As they are made: depth first, left before right, children before parents."""
        for child in self.children:
            yield from child.in_order()
        yield self


@dataclass(frozen=True)
class MergePlan:
    """The tree of one reading. Lengths are in tokens.

    A prompt is prefix + context + suffix; every chunk of `width` context tokens stands between
    both. `layers` (start, stop), by height: none where both are the same.
    """

    prefix: int
    context: int
    suffix: int
    width: int
    layers: tuple[tuple[int, int], ...]
    root: Branch

    @property
    def last_position(self) -> int:
        """Of the last token of the suffix, the same in every chunk."""
        return self.prefix + self.width + self.suffix - 1

    @property
    def read(self) -> int:
        """Tokens that go through the first layer."""
        leaves = sum(branch.height == 0 for branch in self.root.in_order())
        return self.context + leaves * (self.prefix + self.suffix)


def plan_merges(
    prefix: int, context: int, suffix: int, *, longest: int, target: int, n_layers: int, warmup: int
) -> MergePlan:
    """`longest`: tokens that a node may have; `target`: of the root; `warmup`: layers that chunks
    run before the others are shared out over the heights.

    Raises ConfigError: prefix and suffix leave no room in `longest`, or in `target`; one layer.
    """
    around = prefix + suffix
    room = longest - around
    if room < 2 or target <= around:
        raise ConfigError(
            f"the {around:,} tokens around the document leave no room in {min(longest, target):,}",
            "ask a shorter question, or raise homer.chunk (and homer.target)",
        )
    if n_layers < 2:
        raise ConfigError("chunks of a model with one layer cannot be merged on the way")
    height = max(0, -(-context // room) - 1).bit_length()
    width = -(-context // 2**height)
    root = _Tree(around, context, width, longest).branch(
        height, 0, min(target, around + context)
    )  # fmt: skip
    assert root is not None
    layers = tuple(layers_by_height(height, n_layers, warmup))
    return MergePlan(prefix, context, suffix, width, layers, root)


@dataclass(frozen=True)
class _Tree:
    around: int
    context: int
    width: int
    longest: int

    def branch(self, height: int, leaf: int, target: int) -> Branch | None:
        """That of 2**height leaves, the first of them `leaf`; None where no token is left for it.

        A right child of fewer tokens than half of the room leaves the rest to the left one.
        """
        start, stop = (min(self.context, i * self.width) for i in (leaf, leaf + 2**height))
        if start == stop and leaf:
            return None
        if height == 0:
            return Branch(0, start, stop, target)
        second = leaf + 2 ** (height - 1)
        half = (self.longest - self.around) // 2
        right = min(half, max(0, stop - second * self.width))
        left = half if right == half or not right else self.longest - self.around - right
        sides = (
            self.branch(height - 1, leaf, self.around + left),
            self.branch(height - 1, second, self.around + right),
        )
        return Branch(height, start, stop, target, tuple(x for x in sides if x is not None))


def layers_by_height(height: int, n_layers: int, warmup: int) -> Iterator[tuple[int, int]]:
    """Layers (start, stop) of each height from 0 on; together all layers, each once.

    The published rule, where every height gets a layer. With more heights than layers, one layer
    each goes to the topmost ones and none to those between them and the chunks.
    """
    warmup = min(warmup, n_layers - 1)
    own = n_layers - warmup
    each = own // (height + 1)
    if height == 0:
        yield 0, n_layers
        return
    shares = [each] * height
    if not each:
        top = own if warmup else own - 1
        shares = [0] * (height - top) + [1] * top
    at = n_layers - sum(shares)
    yield 0, at
    for share in shares:
        yield at, at + share
        at += share
