"""A pass over drafted tokens that behaves as decode steps, each one behind its parent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from infllm.engine.attachment import Attachment, Call
from infllm.engine.policies import Policy, run_policy

if TYPE_CHECKING:
    from infllm.engine.attachment import States
    from infllm.engine.drafts import Tree

Back = Callable[[], None]


class DraftedPass:
    """Steps over a tree of tokens, a `Memory`: the model's matrices are read once for all of them.

    What a step leaves in a layer can be gone back and forward to (`at`), as `Policy.mark` has it.
    Node 0 is the token that is fed; a node may be gone to from its parent alone.
    """

    def __init__(
        self, tree: Tree, policies: Mapping[int, Policy], states: States, position: int,
        watch_units: bool,
    ) -> None:  # fmt: skip
        """`states`: of the session, in which nothing changes. `position`: absolute, of node 0."""
        self.tree = tree
        self.n_layers = len(policies)
        self.states = states
        self.length = position
        self.under_way = False
        self.logits = torch.empty(0)  # float32 [nodes, vocab]
        self._policies = policies
        self._depths = tree.depths()
        self._walk = tree.walk()
        self._last = {self._depths[node]: node for node in self._walk}  # step made at each depth
        self.calls = [Call(0, position + depth, watch_units) for depth in self._depths]
        self._before: dict[int, Back] = {}  # by layer
        self._behind: dict[int, list[Back]] = {}  # by layer, of each node
        self._steps: dict[int, Callable[[int], object]] = {}  # what makes a node's step once more

    def run(self, attachment: Attachment) -> None:
        """All steps; layers that had begun are as before where it is interrupted."""
        tokens = torch.tensor([self.tree.tokens], device=attachment.device)
        positions = torch.tensor([self._depths], device=attachment.device)
        try:
            attachment.forward(tokens, positions, self, n_logits=len(self.tree.tokens))
        except BaseException:
            for back in self._before.values():
                back()
            raise

    def at(self, node: int) -> Tensor:
        """Let the layers be as they are behind a node, from its parent or, for node 0, from
        anywhere. Its logits float32 [vocab]. Interrupted, they are as before."""
        # Steps of other branches lie where its own did: then it is made once more.
        intact, above = True, node
        while above >= 0:
            intact = intact and self._last[self._depths[above]] == above
            above = self.tree.parents[above]
        parent = self.tree.parents[node]
        try:
            for layer in self._policies:
                if intact:
                    self._behind[layer][node]()
                else:
                    self._steps[layer](node)
        except BaseException:
            for layer, behind in self._behind.items():
                (self._before[layer] if parent < 0 else behind[parent])()
            raise
        return self.logits[node]

    # ---- the pass -------------------------------------------------------------------------------

    def begin_pass(self, batch: int, tokens: int) -> Call:
        self.under_way = True
        return self.calls[0]

    def end_pass(self, logits: Tensor | None) -> None:
        self.under_way = False
        if logits is not None:
            self.logits = logits[0, -len(self.tree.tokens) :].detach().float()

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, call: Call, scale: float,
        softcap: float | None, sink: Tensor | None,
    ) -> Tensor:  # fmt: skip
        policy, calls = self._policies[layer], self.calls
        self._before[layer] = policy.mark()
        latents = call.latents.pop(layer, None)

        def step(node: int, call: Call) -> Tensor:
            one = slice(node, node + 1)
            if latents is not None:
                call.latents[layer] = latents[:, :, one]
            tokens = q[:, :, one], k[:, :, one], v[:, :, one]
            return run_policy(policy, *tokens, call, scale, softcap, sink)

        behind: list[Back] = [self._before[layer]] * len(self._walk)
        rows: list[Tensor] = [q] * len(self._walk)
        here = -1
        for node in self._walk:
            if self.tree.parents[node] != here:
                behind[self.tree.parents[node]]()
            rows[node] = step(node, calls[node])
            behind[node] = policy.mark()
            here = node
        self._behind[layer] = behind
        # Nothing here knows the pass itself: what it holds goes with it, without a collection.
        self._steps[layer] = lambda node: step(node, Call(0, calls[node].position))
        return torch.cat(rows, dim=1)
