"""InfLLM (arXiv 2402.04617): a window, initial tokens, and memory units looked up per block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from infllm.engine.call_pages import CallPages
from infllm.engine.errors import ConfigError
from infllm.engine.faiss_index import FaissIndex
from infllm.engine.layer import UnitUse
from infllm.engine.policies.base import Policy
from infllm.engine.units import Run, UnitStore
from infllm.kernels.partial_attention import Band, Part
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


@dataclass(frozen=True, eq=False)
class Cut:
    """Units made at one cut, as recorded for inspection."""

    first: int  # position of the first unit's first token, from the session's start
    score: Tensor  # float32 [B, R, n, block_size]
    representatives: Tensor  # int64 [B, R, n, repr_topk], offsets within the unit
    vector: Tensor  # [B, R, n, D]


class InfLLM(Policy):
    """State of a layer, by position from the session's start:

    init (first n_init tokens that left the window) | units of block_size tokens | remainder.
    The remainder holds the window and what waits behind it to become a unit.
    """

    KEPT = (
        "count", "init_k", "init_v", "rest_k", "rest_v", "account", "held", "visible",
    )  # fmt: skip

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
        # mass: score so far of each remainder token [B, H, R]; dot: running sum of the queries
        # before it [B, H, R + 1, D], both float32
        self.account: Tensor | None = None
        self.held: Tensor | None = None  # units of the last lookup by more than one token
        self.visible = 0  # units that lookups of this group may choose (chunk_topk_calc)
        self.record: list[Lookup | Cut] | None = None
        self._chosen: Tensor | None = None  # by the block under way

    @property
    def n_init(self) -> int:
        """Tokens that have moved to the init part so far."""
        return 0 if self.init_k is None else self.init_k.shape[2]

    def begin(self, q: Tensor, k: Tensor, v: Tensor, call: Call) -> None:
        cfg, rotary = self.config, self.layer.rotary
        b, h, t, _ = q.shape
        if self.units is None:
            self._open_store(b)
            self.rest_k, self.rest_v = k[:, :, :0], v[:, :, :0]
        assert self.units is not None
        assert self.rest_k is not None
        assert self.rest_v is not None
        self._call = call
        self._k = torch.cat([self.rest_k, k], dim=2)
        self._v = torch.cat([self.rest_v, v], dim=2)
        self._past = self.rest_k.shape[2]  # index of the call's first token in _k
        self._rest = 0  # index of the remainder's first token in _k
        self._k_near = rotary.run(self._k, 0)
        self._k_far = rotary.at(self._k, 0)
        self._q_near = rotary.run(q, self._past)
        self._q_far = rotary.at(q, cfg.n_local - 1)
        if cfg.repr_score == "mass":
            fresh = q.new_zeros(b, h, t, dtype=torch.float32)
            self._account = fresh if self.account is None else torch.cat([self.account, fresh], 2)
        else:
            before = self.account
            if before is None:
                before = q.new_zeros(b, h, 1, q.shape[3], dtype=torch.float32)
            sums = self._q_far.float().cumsum(dim=2) + before[:, :, -1:]
            self._account = torch.cat([before, sums], dim=2)
        self._query = self._mean_queries()
        self._scored = self.units.n
        self._scores = None
        # All keys are read once a block: too slow for the many blocks of a document's chunk.
        self._by_keys = cfg.unit_score == "keys" and t <= self.query_block
        if self.units.n > cfg.topk and self.faiss is None and not self._by_keys:
            self._scores = self.units.scores(self._query, 0, self._scored, per_head=cfg.perhead)
        self._pages = self._ask_early(t) if b == 1 else None
        self._together = self._may_go_together(t)
        if self._together:
            self._cut((self._past + t - cfg.n_local) // cfg.block_size)

    def _may_go_together(self, tokens: int) -> bool:
        """Whether no block of a call of `tokens` tokens depends on what another one attends.

        Scores by `dot` come from queries alone. Blocks must also look alike: window and initial
        tokens full, lookups that find topk units, and whole units made by each.
        """
        cfg, size = self.config, self.query_block
        return (
            self._pages is not None
            and self._scores is not None
            and cfg.repr_score == "dot"
            and not self._call.watch_units
            and self.n_init == cfg.n_init
            and self._past >= cfg.n_local
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
        if self._scores is None:
            wanted = [list(range(units.n))] * self._query.shape[1]
        else:
            best = top_units(self._scores, cfg.topk)  # int64 [1, E, G, topk]
            wanted = best[0].flatten(1).tolist()  # the call's one wait for the device
        room = max(0, self._k.shape[2] - cfg.n_local) // cfg.block_size + 1
        pages = units.open_call(wanted, room)
        pages.load(0)
        return pages

    def _open_store(self, batch: int) -> UnitStore:
        self.units = UnitStore(self.config, self.layer, batch)
        if self.config.faiss:
            self.faiss = FaissIndex(batch, self.units.n_repr_heads * self.layer.head_dim)
        return self.units

    def _mean_queries(self) -> Tensor:
        """[B, E, R, D]: the far queries, averaged over each execution block."""
        q, size = self._q_far.float(), self.query_block
        b, h, t, d = q.shape
        whole = t // size
        means = q[:, :, : whole * size].view(b, h, whole, size, d).mean(dim=3)
        if whole * size < t:
            means = torch.cat([means, q[:, :, whole * size :].mean(dim=2, keepdim=True)], dim=2)
        if self.config.repr_heads == "group":
            means = means.view(b, self.layer.n_kv_heads, -1, means.shape[2], d).sum(dim=2)
        return means.transpose(1, 2)

    def parts(self, start: int, stop: int) -> list[Part]:
        if self._together:
            return self._parts_together(start, stop)
        cfg = self.config
        first = self._past + start  # index of the block's first query in _k
        low = max(self._rest, first - cfg.n_local + 1)
        near = slice(low, self._past + stop)
        self._near = near
        q = self._q_near[:, :, start:stop]
        parts = [
            Part(
                q, self._k_near[:, :, near], self._v[:, :, near],
                band=Band(first - low, 0, cfg.n_local),
                mass="column" if cfg.repr_score == "mass" else None,
            )
        ]  # fmt: skip
        exact = cfg.far_position == "exact"
        q_far = q if exact else self._q_far[:, :, start:stop]
        parts += self._init_parts(q_far)
        behind = []
        waiting = self._past + stop - cfg.n_local  # tokens of _k that some query sees as far
        if waiting > self._rest:
            span = slice(self._rest, waiting)
            k_far = self._k_near if exact else self._k_far
            behind.append(
                Part(
                    q_far, k_far[:, :, span], self._v[:, :, span],
                    band=Band(first - self._rest, cfg.n_local),
                )
            )  # fmt: skip
        self._chosen = self._look_up(start, stop, [*parts, *behind])
        if self._chosen is not None:
            assert self.units is not None
            if self._pages is None:
                pages, table = self.units.fetch(self._chosen)
            else:
                pages, table = self._pages.table(start // self.query_block, self._chosen)
            watched = self._call.watch_units or cfg.cache_strategy == "lru-s"
            parts.append(self._unit_part(q_far, pages, table, self._chosen, watched))
        return [*parts, *behind]

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
        # Filled, not copied: a copy makes the host wait.
        first = torch.full((), -self._position(0), dtype=torch.int64, device=q.device)
        return [Part(q, k, v, rope=self.layer.rotary.rope, first=first)]

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
            first=self._unit_start(chosen) - self._position(0) if exact else None,
            mass="page" if watched else None,
        )  # fmt: skip

    def _parts_together(self, start: int, stop: int) -> list[Part]:
        """Parts of several blocks of queries in place of the batch: keys and values are views."""
        cfg, size = self.config, self.query_block

        def blocks(x: Tensor, first: int, n: int) -> Tensor:
            """[E, heads, n, D] of x [1, heads, S, D]: n rows for each block, `first` on for the
            call's first block."""
            rows = x[0, :, first + start : first + stop - size + n]
            return rows.unfold(1, n, size).permute(1, 0, 3, 2)

        q = blocks(self._q_near, 0, size)
        exact = cfg.far_position == "exact"
        q_far = q if exact else blocks(self._q_far, 0, size)
        oldest, n_near = self._past - cfg.n_local + 1, cfg.n_local - 1 + size
        n_behind = self._past + size - cfg.n_local  # from the block's first waiting token on
        k_far = self._k_near if exact else self._k_far
        chosen = self._look_up_together(start // size, stop // size)
        assert self._pages is not None
        pages, table = self._pages.table(stop // size - 1, chosen)
        return [
            Part(
                q, blocks(self._k_near, oldest, n_near), blocks(self._v, oldest, n_near),
                band=Band(cfg.n_local - 1, 0, cfg.n_local),
            ),
            *self._init_parts(q_far),
            self._unit_part(q_far, pages, table, chosen, watched=False),
            Part(
                q_far, blocks(k_far, 0, n_behind), blocks(self._v, 0, n_behind),
                band=Band(self._past, cfg.n_local),
            ),
        ]  # fmt: skip

    def _look_up_together(self, first: int, last: int) -> Tensor:
        """Units of the call's blocks `first` to `last - 1`: int64 [E, G, topk].

        All units of the call are made already; a block sees those that blocks before it made.
        """
        cfg, units = self.config, self.units
        assert units is not None
        assert self._scores is not None
        query, old = self._query[:, first:last], self._scored
        made = torch.arange(units.n - old, device=self.layer.device)
        each = self.query_block // cfg.block_size
        block = torch.arange(first, last, device=self.layer.device)
        fresh = units.scores(query, old, units.n, per_head=cfg.perhead)  # [1, E, G, made]
        hidden = made >= block[:, None] * each
        fresh = fresh.masked_fill(hidden[:, None], float("-inf"))
        chosen = top_units(torch.cat([self._scores[:, first:last], fresh], dim=-1), cfg.topk)[0]
        self.visible = old + (last - 1) * each
        self.held = chosen[-1:]
        if self.record is not None:
            for i, one in enumerate(chosen, start=first):
                p = self._position(self._past) + i * self.query_block
                seen = old + i * each
                self.record.append(Lookup(p, p + self.query_block, seen, one[None]))
        if cfg.perhead and chosen.shape[1] != self.layer.n_heads:
            chosen = chosen.repeat_interleave(self.layer.n_heads // chosen.shape[1], dim=1)
        return chosen

    def _position(self, index: int) -> int:
        """Position from the session's start of the token at `index` of _k."""
        return self.count - self._past + index

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
        decoding = self._k.shape[2] - self._past == 1
        held = self.held if decoding and cfg.keep_units else None
        k = cfg.topk if held is None else 2 * cfg.topk
        block = start // self.query_block
        if n <= k:
            b, heads = self._query.shape[0], self._query.shape[2] if cfg.perhead else 1
            chosen = torch.arange(n, device=self.layer.device).expand(b, heads, n)
        elif self.faiss is not None:
            chosen = self.faiss.search(self._query[:, block], k, n)
        else:
            by_keys = self._by_keys
            scores = self._key_scores(beside, n) if by_keys else self._block_scores(block, n)
            if held is not None:
                scores = scores.scatter(-1, held, float("inf"))
            chosen = top_units(scores, k)
        if not decoding:
            self.held = chosen
        if self.record is not None:
            p = self._position(self._past)
            self.record.append(Lookup(p + start, p + stop, n, chosen))
        if cfg.perhead and chosen.shape[1] != self.layer.n_heads:
            chosen = chosen.repeat_interleave(self.layer.n_heads // chosen.shape[1], dim=1)
        return chosen

    def _block_scores(self, block: int, n: int) -> Tensor:
        """float32 [B, G, n] scores of the first n units for one execution block.

        Units that stood at the call's start were scored for all its blocks in one product.
        """
        assert self.units is not None
        old, fresh = min(n, self._scored), []
        if self._scores is not None:
            fresh.append(self._scores[:, block, :, :old])
        else:
            old = 0
        if n > old:
            query = self._query[:, block : block + 1]
            fresh.append(self.units.scores(query, old, n, per_head=self.config.perhead)[:, 0])
        return fresh[0] if len(fresh) == 1 else torch.cat(fresh, dim=-1)

    def _key_scores(self, beside: list[Part], n: int) -> Tensor:
        """float32 [B, G, n] scores of the first n units for the call's only block, by all keys."""
        cfg, rotary, how = self.config, self.layer.rotary, self.softmax
        assert self.units is not None
        groups = self._query.shape[2] if cfg.perhead else 1
        others = dense_lse(beside, how.scale, how.softcap, how.sink)
        if cfg.far_position == "exact":
            first = cfg.n_init - self._position(0)
            return self.units.log_masses(
                self._q_near, others, n, how, groups, rope=rotary.rope, first=first
            )
        # What a rotation to position 0 would do to all keys (YaRN's scale), done to the queries.
        return self.units.log_masses(rotary.at(self._q_far, 0), others, n, how, groups)

    def update(self, start: int, stop: int, masses: list[Tensor | None]) -> None:
        if self._together:
            assert self._pages is not None
            self._pages.load(stop // self.query_block + TOGETHER - 1)
            return
        if masses[0] is not None:
            self._account[:, :, self._near] += masses[0]
        self._note_unit_mass(masses)
        cfg = self.config
        end = self._past + stop
        if self.n_init < cfg.n_init and end - self._rest > cfg.n_local:
            self._grow_init(min(cfg.n_init - self.n_init, end - self._rest - cfg.n_local))
        n = (end - self._rest - cfg.n_local) // cfg.block_size
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
        moved = slice(self._rest, self._rest + n)
        k, v = self._k[:, :, moved], self._v[:, :, moved]
        self.init_k = k.clone() if self.init_k is None else torch.cat([self.init_k, k], dim=2)
        self.init_v = v.clone() if self.init_v is None else torch.cat([self.init_v, v], dim=2)
        self._rest += n

    def _cut(self, n: int) -> None:
        """Make the remainder's first n * block_size tokens units."""
        cfg = self.config
        a, z = self._rest, self._rest + n * cfg.block_size
        k_far = self._k_far[:, :, a:z].unflatten(2, (n, -1))  # [B, Hkv, n, block_size, D]
        score = self._repr_scores(a, z).unflatten(2, (n, -1))  # [B, H, n, block_size]
        b, h = score.shape[:2]
        if cfg.repr_heads == "group":
            score = score.view(b, k_far.shape[1], -1, *score.shape[2:]).sum(dim=2)
        best = score.topk(cfg.repr_topk, dim=-1).indices  # [B, R, n, repr_topk]
        keys = k_far
        if score.shape[1] != k_far.shape[1]:
            keys = k_far.repeat_interleave(h // k_far.shape[1], dim=1)
        at = best[..., None].expand(*best.shape, keys.shape[-1])
        vector = keys.gather(3, at).float().mean(dim=3)  # [B, R, n, D]
        assert self.units is not None
        k = self._k[:, :, a:z].unflatten(2, (n, -1))
        self.units.append(k, self._v[:, :, a:z].unflatten(2, (n, -1)), vector)
        if self.faiss is not None:
            self.faiss.add(vector)
        if self.record is not None:
            self.record.append(Cut(self._position(a), score, best, vector))
        self._rest = z

    def _repr_scores(self, a: int, z: int) -> Tensor:
        """float32 [B, H, z - a]: how much the window's queries wanted each token.

        mass: softmax weight received while near (published code). dot: mean of q.k over the
        n_local queries that had it near (InfLLM, eq. 2), q rotated to the far position.
        """
        cfg = self.config
        if cfg.repr_score == "mass":
            return self._account[:, :, a:z]
        window = self._account[:, :, a + cfg.n_local : z + cfg.n_local] - self._account[:, :, a:z]
        b, h, n, d = window.shape
        k = self._k_far[:, :, None, a:z].float()  # [B, Hkv, 1, n, D]
        window = window.view(b, k.shape[1], -1, n, d)
        return (window * k).sum(dim=-1).view(b, h, n) / cfg.n_local

    def in_sight(self) -> list[tuple[int, int]]:
        rest = 0 if self.rest_k is None else self.rest_k.shape[2]
        return [(0, self.n_init), (self.count - rest, self.count)]

    def end(self) -> None:
        self.count += self._k.shape[2] - self._past
        self.rest_k = self._k[:, :, self._rest :].clone()
        self.rest_v = self._v[:, :, self._rest :].clone()
        account = self._account[:, :, self._rest :]
        # Rebased, so that the sums of a long document never lose precision.
        self.account = (
            account.clone() if self.config.repr_score == "mass" else account - account[:, :, :1]
        )
        del self._k, self._v, self._k_near, self._k_far, self._q_near, self._q_far
        assert self.units is not None
        self.units.close_call()
        del self._account, self._query, self._scores, self._call, self._pages
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
        return super().device_bytes + (0 if self.units is None else self.units.device_bytes)
