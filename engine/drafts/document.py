"""Drafts copied from the document, the question and the answer: what stood behind the same words.

The longest end of what was said so far is looked for; what stood behind it is proposed. Prompt
lookup, without its bound on the length of a match (SAM decoding, arXiv 2411.10666; PLD+, arXiv
2412.01447, for which of several places to take).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from infllm.engine.drafts.suffix_array import REACH, SuffixArray
from infllm.engine.drafts.tree import Tree

if TYPE_CHECKING:
    from torch import Tensor

LEAST = 2  # tokens of a match that is worth a draft
GROWTH = 4  # tokens drafted for each of a match
FIRST, MOST = 6, 16  # tokens of the first draft, and of the longest
WARY = 8  # tokens of a match that are asked for at most, after drafts that came to nothing
PLACES = 4096  # that are compared with what was attended
_ID = 4  # bytes


class DocumentDrafts:
    """Drafts for one answer: longer ones after those that were right, shorter after others. After
    one of which nothing was right, a longer match is asked for.

    Args:
        document: the suffixes of what was read; None where there is none.
        recent: ids behind it: the question, and an answer's first tokens.
        start: absolute position of the document's first token.
        first, most: tokens of the first draft, and of the longest.
        least: tokens of a match; growth: tokens of a draft for each of them.
    """

    def __init__(
        self,
        document: SuffixArray | None,
        recent: Sequence[int],
        start: int = 0,
        *,
        first: int = FIRST,
        most: int = MOST,
        least: int = LEAST,
        growth: int = GROWTH,
    ) -> None:
        self.document = document
        self.start = start
        self.most, self.least, self.growth = most, least, growth
        self._length = min(first, most)  # of the next draft
        self._wary = 0  # tokens of a match that are asked for besides
        self._hoped: list[int] = []  # of the last draft, what has not been said yet
        self._drafted = 0
        self._recent = list(recent)
        self._bytes = bytearray(_encoded(recent))

    def take(self, token: int) -> None:
        """As `Drafts.take`."""
        self._recent.append(token)
        self._bytes += _encoded([token])
        if self._drafted and not self._hoped:
            self._judge(self._drafted)
        elif self._drafted and self._hoped.pop(0) != token:
            self._judge(self._drafted - len(self._hoped) - 1)

    def _judge(self, right: int) -> None:
        """The last draft is over, with so many tokens right."""
        drafted, self._drafted = self._drafted, 0
        if right >= drafted:
            self._length = min(self.most, 2 * self._length)
        else:
            self._length = max(self.least, right + 1)
        self._wary = 0 if right else min(WARY - self.least, self._wary + 1)

    def propose(self, room: int, seen: Sequence[tuple[int, int]] = ()) -> Tree | None:
        """As `Drafts.propose`."""
        draft = self.draft(room, seen)
        return Tree.chain(self._recent[-1], draft) if draft else None

    def draft(self, room: int, seen: Sequence[tuple[int, int]] = ()) -> list[int]:
        """At most `room` tokens that stood behind the longest match; none without one."""
        length, start = self._in_recent()
        source: np.ndarray | list[int] = self._recent
        if self.document is not None:
            longer, low, high = self.document.longest(self._recent[-REACH:])
            if longer > length or (longer == length and seen):
                place = self._place(longer, low, high, seen, needed=longer == length)
                if place is not None:
                    length, start, source = longer, place + longer, self.document.ids
        if length < self.least + self._wary:
            return []
        n = min(room, self._length, self.growth * length)
        draft = [int(token) for token in source[start : start + n]]
        self._hoped, self._drafted = list(draft), len(draft)
        return draft

    def learn(self, tree: Tree, logits: Tensor) -> None:
        """As `Drafts.learn`: nothing, what was said is said."""

    def _in_recent(self) -> tuple[int, int]:
        """The longest end of what is recent that stands in it before, at most `REACH` tokens: its
        length, and where what follows the last such place begins."""
        known, unknown, start = 0, min(REACH, len(self._recent) - 1) + 1, 0
        while unknown - known > 1:
            length = (known + unknown) // 2
            place = self._last(length)
            if place is None:
                unknown = length
            else:
                known, start = length, place + length
        return known, start

    def _last(self, length: int) -> int | None:
        run = bytes(self._bytes[-_ID * length :])
        stop = len(self._bytes) - _ID  # a match ends before the last token
        while True:
            at = self._bytes.rfind(run, 0, stop)
            if at < 0:
                return None
            if at % _ID == 0:
                return at // _ID
            stop = at + len(run) - 1

    def _place(
        self, length: int, low: int, high: int, seen: Sequence[tuple[int, int]], *, needed: bool
    ) -> int | None:
        """The last of some places that something stands behind: of those seen, if there are any.

        `needed`: of those alone.
        """
        assert self.document is not None
        places = self.document.order[max(low, high - PLACES) : high]
        places = places[places + length < len(self.document)]
        if not len(places):
            return None
        watched = np.zeros(len(places), dtype=bool)
        for start, stop in seen:
            watched |= (places >= start - self.start) & (places < stop - self.start)
        if watched.any():
            return int(places[watched].max())
        return None if needed else int(places.max())


def _encoded(ids: Sequence[int]) -> bytes:
    return np.asarray(ids, dtype=">u4").tobytes()
