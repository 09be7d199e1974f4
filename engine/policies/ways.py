"""Faster ways through a call of an `InfLLM` layer; what is attended and kept stays the same."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from infllm.engine.policies.call_tokens import CallTokens
from infllm.engine.policies.lookup_scores import Lookup
from infllm.engine.units import CallPages
from infllm.kernels.attend import attend_state
from infllm.kernels.partial_attention import State
from infllm.kernels.rotate import rotate
from infllm.kernels.unit_topk import top_units

if TYPE_CHECKING:
    from infllm.engine.policies.inf_llm import InfLLM
    from infllm.kernels.partial_attention import Part

TOGETHER = 4  # execution blocks in one launch, at most: the units of the next ones come meanwhile


class Way(abc.ABC):
    """What a layer does between `begin` and the end of its call, in place of the plain way."""

    blocks = 1  # execution blocks in one launch, at most

    @abc.abstractmethod
    def parts(self, start: int, stop: int) -> list[Part]:
        """As `Policy.parts`."""

    def before(self, start: int, stop: int) -> State | None:
        """As `Policy.before`."""
        return None

    @abc.abstractmethod
    def update(self, start: int, stop: int, masses: list[Tensor | None]) -> None:
        """As `Policy.update`."""

    @abc.abstractmethod
    def end(self) -> None:
        """As `Policy.end`."""

    def best(self, scores: Tensor, k: int) -> Tensor:
        """As `InfLLM.best`, in a call that is recorded."""
        return top_units(scores, k)


class EarlyPages(Way):
    """What a call's blocks may look up is asked for before any of them is computed."""

    def __init__(self, layer: InfLLM, tokens: CallTokens) -> None:
        self._layer, self._tokens = layer, tokens
        scores, units = layer.unit_scores, layer.units
        assert units is not None
        blocks = scores.query.shape[1]
        if scores.old is None:
            self._pages = call_pages(layer, tokens, units.n)
            wanted = [list(range(units.n))] * blocks
        else:
            k = layer.topk
            best = top_units(scores.old, k)[0].flatten(1)  # int64 [E, G * k]
            self._pages = call_pages(layer, tokens, min(units.n, best.numel()))
            wanted = units.staging.ask(best)()  # the call's one wait for the device
        self._pages.bring(wanted)
        self._pages.tell_places()

    def parts(self, start: int, stop: int) -> list[Part]:
        block = start // self._layer.query_block
        return self._layer.attend(start, stop, partial(self._pages.table, block))

    def update(self, start: int, stop: int, masses: list[Tensor | None]) -> None:
        self._layer.account_for(start, stop, masses)
        self._layer.cut_behind(stop)

    def end(self) -> None:
        self._layer.keep()
        self._pages.close()


class Together(Way):
    """Several blocks in one launch, in place of the batch: no block depends on what another one
    attends, so that all units are made, and all lookups done, at the beginning.

    While the host waits for the lookups and gathers units, the device attends the near keys.
    """

    blocks = TOGETHER

    def __init__(self, layer: InfLLM, tokens: CallTokens) -> None:
        self._layer, self._tokens = layer, tokens
        cfg, units, query = layer.config, layer.units, layer.unit_scores.query
        assert units is not None
        size, n_old = layer.query_block, units.n
        blocks = query.shape[1]
        groups = query.shape[2] if cfg.perhead else 1
        shape = blocks, groups, layer.topk
        self._pages = call_pages(layer, tokens, min(n_old, math.prod(shape)), shape)
        layer.cut((tokens.past + tokens.n_new - cfg.n_local) // cfg.block_size)
        made = size // cfg.block_size  # by each block
        scores = units.scores_of_all(query, n_old, growth=made, per_head=cfg.perhead)
        chosen = top_units(scores, layer.topk)[0]  # int64 [E, G, topk]
        given = units.staging.ask(chosen)
        near, _ = tokens.parts_together(0, tokens.n_new, size)
        how = layer.softmax
        self._near = attend_state([near], how.scale, how.softcap)
        rows = [[unit for group in block for unit in group] for block in given()]
        launches = [rows[i : i + TOGETHER] for i in range(0, blocks, TOGETHER)]
        self._pages.bring([[unit for row in some for unit in row] for some in launches])
        self._table = self._pages.tell_table(rows)
        self._note(chosen, n_old, made)
        self._chosen = chosen

    def _note(self, chosen: Tensor, n_old: int, made: int) -> None:
        layer, size = self._layer, self._layer.query_block
        layer.visible = n_old + (chosen.shape[0] - 1) * made
        layer.held = chosen[-1:].clone()
        if layer.record is not None:
            for i, one in enumerate(chosen):
                p = layer.count + i * size
                layer.record.append(Lookup(p, p + size, n_old + i * made, one[None]))

    def before(self, start: int, stop: int) -> State:
        some = slice(start // self._layer.query_block, stop // self._layer.query_block)
        return State(self._near.o[some], self._near.lse[some])

    def parts(self, start: int, stop: int) -> list[Part]:
        layer, size = self._layer, self._layer.query_block
        some = slice(start // size, stop // size)
        _, waiting = self._tokens.parts_together(start, stop, size)
        table, chosen = (layer.per_head(x[some]) for x in (self._table, self._chosen))
        pages = self._pages.ready(start // size // TOGETHER)
        units = layer.unit_part(waiting.q, pages, table, chosen, watched=False)
        return [*layer.init_parts(waiting.q), units, waiting]

    def update(self, start: int, stop: int, masses: list[Tensor | None]) -> None:
        pass  # all units are made, and nothing else is accounted for

    def end(self) -> None:
        self._layer.keep()
        self._pages.close()


def call_pages(
    layer: InfLLM, tokens: CallTokens, most: int, table: Sequence[int] | None = None
) -> CallPages:
    """Room on the device for what a call may need; keys at their distance are rotated as they
    come: they stay where they are, as seen from the call's first token."""
    cfg, units = layer.config, layer.units
    assert units is not None
    room = max(0, tokens.k.shape[2] - cfg.n_local) // cfg.block_size + 1
    turn = None
    if cfg.far_position == "exact":
        layer.turned = True
        turn = partial(turned_units, layer, tokens.origin_position)
    return CallPages(units, most, room, turn, table)


def turned_units(layer: InfLLM, origin: int, k: Tensor, number: Tensor) -> Tensor:
    """Keys k [n, Hkv, block_size, D] of units int64 [n], at their distance from `origin`."""
    place = torch.arange(k.shape[2], device=k.device)
    position = (layer.unit_start(number) - origin)[:, None, None] + place  # [n, 1, block_size]
    rope = layer.layer.rotary.rope
    return rotate(k, *rope.cos_sin(position), rope.layout)


def faster_way(layer: InfLLM) -> Way | None:
    """The fastest way that gives what the plain one gives, for a call that has begun."""
    tokens = layer.tokens
    assert isinstance(tokens, CallTokens)
    if not _pays_early(layer, tokens):
        return None
    return (Together if _may_go_together(layer, tokens) else EarlyPages)(layer, tokens)


def _pays_early(layer: InfLLM, tokens: CallTokens) -> bool:
    """Whether what blocks may look up is known before they are computed, and asking early pays."""
    cfg, units = layer.config, layer.units
    assert units is not None
    by_means = layer.faiss is None and not layer.by_keys and cfg.chunk_topk_calc is None
    one = units.batch == 1 and tokens.n_new > 1 and layer.looks_up
    # lru-s wants the masses of each block on the host.
    return units.staging.ahead and one and by_means and cfg.cache_strategy != "lru-s"


def _may_go_together(layer: InfLLM, tokens: CallTokens) -> bool:
    """Whether no block of the call depends on what another one attends.

    Scores by `dot` come from queries alone. Blocks must also look alike: window and initial tokens
    full, lookups that find topk units, and whole units made by each.
    """
    cfg, size = layer.config, layer.query_block
    return (
        layer.unit_scores.n_old > layer.topk
        and cfg.repr_score == "dot"
        and not layer.call.watch_units
        and layer.n_init == cfg.n_init
        and tokens.past >= cfg.n_local
        and tokens.n_new % size == 0
        and size % cfg.block_size == 0
    )
