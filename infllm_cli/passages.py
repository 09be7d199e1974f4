"""From token positions to characters of the sources, and back."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from infllm.cli.documents import Collection

if TYPE_CHECKING:
    from infllm.engine.text import Tokenizer


def characters_of_kept(
    tokenizer: "Tokenizer", text: str, ids: Sequence[int], kept: Sequence[tuple[int, int]]
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Where in `text`, spelled by `ids`, the ranges `kept` of these tokens stand.

    Returns int64 [N], the character at which each kept token begins (empty where the tokenizer
    changes the text on the way and cannot tell), and the ranges as characters.
    """
    try:
        whole = np.array([*tokenizer.offsets(text, ids), len(text)], dtype=np.int64)
    except ValueError:
        return np.empty(0, dtype=np.int64), [(0, len(text))]
    offsets = np.concatenate([whole[a:b] for a, b in kept])
    return offsets, [(int(whole[a]), int(whole[b])) for a, b in kept]


class Passages:
    """The text that a session has read, by token position.

    Args:
        collection: the sources.
        offsets: character of `collection.text` at which each token of the document begins.
        first: absolute position of the document's first token.
        kept: ranges of characters (start, stop) that were read, where not all of them were.
    """

    def __init__(
        self,
        collection: Collection,
        offsets: Sequence[int] | np.ndarray,
        first: int,
        kept: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        self.collection = collection
        self.offsets = np.asarray(offsets, dtype=np.int64)
        self.first = first
        self.kept = [(0, len(collection.text))] if kept is None else list(kept)

    def characters(self, start: int, stop: int) -> tuple[int, int] | None:
        """Characters of the tokens from `start` to `stop` - 1; None outside the document.

        Of tokens on both sides of a cut, those before it.
        """
        start = max(0, start - self.first)
        stop = min(len(self.offsets), stop - self.first)
        if start >= stop:
            return None
        a = int(self.offsets[start])
        b = int(self.offsets[stop]) if stop < len(self.offsets) else len(self.collection.text)
        b = min(b, next((high for low, high in self.kept if low <= a < high), b))
        return (a, b) if a < b else None

    def tokens(self, start: int, stop: int) -> tuple[int, int]:
        """The tokens, as absolute positions, that spell characters `start` to `stop` - 1."""
        first = max(0, self._before(start + 1) - 1)
        if first < len(self.offsets):  # the first of those that spell this character together
            first = self._before(int(self.offsets[first]))
        return first + self.first, self._before(stop) + self.first

    def _before(self, character: int) -> int:
        """How many tokens begin before a character."""
        return int(np.searchsorted(self.offsets, character))
