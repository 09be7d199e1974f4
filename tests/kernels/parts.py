"""Random parts of attention, and the one-shot float64 softmax that every path must equal."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from infllm.kernels.partial_attention import Band, Part


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=generator(seed)).to(dtype)


@dataclass(frozen=True)
class Shape:
    """Heads, queries and head size of one attention."""

    h: int = 4
    hkv: int = 2
    t: int = 3
    d: int = 16
    dtype: torch.dtype = torch.float32

    def query(self, seed: int = 0) -> Tensor:
        return normal(1, self.h, self.t, self.d, seed=seed, dtype=self.dtype)

    def keys(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        k = normal(1, self.hkv, n, self.d, seed=seed, dtype=self.dtype)
        return k, normal(1, self.hkv, n, self.d, seed=seed + 1, dtype=self.dtype)

    def dense(self, n: int, q: Tensor, *, seed: int = 10, **more: object) -> Part:
        k, v = self.keys(n, seed)
        return Part(q, k, v, **more)  # type: ignore[arg-type]

    def paged(
        self, q: Tensor, n_pages: int, page: int, *, groups: int = 1, seed: int = 20, **more: object
    ) -> Part:
        """A part of `n_pages` pages out of a pool twice as large, in no order."""
        pool = 2 * n_pages
        k = normal(pool, self.hkv, page, self.d, seed=seed, dtype=self.dtype)
        v = normal(pool, self.hkv, page, self.d, seed=seed + 1, dtype=self.dtype)
        orders = [
            torch.randperm(pool, generator=generator(seed + g))[:n_pages] for g in range(groups)
        ]
        return Part(q, k, v, table=torch.stack(orders)[None], **more)  # type: ignore[arg-type]


def rms_error(got: Tensor, want: Tensor) -> float:
    """Relative RMS error."""
    got, want = got.double(), want.double()
    return float((got - want).pow(2).mean().sqrt() / want.pow(2).mean().sqrt().clamp_min(1e-30))


def keys_of_head(part: Part, head: int) -> tuple[Tensor, Tensor]:
    """Keys and values float64 [S, D] that one query head attends; written without the kernels."""
    kv = head // (part.q.shape[1] // part.k.shape[1])
    if part.table is None:
        return part.k[0, kv].double(), part.v[0, kv].double()
    table = part.table[0, 0 if part.table.shape[1] == 1 else head].tolist()
    k = torch.cat([part.k[page, kv] for page in table]).double()
    return k, torch.cat([part.v[page, kv] for page in table]).double()


def visible(band: Band | None, t: int, s: int) -> bool:
    if band is None:
        return True
    distance = band.offset + t - s
    return band.low <= distance and (band.high is None or distance < band.high)


def shown_by(part: Part) -> Tensor:
    """bool [T, S]: which keys each query sees."""
    t, s = part.q.shape[2], len(keys_of_head(part, 0)[0])
    shift = 0 if part.shift is None else int(part.shift)
    return torch.tensor([[visible(part.band, i + shift, j) for j in range(s)] for i in range(t)])


def one_shot(
    parts: list[Part], scale: float, softcap: float | None = None, sink: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    """o float64 [1, H, T, D] of one softmax over all keys, and each part's weights [H, T, S]."""
    _, h, t, _ = parts[0].q.shape
    rows, weights = [], [[] for _ in parts]
    shown = [shown_by(part) for part in parts]
    for head in range(h):
        logits, values = [], []
        for part, seen in zip(parts, shown, strict=True):
            k, v = keys_of_head(part, head)
            x = part.q[0, head].double() @ k.T * scale
            if softcap is not None:
                x = softcap * torch.tanh(x / softcap)
            logits.append(x.masked_fill(~seen, float("-inf")))
            values.append(v)
        sizes = [x.shape[1] for x in logits]
        if sink is not None:
            logits.append(sink[head].double().expand(t, 1))
            values.append(torch.zeros(1, values[0].shape[1], dtype=torch.float64))
        weight = torch.softmax(torch.cat(logits, dim=1), dim=1)
        rows.append(weight @ torch.cat(values))
        for part_weights, w in zip(weights, weight.split_with_sizes(
            [*sizes, weight.shape[1] - sum(sizes)], dim=1
        ), strict=False):  # fmt: skip
            part_weights.append(w)
    return torch.stack(rows)[None], [torch.stack(w) for w in weights]
