"""Steps over drafted tokens, of which the session goes as far as they are chosen."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

import torch

from infllm.engine.policies import NO_BOUND
from infllm.engine.session.drafted import DraftedPass
from infllm.engine.session.steps import Stepping

if TYPE_CHECKING:
    from infllm.engine.drafts import Tree


class Drafting(Stepping):
    """Decode steps, several of them in one pass where something is drafted.

    Between two tokens the session is as plain steps would have left it: what was tried and not
    chosen is nowhere.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._ahead: DraftedPass | None = None  # drafted steps, some of them not gone yet
        self._node = 0  # of them, where the session is
        self._gone = 0  # tokens read then
        self.passes = 0  # through the model, while generating: drafted tokens share one

    @property
    def draft_room(self) -> int:
        """How many tokens may be drafted behind the next one: 0 where steps cannot be taken back,
        as where the step makes a unit, or where what leaves depends on logits (sirllm); where
        layers carry a state from token to token; or where one pass over them is not as many steps,
        since steps take packed weights."""
        if self._kept is not None or self.states or self.backing.rounds_rows:
            return 0
        return max(0, min(NO_BOUND, *(p.draft_room for p in self.policies.values())) - 1)

    def _go_ahead(self, token: int) -> bool:
        """A step that was made before, if it was and `token` was drafted: whether it is done."""
        ahead = self._ahead
        if ahead is None or self._gone != self._read:
            return False
        node = ahead.tree.follower(self._node, token)
        if node is None:
            self._ahead = None
            return False
        self._go_to(node)
        return True

    def _step(self, token: int) -> None:
        self.passes += 1
        super()._step(token)

    def _draft(self, tree: Tree) -> None:
        """The token that waits as a step, and those behind it in `tree`; the session goes on behind
        the first alone. It is as before where this is interrupted."""
        self.refuse_broken()
        began = time.perf_counter()
        ahead = DraftedPass(tree, self.policies, self.states, self.length, self._watch_units)
        try:
            ahead.run(self.backing.attachment)
        except torch.OutOfMemoryError as error:
            raise self._out_of_memory() from error
        self._ahead = ahead
        self.passes += 1
        self._go_to(0)
        self._seconds_reading += time.perf_counter() - began

    def _go_to(self, node: int) -> None:
        ahead = self._ahead
        assert ahead is not None
        self._last_logits = ahead.at(node)
        self._take_pending()
        self._call, self._tokens = ahead.calls[node], 1
        self._read += 1
        self._offset = 0
        self._node, self._gone = node, self._read

    def fork(self) -> Self:
        other = super().fork()
        other._ahead = None
        return other
