"""Lookahead decoding (arXiv 2402.02057): guesses from the model's own Jacobi iterations.

A window of rows is read at each step besides the current token: row 0 continues it, and column c of
the rows behind continues row 0 up to there. What a column spells becomes a candidate of the pool.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from infllm.engine.drafts.tree import Tree
from infllm.engine.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

WIDTH, LENGTH, CANDIDATES = 7, 5, 7  # as the authors' README has it for 7B models


class Pool:
    """Key token -> tuples that stood behind it, at most `most`, oldest first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._tuples: dict[int, list[tuple[int, ...]]] = {}

    def insert(self, key: int, guess: Sequence[int]) -> None:
        """As the newest; the oldest leaves where there are too many."""
        known, fresh = self._tuples.setdefault(key, []), tuple(guess)
        if fresh in known:
            known.remove(fresh)
        elif len(known) == self._most:
            del known[0]
        known.append(fresh)

    def of(self, key: int) -> list[tuple[int, ...]]:
        """Tuples behind a token, oldest first."""
        return list(self._tuples.get(key, []))

    def entries(self) -> list[tuple[int, ...]]:
        """All, each with its key before it; keys ascending."""
        return [(key, *guess) for key in sorted(self._tuples) for guess in self._tuples[key]]


class Lookahead:
    """Window and pool of one answer.

    Args:
        prompt: ids before the answer; `row`s begin with tokens drawn from it by `seed`, and with
            `from_prompt` the pool with its n-grams.
        width, length, candidates: W, N and G of the paper: columns, tokens of an n-gram (at least
            3), candidates kept behind a token.

    Raises ConfigError: a length below 3, or a width or candidates below 1.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        *,
        width: int = WIDTH,
        length: int = LENGTH,
        candidates: int = CANDIDATES,
        from_prompt: bool = True,
        seed: int = 0,
    ) -> None:
        if length < 3 or width < 1 or candidates < 1:
            raise ConfigError(
                f"lookahead decoding cannot work with a window of {width}, n-grams of {length} and "
                f"{candidates} candidates",
                "n-grams have at least 3 tokens; window and candidates at least 1",
            )
        self._length = length
        self._from_prompt = from_prompt
        self._said = list(prompt)
        draw = random.Random(seed)
        self.rows = [[draw.choice(self._said) for _ in range(width + length - 3)]]
        self.warming = length - 2  # steps before the first candidate
        self.pool = Pool(candidates)
        if from_prompt:
            for i in range(len(self._said) - length + 1):
                self.pool.insert(self._said[i], self._said[i + 1 : i + length])

    def take(self, token: int) -> None:
        """As `Drafts.take`."""
        self._said.append(token)
        if self._from_prompt and len(self._said) >= self._length:
            key, *guess = self._said[-self._length :]
            self.pool.insert(key, guess)

    def candidates(self) -> list[tuple[int, ...]]:
        """What the pool has behind the token taken last; nothing while the window warms."""
        return [] if self.warming else self.pool.of(self._said[-1])

    def propose(self, room: int, seen: Sequence[tuple[int, int]] = ()) -> Tree | None:
        """As `Drafts.propose`: the window, and the pool's candidates as guesses; candidates that
        begin alike share what is alike. None where the window is deeper than `room`."""
        if len(self.rows[0]) + len(self.rows) - 1 > room:
            return None
        tree = Tree([self._said[-1]])
        self._columns: list[int] = []  # nodes of the newest row
        at = [0]
        for token in self.rows[0]:
            at.append(tree.add(token, at[-1], guess=False))
        self._columns = at[1:]
        for number, row in enumerate(self.rows[1:]):
            behind = at if number == 0 else self._columns
            self._columns = [
                tree.add(token, parent, guess=False)
                for token, parent in zip(row, behind, strict=False)
            ]
        for candidate in self.candidates():
            node = 0
            for token in candidate:
                known = tree.follower(node, token)
                node = tree.add(token, node) if known is None else known
        return tree

    def learn(self, tree: Tree, logits: Tensor) -> None:
        """As `Drafts.learn`: the pool grows by the columns, the window moves by one."""
        new = logits[self._columns].argmax(-1).tolist()
        if self.warming:
            first = len(self.rows) == 1
            self.rows = [*(row[1:] for row in self.rows), new if first else new[1:]]
            self.warming -= 1
            return
        keys = [tree.tokens[0], *self.rows[0]]
        for key, *guess in zip(keys, *self.rows[1:], new, strict=True):
            self.pool.insert(key, guess)
        self.rows = [self.rows[1][1:], *(row for _, row in pairwise(self.rows[1:])), new]
