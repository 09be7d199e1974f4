"""Lookup by keys: the attention mass that units would receive, of all or of the likeliest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from infllm.kernels.unit_mass import log_mass, unit_lse, units_at_once
from infllm.kernels.unit_moments import moment_mass
from infllm.kernels.unit_topk import top_units

if TYPE_CHECKING:
    from infllm.engine.attachment import Softmax
    from infllm.engine.units.store import UnitStore
    from infllm.kernels.rotate import Rope

LSE_VALUES = 2**24  # float32, of all units for some queries, held at once by a lookup by keys

# By moments: units whose keys are all read, the candidates.
CANDIDATES = 2**13  # tokens of them at least
OF_TOPK = 8  # and so many times as many as are chosen at least
SHARE = 4  # for a question one in so many of all units: moments mislead more among so many more
# For a step, which has less time, one in so many, of so many tokens at most. It needs fewer: beside
# them are those that its question put first, OF_TOPK times as many as are chosen.
STEP_SHARE = 8
STEP_CANDIDATES = 3 * 2**14
AS_QUICK = 2  # times as many units have all their keys read as soon as they are ranked


def key_masses(
    store: UnitStore, q: Tensor, beside: Tensor, n: int, softmax: Softmax, groups: int,
    rope: Rope | None = None, first: int = 0,
) -> Tensor:  # fmt: skip
    """Log of the attention mass that all keys of the first n units would receive.

    q [B, H, T, D], rotated; beside [B, H, T], logsumexp of all else that it sees. With `rope`,
    the keys are rotated, the first unit's first key at `first`. float32 [B, groups, n], see
    `log_mass`. The keys stay where they are: on a GPU the queries come to the host.
    """
    host = torch.device("cpu")
    q, beside = store.key_query(q).to(host), beside.to(host)
    if rope is not None:
        rope = replace(rope, freq=rope.freq.to(host))
    b, h, _, _ = q.shape
    size = max(1, LSE_VALUES // (b * h * n))  # queries at once
    total: Tensor | None = None
    for some, others in zip(q.split(size, dim=2), beside.split(size, dim=2), strict=True):
        lse = _lse(store, some, n, softmax, rope, first)
        mass = log_mass(lse, others, groups)
        total = mass if total is None else torch.logaddexp(total, mass)
    assert total is not None
    return _of_all_heads(store, total.to(store.device), groups)


def _of_all_heads(store: UnitStore, mass: Tensor, groups: int) -> Tensor:
    """Log masses with those of heads that other processes have, where heads are added up."""
    return mass if store.split is None or groups > 1 else store.split.logsumexp(mass)


def _lse(
    store: UnitStore, q: Tensor, n: int, softmax: Softmax, rope: Rope | None, first: int
) -> Tensor:
    """float32 [B, H, T, n]: logsumexp over the keys of each of the first n units."""
    out = q.new_empty(*q.shape[:3], n, dtype=torch.float32)
    for view in store.views:
        runs = view.runs(0, n)
        if not runs:
            break
        for run in runs:
            store.check_keys(run)
        scales = [store.key_codes(run.scale) for run in runs if run.scale is not None]
        out[..., view.first : min(view.first + view.count, n)] = unit_lse(
            q,
            [store.key_codes(run.kv) for run in runs],
            scales or None,
            softmax.scale,
            softmax.softcap,
            rope,
            first + view.first * store.block_size,
        )
        store.release(runs)
    return out


# ---- by moments --------------------------------------------------------------------------------


def n_candidates(store: UnitStore, n: int, *, step: bool = False) -> int:
    """Units, of n, whose keys are all read by a lookup for a question, or for a decode step."""
    least = max(CANDIDATES // store.block_size, OF_TOPK * store.most)
    if step:
        return max(least, min(n // STEP_SHARE, STEP_CANDIDATES // store.block_size))
    return max(least, n // SHARE)


def reads_all(store: UnitStore, n: int) -> bool:
    """Whether a lookup by moments reads the keys of all n units: no slower than ranking them."""
    return n <= AS_QUICK * n_candidates(store, n)


def moment_masses(
    store: UnitStore, q: Tensor, beside: Tensor, n: int, softmax: Softmax, groups: int,
    likely: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """As `key_masses`, where no other units were than the candidates among the first n;
    the others score minus infinity.

    Candidates are the units that would receive most by `moment_mass`, of all heads: of their parts
    for the queries of a question, of whole units for a decode step; and `likely` int64 [B, m],
    which the step's question put first. Of few units (`reads_all`) this is `key_masses`.
    """
    if reads_all(store, n):
        return key_masses(store, q, beside, n, softmax, groups)
    step = q.shape[2] == 1
    parts = 1 if step else store.parts
    moments = [
        (view.slab.index.whole if step else view.slab.index.moments)[
            :, :, :, : min(view.count, n - view.first) * parts
        ]
        for view in store.views
        if view.first < n
    ]
    rough = moment_mass(
        q, beside, [x[0] for x in moments], [x[1] for x in moments], store.block_size,
        softmax.scale, softmax.softcap, store.centre, parts,
    )  # fmt: skip
    if store.split is not None:
        rough = store.split.sum(rough)
    m = n_candidates(store, n, step=step)
    if likely is not None:
        rough = rough.scatter(-1, likely, float("inf"))
        m += likely.shape[-1]
    return candidate_masses(store, top_units(rough, m), q, beside, n, softmax, groups)


def likely_units(store: UnitStore, mass: Tensor) -> Tensor:
    """int64 [B, m]: the units of most `mass` [B, groups, n], a log, candidates of the steps that
    follow."""
    return top_units(mass.logsumexp(dim=1), OF_TOPK * store.most)


def candidate_masses(
    store: UnitStore, candidates: Tensor, q: Tensor, beside: Tensor, n: int, softmax: Softmax,
    groups: int,
) -> Tensor:  # fmt: skip
    """As `key_masses`, where no other units were than `candidates` int64 [B, m], ascending; the
    others score minus infinity."""
    lse, q = beside.new_empty(*q.shape[:3], candidates.shape[1]), store.key_query(q)
    for b, units in enumerate(candidates.tolist()):
        mine = q[b : b + 1].cpu()  # on a GPU the queries come to the host
        done = 0
        for codes, scales in _gather_keys(store, units, b, mine):
            some = slice(done, done + len(codes))
            lse[b : b + 1, :, :, some] = unit_lse(
                mine, [codes], None if scales is None else [scales], softmax.scale, softmax.softcap
            )
            done = some.stop
    mass = _of_all_heads(store, log_mass(lse, beside, groups), groups)
    out = mass.new_full((*mass.shape[:2], n), float("-inf"))
    return out.scatter_(-1, candidates[:, None].expand_as(mass), mass)


def _gather_keys(
    store: UnitStore, units: list[int], b: int, q: Tensor
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Host copies of the keys of `units` (ascending) of sequence b, as `UnitStore.key_codes`:
    codes [n, 1, Hkv, block_size, D] and, of int8 and fp8, scales [n, 1, Hkv, block_size, 1].

    As many at once as `unit_lse` works on at once for q: they stay in a CPU's caches.
    """
    together = units_at_once(q, store.page[1], store.block_size)
    for slab, run, rows in store.places(units):
        store.staging.settle(slab)
        if run.seal is not None:
            for row in rows:
                run.seal.check(row)
        for picked in torch.tensor(rows).split(together):
            scales = run.scale
            if scales is not None:
                scales = store.key_codes(scales[:, b : b + 1], picked)
            yield store.key_codes(run.kv[:, b : b + 1], picked), scales
