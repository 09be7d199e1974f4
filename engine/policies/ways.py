"""Faster ways through a call of an `InfLLM` layer; what is attended and kept stays the same."""

from __future__ import annotations

import abc
from functools import partial
from typing import TYPE_CHECKING

from infllm.engine.policies.call_tokens import CallTokens
from infllm.engine.policies.lookup_scores import Lookup
from infllm.engine.units import CallPages
from infllm.kernels.unit_topk import top_units

if TYPE_CHECKING:
    from torch import Tensor

    from infllm.engine.policies.inf_llm import InfLLM
    from infllm.kernels.partial_attention import Part

TOGETHER = 4  # execution blocks in one launch, at most: the units of the next ones come meanwhile


class Way(abc.ABC):
    """What a layer does between `begin` and the end of its call, in place of the plain way."""

    blocks = 1  # execution blocks in one launch, at most

    @abc.abstractmethod
    def parts(self, start: int, stop: int) -> list[Part]:
        """As `Policy.parts`."""

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

    def __init__(self, layer: InfLLM, tokens: CallTokens, pages: CallPages) -> None:
        self._layer = layer
        self._tokens = tokens
        self._pages = pages
        pages.load(0)

    def parts(self, start: int, stop: int) -> list[Part]:
        block = start // self._layer.query_block
        return self._layer.attend(start, stop, partial(self._pages.table, block))

    def update(self, start: int, stop: int, masses: list[Tensor | None]) -> None:
        self._layer.account_for(start, stop, masses)
        self._layer.cut_behind(stop)
        self._pages.load(start // self._layer.query_block + 1)  # while the device computes this one

    def end(self) -> None:
        self._layer.keep()
        self._pages.close()


class Together(EarlyPages):
    """Several blocks in one launch, in place of the batch: all units are made at the beginning."""

    blocks = TOGETHER

    def __init__(self, layer: InfLLM, tokens: CallTokens, pages: CallPages) -> None:
        super().__init__(layer, tokens, pages)
        layer.cut((tokens.past + tokens.n_new - layer.config.n_local) // layer.config.block_size)

    def parts(self, start: int, stop: int) -> list[Part]:
        layer, size = self._layer, self._layer.query_block
        near, waiting = self._tokens.parts_together(start, stop, size)
        chosen = self._look_up(start // size, stop // size)
        pages, table = self._pages.table(stop // size - 1, chosen)
        units = layer.unit_part(waiting.q, pages, table, chosen, watched=False)
        return [near, *layer.init_parts(waiting.q), units, waiting]

    def _look_up(self, first: int, last: int) -> Tensor:
        """Units of the call's blocks `first` to `last - 1`: int64 [E, G, n]."""
        layer, size = self._layer, self._layer.query_block
        scores = layer.unit_scores
        chosen = top_units(scores.together(first, last), layer.config.topk)[0]
        made = size // layer.config.block_size  # by each block
        layer.visible = scores.n_old + (last - 1) * made
        layer.held = chosen[-1:]
        if layer.record is not None:
            for i, one in enumerate(chosen, start=first):
                p, n = layer.count + i * size, scores.n_old + i * made
                layer.record.append(Lookup(p, p + size, n, one[None]))
        return layer.per_head(chosen)

    def update(self, start: int, stop: int, masses: list[Tensor | None]) -> None:
        self._pages.load(stop // self._layer.query_block + TOGETHER - 1)


def faster_way(layer: InfLLM) -> Way | None:
    """The fastest way that gives what the plain one gives, for a call that has begun."""
    tokens = layer.tokens
    assert isinstance(tokens, CallTokens)
    wanted = _known_early(layer, tokens)
    if wanted is None:
        return None
    cfg, units = layer.config, layer.units
    assert units is not None
    room = max(0, tokens.k.shape[2] - cfg.n_local) // cfg.block_size + 1
    way = Together if _may_go_together(layer, tokens) else EarlyPages
    return way(layer, tokens, CallPages(units, wanted, room))


def _known_early(layer: InfLLM, tokens: CallTokens) -> list[list[int]] | None:
    """Units that stand and that each block may look up, where they are known and asking early
    pays."""
    cfg, units = layer.config, layer.units
    assert units is not None
    by_means = layer.faiss is None and not layer.by_keys and cfg.chunk_topk_calc is None
    one = units.batch == 1 and tokens.n_new > 1
    # lru-s wants the masses of each block on the host.
    if not units.staging.ahead or not one or not by_means or cfg.cache_strategy == "lru-s":
        return None
    scores = layer.unit_scores.old
    if scores is None:
        return [list(range(units.n))] * layer.unit_scores.query.shape[1]
    best = top_units(scores, cfg.topk)  # int64 [1, E, G, topk]
    return best[0].flatten(1).tolist()  # the call's one wait for the device


def _may_go_together(layer: InfLLM, tokens: CallTokens) -> bool:
    """Whether no block of the call depends on what another one attends.

    Scores by `dot` come from queries alone. Blocks must also look alike: window and initial tokens
    full, lookups that find topk units, and whole units made by each.
    """
    cfg, size = layer.config, layer.query_block
    return (
        layer.unit_scores.old is not None
        and cfg.repr_score == "dot"
        and not layer.call.watch_units
        and layer.n_init == cfg.n_init
        and tokens.past >= cfg.n_local
        and tokens.n_new % size == 0
        and size % cfg.block_size == 0
    )
