"""InfLLM (arXiv 2402.04617): a window, initial tokens, and memory units looked up per block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from infllm.engine.attachment import UnitUse
from infllm.engine.decode import StepTokens
from infllm.engine.policies.call_tokens import CallTokens
from infllm.engine.policies.lookup_scores import Lookup, LookupScores, RecordedScores
from infllm.engine.policies.representatives import open_scores
from infllm.engine.policies.unit_memory import UnitMemory
from infllm.engine.units import CallPages
from infllm.kernels.partial_attention import Part
from infllm.kernels.unit_mass import dense_lse
from infllm.kernels.unit_topk import top_units

if TYPE_CHECKING:
    from infllm.engine.attachment import Call, Layer
    from infllm.engine.config import ModelConfig

TOGETHER = 4  # execution blocks in one launch, at most: the units of the next ones come meanwhile


class InfLLM(UnitMemory):
    """What each execution block attends of a layer's memory: near and initial tokens, those that
    wait, and the units that its lookup chose."""

    def __init__(self, config: ModelConfig, layer: Layer) -> None:
        super().__init__(config, layer)
        self._chosen: Tensor | None = None  # by the block under way
        self._scores: LookupScores

    def begin(self, q: Tensor, k: Tensor, v: Tensor, call: Call) -> None:
        cfg = self.config
        b, t = q.shape[0], q.shape[2]
        if self.units is None:
            self._open_store(b)
            self.rest_k, self.rest_v = k[:, :, :0], v[:, :, :0]
        assert self.units is not None
        assert self.rest_k is not None
        assert self.rest_v is not None
        self._call = call
        # All keys are read once a block: too slow for the many blocks of a document's chunk.
        self._by_keys = cfg.unit_score == "keys" and t <= self.query_block
        if t == 1 and self.n_init == cfg.n_init and self.account is not None:
            self._begin_step(q, k, v)
            return
        self._leave_steps()
        rest = (self.rest_k, self.rest_v)
        self._tokens = CallTokens(cfg, self.layer.rotary, rest, (q, k, v))
        q_far = self._tokens.q_far
        self._repr_scores = open_scores(cfg, self.account, q_far)
        ahead = self.faiss is None and not self._by_keys
        self._scores = LookupScores(cfg, self.units, q_far, self.layer.n_kv_heads, ahead=ahead)
        self._pages = self._ask_early(t) if b == 1 else None
        self._together = self._may_go_together(t)
        if self._together:
            self._cut((self._tokens.past + t - cfg.n_local) // cfg.block_size)

    def _begin_step(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        cfg, units = self.config, self.units
        assert units is not None
        if self._steps is None:
            self._open_steps()
        tokens, scores = self._steps, self._step_scores
        assert tokens is not None
        if not self._call.recorded:
            tokens.clock.copy_(torch.tensor(self.times()))
        tokens.take(q, k, v)
        scores.take(tokens.q_far, tokens.clock[:1])
        self._tokens, self._repr_scores = tokens, scores
        q_far, heads = tokens.q_far, self.layer.n_kv_heads
        if self._call.recorded:
            self._scores = RecordedScores(cfg, units, q_far, heads, tokens.n_units)
        else:
            self._scores = LookupScores(cfg, units, q_far, heads, ahead=False)
        self._pages = None
        self._together = False

    def _may_go_together(self, tokens: int) -> bool:
        """Whether no block of a call of `tokens` tokens depends on what another one attends.

        Scores by `dot` come from queries alone. Blocks must also look alike: window and initial
        tokens full, lookups that find topk units, and whole units made by each.
        """
        cfg, size = self.config, self.query_block
        return (
            self._pages is not None
            and self._scores.old is not None
            and cfg.repr_score == "dot"
            and not self._call.watch_units
            and self.n_init == cfg.n_init
            and self._tokens.past >= cfg.n_local
            and tokens % size == 0
            and size % cfg.block_size == 0
        )

    def spans(self, tokens: int) -> list[tuple[int, int]]:
        if not self._together:
            return super().spans(tokens)
        step = TOGETHER * self.query_block
        return [(start, min(start + step, tokens)) for start in range(0, tokens, step)]

    def _ask_early(self, tokens: int) -> CallPages | None:
        """Pages for a call of `tokens` tokens whose lookups are as good as known, where it pays."""
        cfg, units = self.config, self.units
        assert units is not None
        by_means = self.faiss is None and not self._by_keys and cfg.chunk_topk_calc is None
        # lru-s wants the masses of each block on the host.
        if not units.staging.ahead or tokens == 1 or not by_means or cfg.cache_strategy == "lru-s":
            return None
        scores = self._scores.old
        if scores is None:
            wanted = [list(range(units.n))] * self._scores.query.shape[1]
        else:
            best = top_units(scores, cfg.topk)  # int64 [1, E, G, topk]
            wanted = best[0].flatten(1).tolist()  # the call's one wait for the device
        room = max(0, self._tokens.k.shape[2] - cfg.n_local) // cfg.block_size + 1
        pages = units.open_call(wanted, room)
        pages.load(0)
        return pages

    def parts(self, start: int, stop: int) -> list[Part]:
        if self._together:
            return self._parts_together(start, stop)
        cfg, tokens = self.config, self._tokens
        q_near, q = tokens.queries(start, stop)
        near = tokens.near_part(q_near, start, stop, self._repr_scores.mass)
        parts = [near, *self._init_parts(q)]
        waiting = tokens.waiting_parts(q, start, stop)
        self._chosen = self._look_up(start, stop, [*parts, *waiting])
        if self._chosen is not None:
            assert self.units is not None
            if self._call.recorded:
                assert self._slot_table is not None
                pages, table = self.units.slots, self._slot_table.look_up(self._chosen)
            elif self._pages is None:
                pages, table = self.units.fetch(self._chosen)
            else:
                pages, table = self._pages.table(start // self.query_block, self._chosen)
            watched = self._call.watch_units or cfg.cache_strategy == "lru-s"
            parts.append(self._unit_part(q, pages, table, self._chosen, watched))
        return [*parts, *waiting]

    def _parts_together(self, start: int, stop: int) -> list[Part]:
        """Parts of several blocks of queries in place of the batch."""
        size = self.query_block
        assert isinstance(self._tokens, CallTokens)
        near, waiting = self._tokens.parts_together(start, stop, size)
        chosen = self._look_up_together(start // size, stop // size)
        assert self._pages is not None
        pages, table = self._pages.table(stop // size - 1, chosen)
        units = self._unit_part(waiting.q, pages, table, chosen, watched=False)
        return [near, *self._init_parts(waiting.q), units, waiting]

    def _init_parts(self, q: Tensor) -> list[Part]:
        """The initial tokens, as far as there are any, for far queries [B or E, H, T, D]."""
        if self.init_k is None:
            return []
        assert self.init_v is not None
        exact = self.config.far_position == "exact"
        k = self.init_k if exact else self.layer.rotary.at(self.init_k, 0)
        k, v = (x.expand(q.shape[0], -1, -1, -1) for x in (k, self.init_v))
        if not exact:
            return [Part(q, k, v)]
        origin = self._origin()
        if isinstance(origin, int):  # filled, not copied: a copy makes the host wait
            origin = torch.full((), origin, dtype=torch.int64, device=q.device)
        return [Part(q, k, v, rope=self.layer.rotary.rope, first=-origin)]

    def _unit_part(
        self, q: Tensor, pages: Tensor, table: Tensor, chosen: Tensor, watched: bool
    ) -> Part:
        """Units `chosen` [B or E, G, n], by their pages [P, 2, Hkv, block_size, D]."""
        exact = self.config.far_position == "exact"
        rotary = self.layer.rotary
        k = pages[:, 0]
        if not exact and rotary.rope.scale != 1.0:
            k = rotary.at(k, 0)
        return Part(
            q, k, pages[:, 1], table=table, rope=rotary.rope if exact else None,
            first=self._unit_start(chosen) - self._origin() if exact else None,
            mass="page" if watched else None,
        )  # fmt: skip

    def _origin(self) -> int | Tensor:
        """Position of the call's first key, as what is recorded may read it."""
        tokens = self._tokens
        return tokens.origin if isinstance(tokens, StepTokens) else self._position(0)

    def _unit_start(self, units: Tensor) -> Tensor:
        """Position from the session's start of each unit's first token."""
        return units * self.config.block_size + self.config.n_init

    def _look_up(self, start: int, stop: int, beside: list[Part]) -> Tensor | None:
        """Units that the block attends: int64 [B, G, n], or None while there are none.

        `beside`: all else that it attends.
        """
        cfg, units = self.config, self.units
        assert units is not None
        group = (cfg.chunk_topk_calc or 0) // self.query_block * self.query_block
        if group == 0 or (self._call.offset + start) % group == 0:
            self.visible = units.n
        n = self.visible
        if n == 0:
            return None
        decoding = self._tokens.n_new == 1
        held = self._held() if decoding else None
        k = cfg.topk if held is None else 2 * cfg.topk
        query, block = self._scores.query, start // self.query_block
        if n <= k:
            b, heads = query.shape[0], query.shape[2] if cfg.perhead else 1
            chosen = torch.arange(n, device=self.layer.device).expand(b, heads, n)
        elif self.faiss is not None:
            chosen = self.faiss.search(query[:, block], k, n)
        else:
            by_keys = self._by_keys
            scores = self._key_scores(beside, n) if by_keys else self._scores.of(block, n)
            if held is not None:
                scores = scores.scatter(-1, held, float("inf"))
            chosen = top_units(scores, k)
        if not decoding:
            self.held = chosen
        if self.record is not None:
            self.record.append(Lookup(self.count + start, self.count + stop, n, chosen))
        return self._per_head(chosen)

    def _look_up_together(self, first: int, last: int) -> Tensor:
        """Units of the call's blocks `first` to `last - 1`: int64 [E, G, n]."""
        size = self.query_block
        chosen = top_units(self._scores.together(first, last), self.config.topk)[0]
        made = size // self.config.block_size  # by each block
        self.visible = self._scores.n_old + (last - 1) * made
        self.held = chosen[-1:]
        if self.record is not None:
            for i, one in enumerate(chosen, start=first):
                p, n = self.count + i * size, self._scores.n_old + i * made
                self.record.append(Lookup(p, p + size, n, one[None]))
        return self._per_head(chosen)

    def _per_head(self, chosen: Tensor) -> Tensor:
        """Units [B or E, G, n] of heads that look up for themselves, for every query head."""
        heads = self.layer.n_heads
        if not self.config.perhead or chosen.shape[1] == heads:
            return chosen
        return chosen.repeat_interleave(heads // chosen.shape[1], dim=1)

    def _key_scores(self, beside: list[Part], n: int) -> Tensor:
        """float32 [B, G, n] scores of the first n units for the call's only block, by all keys."""
        cfg, rotary, how = self.config, self.layer.rotary, self.softmax
        assert self.units is not None
        groups = self._scores.query.shape[2] if cfg.perhead else 1
        others = dense_lse(beside, how.scale, how.softcap, how.sink)
        if cfg.far_position == "exact":
            first = cfg.n_init - self._position(0)
            return self.units.log_masses(
                self._tokens.q_near, others, n, how, groups, rope=rotary.rope, first=first
            )
        # What a rotation to position 0 would do to all keys (YaRN's scale), done to the queries.
        return self.units.log_masses(rotary.at(self._tokens.q_far, 0), others, n, how, groups)

    def update(self, start: int, stop: int, masses: list[Tensor | None]) -> None:
        if self._together:
            assert self._pages is not None
            self._pages.load(stop // self.query_block + TOGETHER - 1)
            return
        if masses[0] is not None:
            self._repr_scores.add(self._tokens.near(start, stop), masses[0])
        self._note_unit_mass(masses)
        cfg, tokens = self.config, self._tokens
        if isinstance(tokens, StepTokens):
            return
        far = tokens.past + stop - cfg.n_local  # keys before this one are behind all windows
        if self.n_init < cfg.n_init and far > tokens.rest:
            self._grow_init(min(cfg.n_init - self.n_init, far - tokens.rest))
        n = (far - tokens.rest) // cfg.block_size
        if n > 0:
            self._cut(n)
        if self._pages is not None:  # while the device computes this block
            self._pages.load(start // self.query_block + 1)

    def _note_unit_mass(self, masses: list[Tensor | None]) -> None:
        mass = next((m for m in masses[1:] if m is not None), None)
        if mass is None or self._chosen is None:
            return
        assert self.units is not None
        if self.config.cache_strategy == "lru-s":
            self.units.credit(self._chosen, mass)
        if self._call.watch_units:
            # The call knows absolute positions, the layer those from the session's start.
            start = self._unit_start(self._chosen) + self._call.position - self.count
            self._call.unit_uses.append(UnitUse(self.layer.index, start, mass))

    def end(self) -> None:
        assert self.units is not None
        if self._steps is None:
            self._keep()
        elif not self._call.recorded:
            self.advance()
        if not self._call.recorded:
            self.units.close_call()
        del self._tokens, self._repr_scores, self._scores, self._call, self._pages
        self._chosen = None
