"""Keys and values of every token of one layer, in pages that forks share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from weakref import ref

import torch
from torch import Tensor

from infllm.engine.config import prunes_int8
from infllm.engine.units.slab import raw
from infllm.kernels.descent import KeyRows
from infllm.kernels.quantize import dequantize, quantize, storage_dtype

if TYPE_CHECKING:
    from infllm.engine.attachment import Layer
    from infllm.engine.config import ModelConfig

PAGE = 256  # tokens; a fork that reads on copies one page, nothing else
HOST = torch.device("cpu")


class Pool:
    """Rows of tokens that the stores of one layer share; pages nobody holds are used again."""

    def __init__(self) -> None:
        self.rooms: dict[str, Tensor] = {}  # [pages * PAGE, Hkv, D or 1]
        self.free: list[int] = []
        self.pages = 0  # ever taken

    def take(self) -> int:
        """A page that nobody holds."""
        if self.free:
            return self.free.pop()
        self.pages += 1
        return self.pages - 1

    def room(self, name: str, like: Tensor, device: torch.device) -> Tensor:
        """Rows of all pages, as `like` [n, Hkv, D or 1], on `device`."""
        old = self.rooms.get(name)
        need = self.pages * PAGE
        if old is not None and old.shape[0] >= need and old.device == device:
            return old
        # Rows that were never touched cost address space on a host, no memory.
        rows = need if old is None else max(need, old.shape[0] + old.shape[0] // 2)
        room = torch.empty(rows, *like.shape[1:], dtype=like.dtype, device=device)
        if old is not None:
            room[: old.shape[0]].copy_(old)
        self.rooms[name] = room
        return room


class Page:
    """One page of a pool: given back when no store holds it any more."""

    def __init__(self, pool: Pool, writer: TokenStore) -> None:
        self.pool = pool
        self.number = pool.take()
        self.writer = ref(writer)  # who may write behind the rows in use

    def __del__(self) -> None:
        self.pool.free.append(self.number)


class TokenStore:
    """All tokens of one sequence: k and v on the host in `kv_dtype`; and, with `prune_keys: int8`,
    keys for pruning once more, on the device while there are at most `prune_bound` tokens."""

    def __init__(self, config: ModelConfig, layer: Layer) -> None:
        self.layer = layer
        self.kv_dtype = config.kv_dtype
        self.bound = config.prune_bound if prunes_int8(config, layer.device.type) else None
        self.n = 0
        self._pool = Pool()
        self._pages: list[Page] = []

    def fork(self) -> TokenStore:
        """A store that sees the same tokens."""
        other = object.__new__(TokenStore)
        other.__dict__.update(self.__dict__)
        other._pages = list(self._pages)
        return other

    def append(self, k: Tensor, v: Tensor) -> None:
        """Add tokens: k, v [1, Hkv, T, D], not rotated."""
        rows: dict[str, Tensor] = {}
        for name, x in (("k", k), ("v", v)):
            codes, scale = quantize(x[0].transpose(0, 1).contiguous(), self.kv_dtype)
            rows |= _named(name, raw(codes), scale)
        self._write(rows, k.shape[2])

    def _write(self, rows: dict[str, Tensor], count: int) -> None:
        if self.bound is not None:  # from keys as they are kept: a memory file has no others
            codes = rows["k"].view(storage_dtype(self.kv_dtype))
            keys = dequantize(codes, rows.get("k_scale"), torch.float32)
            rows = {**rows, **_named("probe", *quantize(keys, "int8"))}
        if self.n % PAGE and self._pages[-1].writer() is not self:
            self._copy_last_page()
        while len(self._pages) * PAGE < self.n + count:
            self._pages.append(Page(self._pool, self))
        places = self._rows(torch.arange(self.n, self.n + count))
        self.n += count
        for name, x in rows.items():
            device = self.probe_device if name.startswith("probe") else HOST
            room = self._pool.room(name, x, device)
            room[places.to(device)] = x.to(device)

    def _copy_last_page(self) -> None:
        old, new = self._pages[-1], Page(self._pool, self)
        self._pages[-1] = new
        for name, room in list(self._pool.rooms.items()):
            room = self._pool.room(name, room, room.device)
            room[new.number * PAGE :][:PAGE] = room[old.number * PAGE :][:PAGE]

    @property
    def probe_device(self) -> torch.device:
        """Where keys for pruning are. Once they moved to the host, they stay there."""
        room = self._pool.rooms.get("probe")
        moved = room is not None and room.device != self.layer.device
        fits = self.bound is not None and self.n <= self.bound
        return self.layer.device if fits and not moved else HOST

    def _table(self) -> Tensor:
        return torch.tensor([page.number for page in self._pages], dtype=torch.int64)

    def _rows(self, tokens: Tensor) -> Tensor:
        return self._table()[tokens // PAGE] * PAGE + tokens % PAGE

    def fetch(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """k, v [1, Hkv, n, D] of `tokens`, int64 [n] on the host, on the layer's device."""
        rows = self._rows(tokens)
        k, v = (self._values(name, rows) for name in ("k", "v"))
        return k, v

    def _values(self, name: str, rows: Tensor) -> Tensor:
        rooms, device = self._pool.rooms, self.layer.device
        codes = rooms[name].index_select(0, rows).view(storage_dtype(self.kv_dtype)).to(device)
        scale = rooms.get(f"{name}_scale")
        scale = None if scale is None else scale.index_select(0, rows).to(device)
        return dequantize(codes, scale, self.layer.dtype).transpose(0, 1)[None]

    def probes(self) -> KeyRows:
        """What pruning looks at: where it is, there it is descended."""
        name = "k" if self.bound is None else "probe"
        kv_dtype = self.kv_dtype if self.bound is None else "int8"
        keys = self._pool.rooms[name].view(storage_dtype(kv_dtype))
        table = self._table().to(keys.device)
        return KeyRows(keys, self._pool.rooms.get(f"{name}_scale"), table, PAGE)

    def state(self) -> dict[str, Tensor]:
        """Keys and values of all tokens in order, by room: [n, Hkv, D or 1]."""
        rooms, rows = self._pool.rooms.items(), self._rows(torch.arange(self.n))
        return {name: room[rows] for name, room in rooms if not name.startswith("probe")}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave; only for a store that is empty."""
        if state:
            self._write(dict(state), state["k"].shape[0])

    def bytes_of(self, *, on_device: bool) -> int:
        """Bytes of this store's tokens: of the keys for pruning on the device, or of all else."""
        there = self.probe_device == self.layer.device
        rooms = self._pool.rooms.items()
        some = (x for name, x in rooms if (name.startswith("probe") and there) == on_device)
        return sum(self.n * x[:1].nbytes for x in some)


def _named(name: str, codes: Tensor, scale: Tensor | None) -> dict[str, Tensor]:
    return {name: codes} if scale is None else {name: codes, f"{name}_scale": scale}
