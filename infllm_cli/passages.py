"""From token positions to characters of the sources, and back."""

from bisect import bisect_left
from collections.abc import Sequence

from infllm.cli.documents import Collection


class Passages:
    """The text that a session has read, by token position.

    Args:
        collection: the sources.
        offsets: character of `collection.text` at which each token of the document begins.
        first: absolute position of the document's first token.
    """

    def __init__(self, collection: Collection, offsets: Sequence[int], first: int) -> None:
        self.collection = collection
        self.offsets = offsets
        self.first = first

    def characters(self, start: int, stop: int) -> tuple[int, int] | None:
        """Characters of the tokens from `start` to `stop` - 1; None outside the document."""
        start = max(0, start - self.first)
        stop = min(len(self.offsets), stop - self.first)
        if start >= stop:
            return None
        at_end = stop == len(self.offsets)
        return (
            int(self.offsets[start]),
            len(self.collection.text) if at_end else int(self.offsets[stop]),
        )

    def tokens(self, start: int, stop: int) -> tuple[int, int]:
        """The tokens, as absolute positions, that spell characters `start` to `stop` - 1."""
        first = max(0, bisect_left(self.offsets, start + 1) - 1)
        return first + self.first, bisect_left(self.offsets, stop) + self.first
