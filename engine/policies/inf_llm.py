"""InfLLM (arXiv 2402.04617): a window, initial tokens, and memory units looked up per block."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from infllm.engine.attachment import UnitUse
from infllm.engine.policies.call_tokens import CallTokens
from infllm.engine.policies.lookup_scores import Lookup, LookupScores
from infllm.engine.policies.representatives import open_scores
from infllm.engine.policies.unit_memory import UnitMemory
from infllm.engine.units import key_masses, likely_units, moment_masses
from infllm.kernels.partial_attention import Part
from infllm.kernels.rotate import rotate
from infllm.kernels.unit_mass import dense_lse
from infllm.kernels.unit_topk import top_units

if TYPE_CHECKING:
    from infllm.engine.attachment import Call, Layer
    from infllm.engine.config import ModelConfig

# Pages [P, 2, Hkv, block_size, D] of units int64 [B or E, G, n], and the block table into them.
Bring = Callable[[Tensor], tuple[Tensor, Tensor]]


class InfLLM(UnitMemory):
    """Block after block of queries: look up, attend, account, cut (section 3 of the paper)."""

    def __init__(self, config: ModelConfig, layer: Layer) -> None:
        super().__init__(config, layer)
        # Of the call under way.
        self.call: Call
        self.unit_scores: LookupScores
        self.by_keys: bool  # units are ranked by all of their keys
        self.looks_up = True
        self.topk = config.topk
        self.chosen: Tensor | None = None  # by the block under way
        self.exact = False  # what is far is attended at its own distance, in this call
        self.turned = False  # keys at their distance are rotated already: `call_pages`
        self._init_turned: Tensor | None = None

    def begin(self, q: Tensor, k: Tensor, v: Tensor, call: Call) -> None:
        cfg = self.config
        units, rest = self.open(k, v)
        self.take_latents(call)
        self.call = call
        if q.shape[2] > 1:
            self.likely = None  # it was of the question before
        # Keys are read once a block: too slow for the many blocks of a document's chunk.
        short = q.shape[2] <= self.query_block
        self.by_keys = cfg.unit_score != "representatives" and short
        self.looks_up = cfg.lookups is None or short or call.closes
        self.topk = cfg.short_topk if short else cfg.topk
        self.exact = cfg.far_position == "exact" or (cfg.far_position == "within" and short)
        self.tokens = CallTokens(
            cfg.n_local, self.layer.rotary, rest, (q, k, v), self.count, exact=self.exact
        )
        q_far, heads = self.tokens.q_far, self.layer.n_kv_heads
        self.repr_scores = open_scores(cfg, self.account, q_far)
        ahead = self.faiss is None and not self.by_keys
        ahead = ahead and units.n > self.topk  # else all are attended
        self.unit_scores = LookupScores(cfg, units, q_far, heads, ahead=ahead)

    def parts(self, start: int, stop: int) -> list[Part]:
        assert self.units is not None
        return self.attend(start, stop, self.units.fetch)

    def update(self, start: int, stop: int, masses: list[Tensor | None]) -> None:
        self.account_for(start, stop, masses)
        self.cut_behind(stop)

    def end(self) -> None:
        assert self.units is not None
        self.keep()
        self.units.staging.drain()
        self.forget_call()

    def forget_call(self) -> None:
        """Drop what is of the call under way alone."""
        del self.tokens, self.repr_scores, self.unit_scores, self.call
        self.chosen = self._init_turned = None
        self.turned = False

    # ---- look up --------------------------------------------------------------------------------

    def look_up(self, start: int, stop: int, beside: list[Part]) -> Tensor | None:
        """Units that the block attends: int64 [B, G, n], or None while there are none.

        `beside`: all else that it attends.
        """
        cfg, units = self.config, self.units
        assert units is not None
        group = (cfg.chunk_topk_calc or 0) // self.query_block * self.query_block
        if group == 0 or (self.call.offset + start) % group == 0:
            self.visible = units.n
        n = self.visible
        if n == 0 or not self.looks_up:
            return None
        decoding = self.tokens.n_new == 1
        held = self.held_units() if decoding else None
        k = self.topk if held is None else 2 * self.topk
        query, block = self.unit_scores.query, start // self.query_block
        if n <= k:
            b, heads = query.shape[0], query.shape[2] if cfg.perhead else 1
            chosen = torch.arange(n, device=self.layer.device).expand(b, heads, n)
        elif self.faiss is not None:
            chosen = self.faiss.search(query[:, block], k, n)
        else:
            by_keys = self.by_keys
            scores = self.key_scores(beside, n) if by_keys else self.unit_scores.of(block, n)
            if by_keys and units.parts and not decoding:
                self.likely = likely_units(units, scores)
            if held is not None:
                scores = scores.scatter(-1, held, float("inf"))
            chosen = self.best(scores, k)
        if not decoding:
            self.held = chosen
        if self.record is not None:
            self.record.append(Lookup(self.count + start, self.count + stop, n, chosen))
        return self.per_head(chosen)

    def best(self, scores: Tensor, k: int) -> Tensor:
        """The k units of best scores [B, G, N]: int64 [B, G, k], ascending."""
        return top_units(scores, k)

    def key_scores(self, beside: list[Part], n: int) -> Tensor:
        """float32 [B, G, n] scores of the first n units for the call's only block, by keys."""
        cfg, rotary, how = self.config, self.layer.rotary, self.softmax
        assert self.units is not None
        groups = self.unit_scores.query.shape[2] if cfg.perhead else 1
        others = dense_lse(beside, how.scale, how.softcap, how.sink)
        if cfg.far_position == "exact":
            first = cfg.n_init - self.position(0)
            return key_masses(
                self.units, self.tokens.q_near, others, n, how, groups, rotary.rope, first
            )
        # What a rotation to position 0 would do to all keys (YaRN's scale), done to the queries.
        q = rotary.at(self.tokens.q_far, 0)
        if cfg.unit_score == "moments":
            likely = self.likely if self.tokens.n_new == 1 else None
            return moment_masses(self.units, q, others, n, how, groups, likely)
        return key_masses(self.units, q, others, n, how, groups)

    def per_head(self, chosen: Tensor) -> Tensor:
        """Units [B or E, G, n] of heads that look up for themselves, for every query head."""
        heads = self.layer.n_heads
        if not self.config.perhead or chosen.shape[1] == heads:
            return chosen
        return chosen.repeat_interleave(heads // chosen.shape[1], dim=1)

    # ---- attend ---------------------------------------------------------------------------------

    def attend(self, start: int, stop: int, bring: Bring) -> list[Part]:
        """Near and initial tokens, the units that the lookup chose, and tokens that wait."""
        tokens = self.tokens
        q_near, q = tokens.queries(start, stop)
        near = tokens.near_part(q_near, start, stop, self.repr_scores.mass)
        parts = [near, *self.init_parts(q)]
        waiting = tokens.waiting_parts(q, start, stop)
        self.chosen = self.look_up(start, stop, [*parts, *waiting])
        if self.chosen is not None:
            parts.append(self.unit_part(q, *bring(self.chosen), self.chosen, self.watches))
        return [*parts, *waiting]

    @property
    def watches(self) -> bool:
        """Whether somebody wants to know what mass units receive."""
        return self.call.watch_units or self.config.cache_strategy == "lru-s"

    def init_parts(self, q: Tensor) -> list[Part]:
        """The initial tokens, as far as there are any, for far queries [B or E, H, T, D]."""
        if self.init_k is None:
            return []
        assert self.init_v is not None
        if self.exact and self.turned:
            k = self._turn_init(self.init_k)
        else:
            k = self.init_k if self.exact else self.layer.rotary.at(self.init_k, 0)
        k, v = (x.expand(q.shape[0], -1, -1, -1) for x in (k, self.init_v))
        if not self.exact or self.turned:
            return [Part(q, k, v)]
        first = self._within(-self.tokens.origin)
        return [Part(q, k, v, rope=self.layer.rotary.rope, first=first)]

    def _within(self, first: Tensor) -> Tensor:
        """Rows of far keys, moved up to where the call's last query sees them at the limit."""
        cfg = self.config
        if cfg.far_position != "within" or cfg.far_limit is None:
            return first
        limit = max(cfg.far_limit, 2 * cfg.n_local)  # behind the windows of all queries
        return torch.maximum(first, self.tokens.last - (limit - 1))

    def _turn_init(self, k: Tensor) -> Tensor:
        """The initial keys at their distance from the call, rotated once in a call."""
        if self._init_turned is None or self._init_turned.shape != k.shape:
            rope, tokens = self.layer.rotary.rope, self.tokens
            assert isinstance(tokens, CallTokens)
            position = torch.arange(k.shape[2], device=k.device) - tokens.origin_position
            self._init_turned = rotate(k, *rope.cos_sin(position), rope.layout)
        return self._init_turned

    def unit_part(
        self, q: Tensor, pages: Tensor, table: Tensor, chosen: Tensor, watched: bool
    ) -> Part:
        """Units `chosen` [B or E, G, n], by their pages [P, 2, Hkv, block_size, D]."""
        rotary = self.layer.rotary
        k = pages[:, 0]
        if not self.exact and rotary.rope.scale != 1.0:
            k = rotary.at(k, 0)
        rope = first = None
        if self.exact and not self.turned:
            rope, first = rotary.rope, self._within(self.unit_start(chosen) - self.tokens.origin)
        return Part(
            q, k, pages[:, 1], table=table, rope=rope, first=first,
            mass="page" if watched else None,
        )  # fmt: skip

    # ---- account --------------------------------------------------------------------------------

    def account_for(self, start: int, stop: int, masses: list[Tensor | None]) -> None:
        """Take in the masses that the block's parts received: tokens near it, and units."""
        if masses[0] is not None:
            self.repr_scores.add(self.tokens.near(start, stop), masses[0])
        mass = next((m for m in masses[1:] if m is not None), None)
        if mass is None or self.chosen is None:
            return
        assert self.units is not None
        if self.config.cache_strategy == "lru-s":
            self.units.credit(self.chosen, mass)
        if self.call.watch_units:
            # The call knows absolute positions, the layer those from the session's start.
            first = self.unit_start(self.chosen) + self.call.position - self.count
            self.call.unit_uses.append(UnitUse(self.layer.index, first, mass))

    # ---- cut ------------------------------------------------------------------------------------

    def cut_behind(self, stop: int) -> None:
        """Tokens behind the windows of queries from `stop` on become initial tokens and units."""
        cfg, tokens = self.config, self.tokens
        far = tokens.past + stop - cfg.n_local  # keys before this one are behind all windows
        if self.n_init < cfg.n_init and far > tokens.rest:
            self.grow_init(min(cfg.n_init - self.n_init, far - tokens.rest))
        n = (far - tokens.rest) // cfg.block_size
        if n > 0:
            self.cut(n)
