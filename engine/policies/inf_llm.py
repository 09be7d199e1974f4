"""InfLLM (arXiv 2402.04617): a window, initial tokens, and memory units looked up per block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from infllm.engine.call_pages import CallPages
from infllm.engine.errors import ConfigError
from infllm.engine.faiss_index import FaissIndex
from infllm.engine.layer import UnitUse
from infllm.engine.policies.call_tokens import CallTokens
from infllm.engine.policies.lookup_scores import LookupScores, RecordedScores
from infllm.engine.policies.representatives import (
    Cut,
    open_scores,
    open_step_scores,
    represent,
)
from infllm.engine.policies.stepping import SteppingPolicy
from infllm.engine.slot_table import SlotTable
from infllm.engine.step_tokens import StepTokens
from infllm.engine.units import Run, UnitStore
from infllm.kernels.partial_attention import Part
from infllm.kernels.unit_mass import dense_lse
from infllm.kernels.unit_topk import top_units

if TYPE_CHECKING:
    from infllm.engine.config import ModelConfig
    from infllm.engine.layer import Call, Layer

TOGETHER = 4  # execution blocks in one launch, at most: the units of the next ones come meanwhile


@dataclass(frozen=True, eq=False)
class Lookup:
    """One lookup, as recorded for inspection: absolute span of the queries and what was chosen."""

    start: int
    stop: int
    n_units: int  # units that could be chosen
    chosen: Tensor  # int64 [B, G, <= topk], ascending


class InfLLM(SteppingPolicy):
    """State of a layer, by position from the session's start:

    init (first n_init tokens that left the window) | units of block_size tokens | remainder.
    The remainder holds the window and what waits behind it to become a unit.
    """

    KEPT = (
        "count", "init_k", "init_v", "rest_k", "rest_v", "account", "held", "visible",
    )  # fmt: skip
    IN_STEPS = ("rest_k", "rest_v", "account")

    def __init__(self, config: ModelConfig, layer: Layer) -> None:
        super().__init__(config, layer)
        if config.faiss and config.perhead:
            raise ConfigError("model.faiss and model.perhead exclude each other", "choose one")
        if config.faiss and config.keep_units:
            raise ConfigError("model.faiss and model.keep_units exclude each other", "choose one")
        if config.faiss and config.unit_score == "keys":
            raise ConfigError(
                "model.faiss and model.unit_score keys exclude each other", "choose one"
            )
        self.units: UnitStore | None = None
        self.faiss: FaissIndex | None = None
        self.init_k: Tensor | None = None  # [B, Hkv, <= n_init, D], as stored: not rotated
        self.init_v: Tensor | None = None
        self.rest_k: Tensor | None = None  # [B, Hkv, R, D], not rotated
        self.rest_v: Tensor | None = None
        # What scores of the remainder's tokens go on from: float32, for mass [B, H, R], for dot
        # [B, H, R + 1, D]
        self.account: Tensor | None = None
        self.held: Tensor | None = None  # units of the last lookup by more than one token
        self.visible = 0  # units that lookups of this group may choose (chunk_topk_calc)
        self.record: list[Lookup | Cut] | None = None
        self._chosen: Tensor | None = None  # by the block under way
        self._tokens: CallTokens | StepTokens
        self._scores: LookupScores
        self._slot_table: SlotTable | None = None

    @property
    def n_init(self) -> int:
        """Tokens that have moved to the init part so far."""
        return 0 if self.init_k is None else self.init_k.shape[2]

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

    # ---- decode steps ---------------------------------------------------------------------------

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

    def _open_steps(self) -> None:
        cfg = self.config
        assert self.rest_k is not None
        assert self.rest_v is not None
        assert self.account is not None
        rows = cfg.n_local + cfg.block_size
        self._steps = StepTokens(
            cfg.n_local, self.layer.rotary, (self.rest_k, self.rest_v), rows,
            behind=cfg.block_size, exact=cfg.far_position == "exact",
        )  # fmt: skip
        self._step_scores = open_step_scores(cfg, self.account, rows)
        self._settle()

    def _settle(self) -> None:
        if self._steps is not None:
            self.rest_k, self.rest_v = self._steps.remainder()
            self.account = self._step_scores.rest(0)

    def _leave_steps(self) -> None:
        super()._leave_steps()
        self._slot_table = None

    @property
    def _n_units(self) -> int:
        return 0 if self.units is None else self.units.n

    def advance(self) -> None:
        tokens, scores, cfg = self._steps, self._step_scores, self.config
        assert tokens is not None
        assert self.units is not None
        self.visible = self.units.n
        scores.settle()
        n = (tokens.past + 1 - cfg.n_local) // cfg.block_size
        if n > 0:
            self._tokens, self._repr_scores = tokens, scores
            self._cut(n)
            self.units.close_call()
        self.count += 1
        leaving = tokens.rest
        tokens.advance()
        if leaving:
            scores.leave(leaving, tokens.past)

    @property
    def recordable(self) -> bool:
        cfg, units = self.config, self.units
        return (
            super().recordable
            and units is not None
            and units.batch == 1
            and units.n > self._n_looked_up
            and self.faiss is None
            and self.record is None
            and cfg.unit_score != "keys"
            and cfg.cache_strategy != "lru-s"  # which wants each step's masses on the host
        )

    @property
    def recorded(self) -> tuple[Any, ...]:
        assert self.units is not None
        slabs = (view.slab.number for view in self.units.views)
        return (*super().recorded, *slabs, *self.units.rows)

    @property
    def _n_looked_up(self) -> int:
        """Units of a decode step's lookup."""
        return self.config.topk * (1 if self._held() is None else 2)

    def _held(self) -> Tensor | None:
        """Units that decode steps attend besides their own."""
        return self.held if self.config.keep_units else None

    @property
    def n_asked(self) -> int:
        heads = self.layer.n_heads if self.config.perhead else 1
        return 1 + self._n_looked_up * heads

    def open_recording(self, clock: Tensor, asked: Tensor) -> None:
        super().open_recording(clock, asked)
        assert self.units is not None
        self._slot_table = SlotTable(self.units, asked)

    def refresh(self) -> None:
        assert self._slot_table is not None
        self._slot_table.refresh()

    def bring(self, asked: Sequence[int]) -> None:
        assert self._slot_table is not None
        self._slot_table.bring(asked[1:])

    def touch(self, asked: Sequence[int]) -> None:
        assert self._slot_table is not None
        self._slot_table.touch(asked[1:])

    # ---------------------------------------------------------------------------------------------

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

    def _open_store(self, batch: int) -> UnitStore:
        self.units = UnitStore(self.config, self.layer, batch)
        if self.config.faiss:
            self.faiss = FaissIndex(batch, self.units.n_repr_heads * self.layer.head_dim)
        return self.units

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

    def _position(self, index: int) -> int:
        """Position from the session's start of the token at `index` of the call's keys."""
        return self.count - self._tokens.past + index

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

    def _grow_init(self, n: int) -> None:
        tokens = self._tokens
        moved = slice(tokens.rest, tokens.rest + n)
        k, v = tokens.k[:, :, moved], tokens.v[:, :, moved]
        self.init_k = k.clone() if self.init_k is None else torch.cat([self.init_k, k], dim=2)
        self.init_v = v.clone() if self.init_v is None else torch.cat([self.init_v, v], dim=2)
        tokens.rest += n

    def _cut(self, n: int) -> None:
        """Make the remainder's first n * block_size tokens units."""
        assert self.units is not None
        tokens = self._tokens
        a, z = tokens.rest, tokens.rest + n * self.config.block_size
        k_far = tokens.k_far[:, :, a:z]
        score = self._repr_scores.of(a, z, k_far)
        cut = represent(self.config, self._position(a), score, k_far)
        k, v = (x[:, :, a:z].unflatten(2, (n, -1)) for x in (tokens.k, tokens.v))
        self.units.append(k, v, cut.vector)
        if self.faiss is not None:
            self.faiss.add(cut.vector)
        if self.record is not None:
            self.record.append(cut)
        tokens.rest = z

    def in_sight(self) -> list[tuple[int, int]]:
        self._settle()
        rest = 0 if self.rest_k is None else self.rest_k.shape[2]
        return [(0, self.n_init), (self.count - rest, self.count)]

    def end(self) -> None:
        assert self.units is not None
        if self._steps is None:
            self.count += self._tokens.n_new
            self.rest_k, self.rest_v = self._tokens.remainder()
            self.account = self._repr_scores.rest(self._tokens.rest)
        elif not self._call.recorded:
            self.advance()
        if not self._call.recorded:
            self.units.close_call()
        del self._tokens, self._repr_scores, self._scores, self._call, self._pages
        self._chosen = None

    def fork(self) -> Self:
        other = super().fork()
        if self.units is not None:
            other.units = self.units.fork()
        if self.faiss is not None:
            other.faiss = self.faiss.fork()
        if self.record is not None:
            other.record = list(self.record)
        return other

    def adopt(self, capacity: int, index: list[Tensor], runs: list[Run], *, growing: bool) -> None:
        """Take over units that files hold, see `UnitStore.adopt`."""
        store = self._open_store(1) if self.units is None else self.units
        store.adopt(capacity, index, runs, growing=growing)
        if self.faiss is not None:
            self.faiss.add(torch.cat(index).permute(1, 2, 0, 3))

    def restore(self, state: Mapping[str, Tensor | int]) -> None:
        super().restore(state)
        if self.units is None and self.rest_k is not None:
            self._open_store(self.rest_k.shape[0])

    @property
    def disk_bytes(self) -> int:
        return 0 if self.units is None else self.units.disk_bytes

    @property
    def host_bytes(self) -> int:
        return 0 if self.units is None else self.units.host_bytes

    @property
    def device_bytes(self) -> int:
        self._settle()
        rotated = 0 if self._steps is None else self._steps.rotated_bytes
        return (
            rotated + super().device_bytes + (0 if self.units is None else self.units.device_bytes)
        )
