"""Tokens that may follow, as a tree: what a step is to try, and who proposes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Tree:
    """Nodes are tokens; node 0 is the token that is fed, every other stands behind its parent.

    `guesses`: nodes that may be taken for the model's own choice; others are only read.
    """

    tokens: list[int]
    parents: list[int] = field(default_factory=lambda: [-1])
    guesses: set[int] = field(default_factory=set)

    def add(self, token: int, parent: int, *, guess: bool = True) -> int:
        """A node, and its number."""
        self.tokens.append(token)
        self.parents.append(parent)
        node = len(self.tokens) - 1
        if guess:
            self.guesses.add(node)
        return node

    @classmethod
    def chain(cls, token: int, draft: Sequence[int]) -> Tree:
        """`draft` behind `token`, one behind the other."""
        tree = cls([token])
        for guess in draft:
            tree.add(guess, len(tree.tokens) - 1)
        return tree

    def follower(self, node: int, token: int) -> int | None:
        """The guess of `token` behind a node, if there is one."""
        behind = (n for n in sorted(self.guesses) if self.parents[n] == node)
        return next((n for n in behind if self.tokens[n] == token), None)

    def depths(self) -> list[int]:
        """Of each node, how many stand before it."""
        found: list[int] = []
        for parent in self.parents:
            found.append(0 if parent < 0 else found[parent] + 1)
        return found

    def walk(self) -> list[int]:
        """All nodes, each behind its parent and with all behind it next to it: a step that comes
        back to a node finds what stands before it untouched."""
        behind: dict[int, list[int]] = {}
        for node, parent in enumerate(self.parents):
            behind.setdefault(parent, []).append(node)
        found, waiting = [], [0]
        while waiting:
            node = waiting.pop()
            found.append(node)
            waiting += reversed(behind.get(node, []))
        return found


class Drafts(Protocol):
    """Who proposes drafts while one answer is generated."""

    def take(self, token: int) -> None:
        """The next token of the answer, also where it was drafted."""

    def propose(self, room: int, seen: Sequence[tuple[int, int]]) -> Tree | None:
        """What may stand behind the token taken last, at most `room` tokens deep; None: nothing.

        `seen`: ranges (start, stop) of tokens, absolute, that it attended most, as far as they
        were watched.
        """

    def learn(self, tree: Tree, logits: Tensor) -> None:
        """Logits float32 [nodes, vocab] after each node of what was proposed."""
