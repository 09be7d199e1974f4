"""Memory units of one layer: append-only host blocks, their index, and the device's slots."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING
from weakref import ref

import torch
from torch import Tensor

from infllm.engine.config import cpu_has_bfloat16
from infllm.engine.units.block_cache import BlockCache
from infllm.engine.units.sizes import keeps_latents, n_parts
from infllm.engine.units.slab import Run, Slab, View, raw
from infllm.engine.units.staging import make_staging
from infllm.engine.units.unit_index import UnitIndex, centre_of
from infllm.kernels.key_topk import top_keys
from infllm.kernels.quantize import PLAIN, dequantize, quantize, storage_dtype
from infllm.kernels.unit_moments import unit_moments
from infllm.kernels.unit_topk import Slabs, slab_scores, unit_scores

if TYPE_CHECKING:
    from infllm.engine.attachment import Layer
    from infllm.engine.config import ModelConfig

FIRST_SLAB, LARGEST_SLAB = 64, 4096  # units; a slab is never moved or copied once written
RESIDENT = 2**27  # bytes of mapped units, a layer, that may stay in memory after a lookup by keys


class UnitStore:
    """Units of one layer and one session; forks share what is written."""

    def __init__(
        self, config: ModelConfig, layer: Layer, batch: int, *, indexed: bool = True
    ) -> None:
        """`indexed`: units have representatives, by which they are looked up."""
        self.batch = batch
        self.n_kv_heads = layer.n_kv_heads
        self.head_dim = layer.head_dim
        self.block_size = config.block_size
        self.n_repr_heads = layer.n_kv_heads if config.repr_heads == "group" else layer.n_heads
        if not indexed:
            self.n_repr_heads = 0
        self.parts = n_parts(config) if indexed else 0  # of a unit, whose moments are kept
        self.device = layer.device
        self.dtype = layer.dtype
        self.kv_dtype = config.kv_dtype
        # A bfloat16 score has eight bits: too few to tell one unit from ten thousand like it. A CPU
        # reads the index once a chunk, so that float32 costs it nothing; on a GPU memory decides.
        on_cpu = layer.device.type == "cpu"
        self.index_dtype = torch.float32 if on_cpu else PLAIN.get(config.kv_dtype, torch.bfloat16)
        # Moments only choose candidates: eight bits will do, where they are not slower.
        slow = on_cpu and not cpu_has_bfloat16()
        self.moment_dtype = torch.float32 if slow else torch.bfloat16
        self._centre: Tensor | None = None
        groups = layer.n_heads if config.perhead else 1
        self.most = config.most_units  # of one lookup
        capacity = max(config.max_cached_block, self.most * groups * batch)
        self.cache = BlockCache(capacity, config.cache_strategy, config.score_decay)
        page = (2, self.n_kv_heads, self.block_size, self.head_dim)
        self.slots = torch.zeros(capacity, *page, dtype=self.dtype, device=self.device)
        self.latents = layer.latents if keeps_latents(config, layer) and indexed else None
        if self.latents is not None:  # of half of a unit's tokens, and of the others
            page = (2, 1, self.block_size // 2, self.latents.size)
        self.page = page  # of a unit, as stored
        self.staging = make_staging(layer.device)
        self.split = layer.split
        # Told of units just made [n, 2, Hkv, block_size, D], as they would come from the host.
        self.follow: Callable[[Tensor], None] | None = None
        self.views: list[View] = []
        self._known_slabs: tuple[object, Slabs] | None = None
        self.n = 0

    def fork(self) -> UnitStore:
        """A store that sees the same units; slots and their bookkeeping stay common to both."""
        other = object.__new__(UnitStore)
        other.__dict__.update(self.__dict__)
        other.views = [View(view.slab, view.first, view.count) for view in self.views]
        return other

    def append(self, k: Tensor, v: Tensor, index: Tensor, latents: Tensor | None = None) -> None:
        """Add units: k, v [B, Hkv, n, block_size, D], representatives [B, R, n, D]; `latents`
        [B, 1, n, block_size, L] are stored in place of k and v where the layer has them."""
        if self.latents is None:
            kv = torch.stack([k, v]).permute(3, 1, 0, 2, 4, 5)  # [n, B, 2, Hkv, block_size, D]
        else:
            assert latents is not None
            kv = latents.unflatten(3, (2, -1)).permute(2, 0, 3, 1, 4, 5)
        codes, scale = quantize(kv, self.kv_dtype)
        if self.follow is not None:
            self.follow(self.opened(codes[:, 0], None if scale is None else scale[:, 0]))
        index = index.permute(2, 0, 1, 3)  # [n, B, R, D]
        moments = None
        if self.parts:
            if self._centre is None and self.n == 0:
                self._centre = self._centre_of(codes[0], None if scale is None else scale[0])
            moments = unit_moments(k.float() - self.centre[:, :, None, None])
        done, n = 0, kv.shape[0]
        while done < n:
            view = self._open_view()
            take = min(n - done, view.slab.capacity - view.slab.used)
            new = slice(done, done + take)
            view.slab.append(
                codes[new], None if scale is None else scale[new], index[new],
                None if moments is None else (moments[0][:, :, new], moments[1][:, :, new]),
            )  # fmt: skip
            view.count += take
            self.n += take
            done += take

    def adopt(self, capacity: int, index: list[Tensor], runs: list[Run], *, growing: bool) -> None:
        """Add a slab of units that files hold: runs of rows, and their index [n, B, R, D] each.

        The slabs are those of the store that was saved: an index cut elsewhere could round
        otherwise. `growing`: new units come into this slab while it has room.
        """
        slab = self._new_slab(capacity)
        slab.used = sum(rows.shape[0] for rows in index)
        slab.in_files = index
        slab.runs = runs
        slab.owner = ref(self) if growing else None
        self.views.append(View(slab, self.n, slab.used))
        self.n += slab.used

    @property
    def centre(self) -> Tensor:
        """What is taken from keys before their moments, see `centre_of`."""
        if self._centre is None:
            run, row = self.views[0].slab.locate(0)
            if run.seal is not None:
                run.seal.check(row)
            scale = None if run.scale is None else run.scale[row]
            self._centre = self._centre_of(run.kv[row], scale).to(self.device)
        return self._centre

    def _centre_of(self, codes: Tensor, scale: Tensor | None) -> Tensor:
        if self.latents is not None:
            codes, scale = self.opened(codes, scale), None
        return centre_of(codes, scale)

    def opened(self, codes: Tensor, scale: Tensor | None) -> Tensor:
        """Keys and values [n, 2, Hkv, block_size, D] of units as they are stored, [n, *page]."""
        if self.latents is None:
            return dequantize(codes, scale, self.dtype)
        scale = None if scale is None else scale.to(self.device)
        stored = dequantize(codes.to(self.device), scale, self.dtype)
        return self.latents.expand(stored.flatten(1, 3))

    def key_codes(self, stored: Tensor, rows: Tensor | None = None) -> Tensor:
        """What a lookup by keys reads of units as stored, [n, B, *page], of all or, copied, of some
        `rows`: [n, B, Hkv, block_size, D or L]. Codes, or their scales."""
        read = raw(stored) if self.latents is not None else raw(stored)[:, :, :1]
        read = read if rows is None else read.index_select(0, rows)
        if self.latents is None:
            return read[:, :, 0].view(stored.dtype)
        return torch.cat([read[:, :, 0], read[:, :, 1]], dim=3).view(stored.dtype)

    def key_query(self, q: Tensor) -> Tensor:
        """Queries [B, H, T, D or L] for products with `key_codes`."""
        return q if self.latents is None else self.latents.query(q)

    def check_keys(self, run: Run) -> None:
        """Raises MemoryFileError where what a lookup by keys reads of a file is damaged."""
        if run.seal is not None:
            run.seal.check_keys() if self.latents is None else run.seal.check_all()

    @property
    def growing(self) -> bool:
        """Whether the next unit comes into the last slab, if it has room."""
        last = self.views[-1] if self.views else None
        if last is None or last.slab.owner is None:
            return False
        return last.slab.owner() is self and last.count == last.slab.used

    def _open_view(self) -> View:
        if self.growing and self.views[-1].slab.used < self.views[-1].slab.capacity:
            return self.views[-1]
        grown = 2 * self.views[-1].slab.capacity if self.views else FIRST_SLAB
        self.views.append(View(self._new_slab(min(grown, LARGEST_SLAB)), self.n, 0))
        return self.views[-1]

    def _new_slab(self, capacity: int) -> Slab:
        new_index = partial(
            UnitIndex, batch=self.batch, heads=(self.n_repr_heads, self.n_kv_heads),
            dim=self.head_dim, parts=self.parts, dtypes=(self.index_dtype, self.moment_dtype),
            device=self.device,
        )  # fmt: skip
        return Slab(capacity, self, self.staging, new_index)

    def scores(self, query: Tensor, start: int, stop: int, *, per_head: bool) -> Tensor:
        """Scores of units `start` to `stop` for mean queries [B, E, R, D]: [B, E, 1 or R, n]."""
        rows = []
        for view in self.views:
            a, b = max(start - view.first, 0), min(stop - view.first, view.count)
            if a < b:
                index = view.slab.index.vectors[a:b].transpose(0, 1)  # [B, n, R, D]
                rows.append(unit_scores(query, index, per_head=per_head))
        if not rows:
            b, e, r, _ = query.shape
            return query.new_empty(b, e, r if per_head else 1, 0, dtype=torch.float32)
        scores = rows[0] if len(rows) == 1 else torch.cat(rows, dim=-1)
        return scores if per_head or self.split is None else self.split.sum(scores)

    def scores_of_all(
        self, query: Tensor, visible: int, *, limit: Tensor | None = None, growth: int = 0,
        per_head: bool,
    ) -> Tensor:  # fmt: skip
        """Like `scores`, of units and of rows that new units will take: float32 [B, E, 1 or R, N],
        minus infinity for those that a block does not see, see `slab_scores`.

        As long as no slab is opened, N is the same.
        """
        scores = slab_scores(
            query, self._slabs(), visible, limit=limit, growth=growth, per_head=per_head
        )
        return scores if per_head or self.split is None else self.split.sum(scores)

    def _slabs(self) -> Slabs:
        """The index of all `rows`, and where it is: told to the device once for a slab."""
        known = tuple(zip((view.slab.number for view in self.views), self.rows, strict=True))
        if self._known_slabs is None or self._known_slabs[0] != known:
            views = zip(self.views, self.rows, strict=True)
            self._known_slabs = known, Slabs([view.slab.index.vectors[:m] for view, m in views])
        return self._known_slabs[1]

    @property
    def rows(self) -> list[int]:
        """Of each slab, the rows that hold units of this store or will."""
        counts = [view.count for view in self.views]
        if self.growing:
            counts[-1] = self.views[-1].slab.capacity
        return counts

    def top_keys(self, q: Tensor, topk: int) -> tuple[Tensor, Tensor]:
        """Products and numbers of the keys that queries q [B, H, T, D], rotated, like best, see
        `infllm.kernels.key_topk`. On a GPU the queries come to the host, where the keys are."""
        runs = self._runs()
        for run in runs:
            self.check_keys(run)
        scales = [run.scale[:, :, 0] for run in runs if run.scale is not None]
        keys = [run.kv[:, :, 0] for run in runs]
        best, index = top_keys(q.cpu(), keys, scales or None, topk)
        self.release(runs)
        return best.to(self.device), index.to(self.device)

    def release(self, runs: list[Run]) -> None:
        """Give back what a lookup by keys read of files, where that is much."""
        if self.disk_bytes > RESIDENT:
            for file in {id(x.seal.file): x.seal.file for x in runs if x.seal}.values():
                file.release()

    def fetch(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Bring units to the device's slots.

        `chosen` int64 [B, G, n] of unit numbers; returns pages [slots, 2, Hkv, block_size, D] and
        the block table [B, G, n] into them.
        """
        rows = chosen.flatten(1).tolist()
        wanted = {self._key(b, unit): (b, unit) for b, row in enumerate(rows) for unit in row}
        slots, loads = self.cache.place(list(wanted))
        places = list(wanted.values())
        if self.batch == 1 and self.staging.ahead:
            self.load([places[i][1] for i, _ in loads], [slot for _, slot in loads])
        else:
            for i, slot in loads:
                self._load_one(*places[i], slot)
        slot_of = dict(zip(places, slots, strict=True))
        flat = [slot_of[b, unit] for b, row in enumerate(rows) for unit in row]
        return self.slots, torch.tensor(flat, device=self.device).view(chosen.shape)

    def _load_one(self, b: int, unit: int, slot: int) -> None:
        slab, row = self._locate(unit)
        run, row = slab.locate(row)
        if run.seal is not None:
            run.seal.check(row)
        if run.scale is None and self.latents is None:
            self.slots[slot].copy_(run.kv[row, b], non_blocking=True)
        else:
            scale = None if run.scale is None else run.scale[row, b][None]
            self.slots[slot].copy_(self.opened(run.kv[row, b][None], scale)[0])

    def load(self, units: Sequence[int], slots: Sequence[int]) -> None:
        """Bring units of the only sequence to slots of the device, all in one upload."""
        if not units:
            return
        staging = self.staging
        order = sorted(range(len(units)), key=units.__getitem__)
        staging.begin()  # and what is told to the device from now on comes after the upload
        where = torch.tensor([slots[i] for i in order], dtype=torch.int64)
        where = staging.empty(where.shape, torch.int64).copy_(where)

        def put(where: Tensor, codes: Tensor, scale: Tensor | None = None) -> None:
            self.slots.index_copy_(0, where, self.opened(codes, scale))

        host = self.gather([units[i] for i in order])
        staging.wait(staging.upload([where, *host], put))

    def keys(self, units: Sequence[int]) -> list[tuple[int, int, int]]:
        """What the cache calls `units`, of the only sequence."""
        return [self._key(0, unit) for unit in units]

    def gather(self, units: Sequence[int]) -> list[Tensor]:
        """Host copies of `units` (ascending, of the only sequence), for `Staging.upload`.

        Codes [n, *page] and, for int8 and fp8, the scale of each vector [.., 1].
        """
        return self.gathering(units)()

    def gathering(self, units: Sequence[int]) -> Callable[[], list[Tensor]]:
        """What gives `gather(units)`, from any thread: where the units lie is known, what is still
        on its way there is waited for."""
        places = self.places(units)
        slabs = {slab.number: slab for slab, _, _ in places}
        page = self.page
        dtype, scaled = storage_dtype(self.kv_dtype), self.kv_dtype not in PLAIN

        def gather() -> list[Tensor]:
            for slab in slabs.values():
                self.staging.settle(slab)
            codes, scales = self.staging.empty((len(units), *page), dtype), None
            if scaled:
                scales = self.staging.empty((len(units), *page[:-1], 1), torch.float32)
            done = 0
            for _, run, rows in places:
                some = slice(done, done + len(rows))
                done = some.stop
                if run.seal is not None:
                    for row in rows:
                        run.seal.check(row)
                picked = torch.tensor(rows)
                torch.index_select(raw(run.kv[:, 0]), 0, picked, out=raw(codes[some]))
                if scales is not None and run.scale is not None:
                    torch.index_select(run.scale[:, 0], 0, picked, out=scales[some])
            return [codes] if scales is None else [codes, scales]

        return gather

    def places(self, units: Sequence[int]) -> list[tuple[Slab, Run, list[int]]]:
        """Where units (ascending) lie: slabs, runs, and rows of each."""
        found: list[tuple[Slab, Run, list[int]]] = []
        done = 0
        for view, after in zip(self.views, [*self.views[1:], None], strict=True):
            stop = len(units) if after is None else bisect_left(units, after.first)
            rows = [unit - view.first for unit in units[done:stop]]
            done = stop
            if not rows:
                continue
            for run, behind in zip(view.slab.runs, [*view.slab.runs[1:], None], strict=True):
                last = len(rows) if behind is None else bisect_left(rows, behind.first)
                if last > 0:
                    found.append((view.slab, run, [row - run.first for row in rows[:last]]))
                rows = rows[last:]
        return found

    def credit(self, chosen: Tensor, mass: Tensor) -> None:
        """Tell the cache what attention mass [B, H, n] the units `chosen` [B, G, n] received."""
        b, g, n = chosen.shape
        by_group = mass.view(b, g, -1, n).sum(dim=2).flatten(1).tolist()
        received: dict[tuple[int, int, int], float] = {}
        for row, (units, weights) in enumerate(
            zip(chosen.flatten(1).tolist(), by_group, strict=True)
        ):
            for unit, weight in zip(units, weights, strict=True):
                key = self._key(row, unit)
                received[key] = received.get(key, 0.0) + weight
        self.cache.credit(received)

    def _locate(self, unit: int) -> tuple[Slab, int]:
        for view in reversed(self.views):
            if unit >= view.first:
                return view.slab, unit - view.first
        raise IndexError(f"no unit {unit}")

    def _key(self, b: int, unit: int) -> tuple[int, int, int]:
        slab, row = self._locate(unit)
        return slab.number, row, b

    @property
    def host_bytes(self) -> int:
        """Bytes of keys and values that are kept in memory for the units."""
        return sum(run.nbytes for run in self._runs() if run.seal is None)

    @property
    def disk_bytes(self) -> int:
        """Bytes of keys and values that are read from files when looked up."""
        return sum(run.nbytes for run in self._runs() if run.seal is not None)

    def _runs(self) -> list[Run]:
        return [run for view in self.views for run in view.runs(0, self.n)]

    @property
    def device_bytes(self) -> int:
        """Bytes of slots and unit index on the device."""
        return sum(view.slab.index_bytes for view in self.views) + self.slots.nbytes
