"""HOMER (arXiv 2404.10308): chunks read apart, merged up a binary tree, reduced at each node.

A node's tokens are a list: its order is who sees whom, its positions are those of the chunks and
are never renumbered. One node is worked on at a time, depth first, so that as many wait as the
tree is high.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from infllm.engine.attachment import Attachment, LayerRanges
from infllm.engine.errors import ConfigError
from infllm.engine.readers.merge_plan import Branch, MergePlan
from infllm.engine.readers.merged_pass import MergedPass
from infllm.engine.session import Progress, Session
from infllm.kernels.rotate import rotate


@dataclass(frozen=True)
class Node:
    """Tokens in the order in which they see each other, after some of the layers."""

    tokens: Tensor  # int64 [N], numbers in prefix + context + suffix
    positions: Tensor  # int64 [N]
    hidden: Tensor  # [1, N, M]; token ids int64 [1, N] before the first layer
    kv: dict[int, tuple[Tensor, Tensor]]  # of the layers run: k and v [Hkv, N, D], not rotated
    significance: Tensor  # float32 [N], inf around the context; empty before the first layer
    logits: Tensor | None = None  # float32 [vocab] of the last token, after the last layer

    def __len__(self) -> int:
        return len(self.tokens)

    def at(self, kept: Tensor) -> Node:
        """Those tokens alone, in all layers so far ("propagative refinement", 3.2)."""
        return replace(
            self,
            tokens=self.tokens[kept],
            positions=self.positions[kept],
            hidden=self.hidden[:, kept],
            kv={layer: (k[:, kept], v[:, kept]) for layer, (k, v) in self.kv.items()},
            significance=self.significance[kept],
        )


Watch = Callable[[Branch, Node, Tensor], None]  # a node before its reduction, and what is kept


class Homer:
    """Merges the chunks of one prompt. `bias`: float32 [layers, distances], see `calibration`."""

    def __init__(
        self, attachment: Attachment, ranges: LayerRanges, plan: MergePlan, bias: Tensor | None
    ) -> None:
        """Raises ConfigError where `bias` is of other layers, or of fewer distances than chunks
        have."""
        self._attachment = attachment
        self._ranges = ranges
        self.plan = plan
        self._bias = None if bias is None else bias.to(attachment.device)
        if bias is not None and bias.shape[0] != len(attachment.layers):
            raise ConfigError(
                f"the calibration is of {bias.shape[0]} layers, and the model has "
                f"{len(attachment.layers)}",
                "make one for it: infllm calibrate MODEL",
            )
        if bias is not None and bias.shape[1] <= plan.last_position:
            raise ConfigError(
                f"the calibration knows {bias.shape[1]:,} distances, and chunks have "
                f"{plan.last_position + 1:,}",
                f"make a longer one: infllm calibrate MODEL --len {plan.last_position + 1}",
            )

    @torch.no_grad()
    def read(
        self,
        ids: Sequence[int],
        told: Callable[[int], None] = lambda tokens: None,
        watch: Watch = lambda branch, node, kept: None,
    ) -> Node:
        """The root of prefix + context + suffix `ids`, reduced. `told` hears of the context's
        tokens as chunks are done."""
        self._ids = torch.tensor(ids, device=self._attachment.device)
        self._told, self._watch = told, watch
        return self._node(self.plan.root)

    def _node(self, branch: Branch) -> Node:
        if branch.children:
            sides = [self._node(child) for child in branch.children]
            node = self._merged(*sides) if len(sides) == 2 else sides[0]
            del sides
        else:
            node = self._leaf(branch)
        node = self._run(node, branch.height)
        if branch.height == 0:
            self._told(branch.stop - branch.start)
        kept = self._kept(node, branch.target)
        self._watch(branch, node, kept)
        return node.at(kept) if len(kept) < len(node) else node

    def _leaf(self, branch: Branch) -> Node:
        """Prefix, chunk and suffix, this one at the same positions in every chunk."""
        plan, device = self.plan, self._attachment.device
        p, s, end = plan.prefix, plan.suffix, plan.prefix + plan.context
        chunk = torch.arange(branch.start, branch.stop, device=device)
        first, last = torch.arange(p, device=device), torch.arange(s, device=device)
        tokens = torch.cat([first, p + chunk, end + last])
        positions = torch.cat([first, p + chunk - branch.start, p + plan.width + last])
        return Node(tokens, positions, self._ids[tokens][None], {}, torch.empty(0))

    def _run(self, node: Node, height: int) -> Node:
        start, stop = self.plan.layers[height]
        if start == stop:
            return node
        call = MergedPass(self._attachment, node.positions, stop - 1)
        hidden = self._ranges.run(start, stop, node.hidden, node.positions, call)
        significance = call.products
        if self._bias is not None:
            distances = node.positions[-1] - node.positions
            significance = significance - self._bias[stop - 1][distances]
        around = torch.ones(len(node), dtype=torch.bool, device=significance.device)
        around[self.plan.prefix : len(node) - self.plan.suffix] = False
        significance = significance.masked_fill(around, float("inf"))
        logits = call.logits if stop == len(self._attachment.layers) else None
        kv = {**node.kv, **call.kv}
        return Node(node.tokens, node.positions, hidden, kv, significance, logits)

    def _kept(self, node: Node, target: int) -> Tensor:
        """int64, ascending: what is left when the least significant tokens are dropped."""
        if len(node) <= target:
            return torch.arange(len(node), device=node.tokens.device)
        best = node.significance.sort(descending=True, stable=True).indices[:target]
        return best.sort().values

    def _merged(self, left: Node, right: Node) -> Node:
        """Left context, then right context; of prefix and suffix, at equal positions on both sides,
        the mean."""
        p, s = self.plan.prefix, self.plan.suffix

        def joined(a: Tensor, b: Tensor, dim: int) -> Tensor:
            n, m = a.shape[dim], b.shape[dim]
            first = (a.narrow(dim, 0, p) + b.narrow(dim, 0, p)) / 2
            last = (a.narrow(dim, n - s, s) + b.narrow(dim, m - s, s)) / 2
            context = a.narrow(dim, p, n - p - s), b.narrow(dim, p, m - p - s)
            return torch.cat([first, *context, last], dim)

        def listed(a: Tensor, b: Tensor) -> Tensor:
            return torch.cat([a[: len(a) - s], b[p:]])

        kv = {
            layer: (joined(k, right.kv[layer][0], 1), joined(v, right.kv[layer][1], 1))
            for layer, (k, v) in left.kv.items()
        }
        return Node(
            listed(left.tokens, right.tokens),
            listed(left.positions, right.positions),
            joined(left.hidden, right.hidden, 1),
            kv,
            listed(left.significance, right.significance),
        )


def go_on_from(session: Session, node: Node, plan: MergePlan) -> None:
    """Let a fresh session under full attention go on behind what is left of a prompt.

    Its next token stands one behind the suffix's last (the published code puts it on top of that),
    so that keys are rotated as far from it as they were from each other.
    """
    n = len(node)
    shifted = node.positions + (n - 1 - plan.last_position)
    for index, policy in session.policies.items():
        k, v = node.kv[index]
        rope = policy.layer.rotary.rope
        cos, sin = rope.cos_sin(shifted.to(rope.freq.device))
        cache = torch.stack([rotate(k[None], cos, sin, rope.layout), v[None]])
        policy.restore({"count": n, "capacity": n + max(1024, n // 2), "cache": cache})
    session.restore(Progress(0, 0, n, n, [], node.logits))
