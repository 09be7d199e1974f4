"""Where runs of tokens stand in a text: its suffixes in order, four bytes a token beside its ids.

Suffixes are ordered by their first `REACH` tokens, and by position where these are alike: more is
never asked for, and a text that repeats itself costs no more than another.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

REACH = 32  # tokens of the longest run that is looked for
_ID = 4  # bytes; big-endian, so that bytes compare as ids do


class SuffixArray:
    """The runs of a text's tokens."""

    def __init__(self, ids: np.ndarray, order: np.ndarray) -> None:
        """`ids`: >u4 [N]; `order`: int32 [N], by `ordered`."""
        self.ids = ids
        self.order = order
        self._bytes = ids.view("u1")

    @classmethod
    def of(cls, ids: Sequence[int] | np.ndarray) -> SuffixArray:
        """The suffixes of `ids`, put in order: about a second for a million."""
        array = np.asarray(ids, dtype=">u4")
        return cls(array, ordered(array))

    def __len__(self) -> int:
        return len(self.ids)

    def _key(self, length: int) -> Callable[[int], bytes]:
        data, size = self._bytes, _ID * length

        def key(start: int) -> bytes:
            at = _ID * int(start)
            return data[at : at + size].tobytes()

        return key

    def find(self, run: Sequence[int]) -> tuple[int, int]:
        """The places (start, stop) in `order` of the suffixes that begin with `run`, which has at
        most `REACH` tokens."""
        wanted = np.asarray(run, dtype=">u4").tobytes()
        key = self._key(len(run))
        start = bisect_left(self.order, wanted, key=key)
        return start, bisect_right(self.order, wanted, start, key=key)

    def longest(self, run: Sequence[int]) -> tuple[int, int, int]:
        """The longest end of `run`, at most `REACH` tokens, that stands in the text: its length,
        and where in `order` its suffixes are. Length 0: not even the last token does."""
        known, unknown = 0, min(REACH, len(run)) + 1
        found = (0, 0)
        while unknown - known > 1:  # an end of what stands there stands there, too
            length = (known + unknown) // 2
            places = self.find(run[len(run) - length :])
            if places[0] < places[1]:
                known, found = length, places
            else:
                unknown = length
        return known, *found

    def save(self, path: Path) -> None:
        """Write both to a file, in place of one that was there; readable by its owner alone.

        Raises OSError.
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            temporary.touch(mode=0o600)
            with temporary.open("wb") as file:
                np.save(file, np.stack([self.ids.view("<i4"), self.order.astype("<i4")]))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def open(cls, path: Path) -> SuffixArray:
        """Map a file that `save` wrote.

        Raises OSError, and ValueError for what is no such file.
        """
        both = np.load(path, mmap_mode="r", allow_pickle=False)
        if both.dtype != np.dtype("<i4") or both.ndim != 2 or both.shape[0] != 2:
            raise ValueError(f"{path} holds no suffixes")
        return cls(both[0].view(">u4"), both[1])


def ordered(ids: np.ndarray) -> np.ndarray:
    """int32 [N]: where the suffixes of ids begin, by their first `REACH` tokens.

    Ranks of runs of 1, 2, 4, ... tokens, each from two of the half length.
    """
    n = len(ids)
    _, rank = np.unique(ids.astype(np.int64), return_inverse=True)
    order = np.argsort(rank, kind="stable")
    length = 1
    while length < REACH and n:
        behind = np.zeros(n, dtype=np.int64)  # a text's end comes before every token
        behind[: n - length] = rank[length:] + 1
        pairs = rank * (int(rank.max()) + 2) + behind
        order = np.argsort(pairs, kind="stable")
        steps = np.concatenate([[0], np.diff(pairs[order]) != 0])
        rank = np.empty(n, dtype=np.int64)
        rank[order] = np.cumsum(steps)
        length *= 2
        if rank.max() == n - 1:
            break
    return order.astype(np.int32)
