"""The store of memory units: append-only slabs that forks share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from infllm.engine.attachment import Layer, Rotary
from infllm.engine.config import ModelConfig
from infllm.engine.units import UnitStore
from infllm.engine.units import store as units_module
from infllm.kernels.quantize import dequantize, quantize
from infllm.kernels.rotate import Rope

H, HKV, SIZE, DIM, TOPK = 4, 2, 4, 8, 3


def layer(dtype: torch.dtype = torch.float32) -> Layer:
    freq = torch.ones(DIM // 2, dtype=torch.float64)
    return Layer(0, H, HKV, DIM, torch.device("cpu"), dtype, Rotary(Rope(freq)))


def store(dtype: torch.dtype = torch.float32, **changes: Any) -> UnitStore:
    base = {"block_size": SIZE, "topk": TOPK, "max_cached_block": 4, "kv_dtype": "fp32"}
    return UnitStore(ModelConfig(**{**base, **changes}), layer(dtype), 1)


def units(n: int, seed: int, heads: int = H) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    k, v = torch.randn(2, 1, HKV, n, SIZE, DIM, generator=g)
    return k, v, torch.randn(1, heads, n, DIM, generator=g)


def fetched(held: UnitStore, numbers: list[int]) -> tuple[Tensor, Tensor]:
    """Keys and values [Hkv, n, SIZE, DIM] of units, fetched a few at a time."""
    rows = []
    for i in range(0, len(numbers), TOPK):
        pages, table = held.fetch(torch.tensor(numbers[i : i + TOPK])[None, None])
        rows.append(pages[table[0, 0]])  # [n, 2, Hkv, SIZE, DIM]
    k, v = torch.cat(rows).transpose(1, 2).unbind(2)
    return k.transpose(0, 1), v.transpose(0, 1)


@pytest.mark.parametrize("kv_dtype", ["fp32", "bf16", "fp16", "int8", "fp8"])
def test_fetch_returns_what_was_appended(kv_dtype: str) -> None:
    held = store(kv_dtype=kv_dtype)
    keys, values = [], []
    for seed, n in enumerate([1, 63, 2, 150, 5]):  # over the ends of slabs of 64 and 128
        k, v, index = units(n, seed)
        held.append(k, v, index)
        keys.append(k)
        values.append(v)
    assert held.n == 221
    assert len(held.views) > 1
    k, v = torch.cat(keys, dim=2)[0], torch.cat(values, dim=2)[0]
    got_k, got_v = fetched(held, list(range(221)))
    for got, given_ in ((got_k, k), (got_v, v)):
        assert torch.equal(got, dequantize(*quantize(given_, kv_dtype), torch.float32))
    order = [200, 3, 64, 63, 65, 0, 220]
    got_k, _ = fetched(held, order)
    assert torch.equal(got_k, dequantize(*quantize(k[:, order], kv_dtype), torch.float32))


def test_units_are_gathered_from_all_runs_of_all_slabs() -> None:
    """Whatever lies between those that are asked for, and each once."""
    held = store()
    parts = [units(60, seed) for seed in range(5)]
    for k, v, index in parts:
        held.append(k, v, index)
    assert len(held.views) == 3
    slab = held.views[1].slab
    rows = slab.runs[0]
    slab.runs = [run for run in (rows.part(0, 40), rows.part(40, 128)) if run]  # file, and memory
    kv = torch.stack([torch.cat([part[i] for part in parts], dim=2)[0] for i in (0, 1)])
    for some in ([0], [63, 64], [5, 70, 103, 104, 105, 191, 192, 299], list(range(300)), []):
        (got,) = held.gather(some)
        assert torch.equal(got, kv[:, :, some].permute(2, 0, 1, 3, 4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kv_dtype", ["bf16", "int8"])
def test_slots_have_the_dtype_of_the_model(dtype: torch.dtype, kv_dtype: str) -> None:
    held = store(dtype, kv_dtype=kv_dtype)
    k, v, index = units(5, 0)
    held.append(k.to(dtype), v.to(dtype), index)
    got, _ = fetched(held, [4, 1])
    assert got.dtype == dtype
    want = dequantize(*quantize(k.to(dtype)[0, :, [4, 1]], kv_dtype), dtype)
    assert torch.equal(got, want)


@pytest.mark.parametrize("per_head", [False, True])
def test_scores_cover_all_slabs(per_head: bool) -> None:
    held = store()
    parts = [units(n, seed) for seed, n in enumerate([60, 30, 120])]
    for part in parts:
        held.append(*part)
    index = torch.cat([part[2] for part in parts], dim=2)  # [1, H, 210, DIM]
    query = torch.randn(1, 2, H, DIM, generator=torch.Generator().manual_seed(9))
    want = torch.einsum("behd,bhnd->behn", query, index)
    if not per_head:
        want = want.sum(dim=2, keepdim=True)
    got = held.scores(query, 0, 210, per_head=per_head)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    got = held.scores(query, 50, 100, per_head=per_head)
    torch.testing.assert_close(got, want[..., 50:100], atol=1e-5, rtol=0)
    assert held.scores(query, 7, 7, per_head=per_head).shape[-1] == 0


@pytest.mark.parametrize("kv_dtype", ["fp32", "bf16", "int8", "fp8"])
@pytest.mark.parametrize("heads", ["query", "group"])
def test_bytes_are_those_of_what_is_kept(kv_dtype: str, heads: str) -> None:
    held = store(kv_dtype=kv_dtype, repr_heads=heads)
    empty = held.device_bytes
    held.append(*units(100, 0, H if heads == "query" else HKV))
    vector = DIM * {"fp32": 4, "bf16": 2, "int8": 1, "fp8": 1}[kv_dtype]
    vector += 4 if kv_dtype in ("int8", "fp8") else 0
    assert held.host_bytes == 100 * 2 * HKV * SIZE * vector
    index = held.index_dtype.itemsize
    assert held.parts > 1  # then those of whole units are kept beside
    moments = 2 * HKV * (held.parts + 1) * DIM * held.moment_dtype.itemsize
    representatives = (H if heads == "query" else HKV) * DIM * index
    assert held.device_bytes - empty == 100 * (representatives + moments)
    plain = store(kv_dtype=kv_dtype, repr_heads=heads, unit_score="representatives")
    empty = plain.device_bytes
    plain.append(*units(100, 0, H if heads == "query" else HKV))
    assert plain.device_bytes - empty == 100 * representatives


@dataclass
class Branch:
    """A store in a tree of forks, and the seeds of the units it should hold."""

    store: UnitStore
    seeds: list[int] = field(default_factory=list)


actions = st.lists(
    st.tuples(st.sampled_from(["append", "append", "fork"]), st.integers(0, 50), st.integers(1, 5)),
    max_size=25,
)


@settings(max_examples=60, deadline=None, database=None)
@given(actions=actions)
def test_forks_do_not_see_each_others_units(actions: list[tuple[str, int, int]]) -> None:
    """Deep trees of forks, each appending its own; slabs of two, so that many ends occur."""
    first_slab = units_module.FIRST_SLAB
    units_module.FIRST_SLAB = 2
    try:
        branches = [Branch(store())]
        for seed, (action, which, n) in enumerate(actions):
            branch = branches[which % len(branches)]
            if action == "fork":
                branches.append(Branch(branch.store.fork(), list(branch.seeds)))
                continue
            for i in range(n):
                branch.seeds.append(1000 * seed + i)
            parts = [units(1, s) for s in branch.seeds[-n:]]
            branch.store.append(*(torch.cat(x, dim=2) for x in zip(*parts, strict=True)))
    finally:
        units_module.FIRST_SLAB = first_slab
    for branch in branches:
        assert branch.store.n == len(branch.seeds)
        if not branch.seeds:
            continue
        k, v = fetched(branch.store, list(range(branch.store.n)))
        wanted = [units(1, s) for s in branch.seeds]
        assert torch.equal(k, torch.cat([x[0][0] for x in wanted], dim=1))
        assert torch.equal(v, torch.cat([x[1][0] for x in wanted], dim=1))
        query = torch.ones(1, 1, H, DIM)
        got = branch.store.scores(query, 0, branch.store.n, per_head=False)[0, 0, 0]
        want = torch.stack([x[2].sum() for x in wanted])
        torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


def test_forks_share_what_was_there_and_copy_nothing() -> None:
    parent = store()
    parent.append(*units(10, 0))
    child = parent.fork()
    parent.append(*units(3, 1))
    child.append(*units(2, 2))
    assert (parent.n, child.n) == (13, 12)
    assert parent.views[0].slab is child.views[0].slab
    assert child.views[0].count == 10
    assert len(parent.views) == 1  # the owner goes on in its slab


def test_a_unit_that_is_not_there_is_an_error() -> None:
    held = store()
    with pytest.raises(IndexError, match="no unit 0"):
        held.fetch(torch.zeros(1, 1, 1, dtype=torch.int64))
