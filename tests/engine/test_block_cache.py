"""The device's slots: who stays and who goes, and that no number depends on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infllm.engine.units.block_cache import BlockCache, Strategy
from tests.engine.served import Served
from tests.engine.tiny_models import ids

STRATEGIES: tuple[Strategy, ...] = ("lru", "fifo", "lru-s")
DECAY = 0.5  # a power of two: the model's masses are exact


class Model:
    """The definitions, written as slowly as they read."""

    def __init__(self, capacity: int, strategy: Strategy) -> None:
        self.capacity = capacity
        self.strategy = strategy
        self.cached: list[int] = []  # in order of loading
        self.last_use: dict[int, int] = {}
        self.mass: dict[int, float] = {}
        self.clock = 0

    def place(self, units: list[int]) -> list[int]:
        """Units that must be loaded."""
        self.clock += 1
        for unit in self.mass:
            self.mass[unit] *= DECAY
        for n, unit in enumerate(units):
            if unit in self.cached:
                self.last_use[unit] = self.clock * 1000 + n
        missing = [unit for unit in units if unit not in self.cached]
        while len(self.cached) + len(missing) > self.capacity:
            self.cached.remove(self._victim(set(units)))
        for unit in missing:
            self.cached.append(unit)
            self.last_use[unit] = self.clock * 1000 + 500 + units.index(unit)
        return missing

    def _victim(self, keep: set[int]) -> int:
        others = [unit for unit in self.cached if unit not in keep]
        match self.strategy:
            case "fifo":
                return others[0]
            case "lru":
                return min(others, key=lambda unit: self.last_use[unit])
            case _:
                return min(others, key=lambda unit: self.mass.get(unit, 0.0))

    def credit(self, mass: dict[int, float]) -> None:
        for unit, received in mass.items():
            self.mass[unit] = self.mass.get(unit, 0.0) + received


@st.composite
def uses(draw: st.DrawFn) -> tuple[int, list[tuple[list[int], list[int]]]]:
    """A capacity, and calls of distinct units with the mass (in eighths) that each received."""
    capacity = draw(st.integers(1, 6))
    units = st.lists(st.integers(0, 11), min_size=1, max_size=capacity, unique=True)
    calls = []
    for _ in range(draw(st.integers(1, 15))):
        chosen = draw(units)
        mass = draw(st.lists(st.integers(0, 8), min_size=len(chosen), max_size=len(chosen)))
        calls.append((chosen, mass))
    return capacity, calls


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=150, deadline=None, database=None)
@given(plan=uses())
def test_the_cache_does_what_its_strategy_says(
    strategy: Strategy, plan: tuple[int, list[tuple[list[int], list[int]]]]
) -> None:
    capacity, calls = plan
    cache, model = BlockCache(capacity, strategy, DECAY), Model(capacity, strategy)
    holds: dict[int, int] = {}  # slot -> unit
    hits = misses = 0
    for units, eighths in calls:
        before = set(model.cached)
        slots, loads = cache.place(units)
        missing = model.place(units)
        assert [units[i] for i, _ in loads] == missing
        for i, slot in loads:
            holds[slot] = units[i]
        # Every unit asked for is in the slot that was named, and in one slot only.
        assert len(set(slots)) == len(units)
        assert all(0 <= slot < capacity for slot in slots)
        assert [holds[slot] for slot in slots] == units
        assert len(cache) == len(model.cached) <= capacity
        assert all(unit in cache for unit in model.cached)
        assert not any(unit in cache for unit in before - set(model.cached))
        hits += len(units) - len(missing)
        misses += len(missing)
        assert (cache.hits, cache.misses) == (hits, misses)
        mass = {unit: n / 8 for unit, n in zip(units, eighths, strict=True)}
        cache.credit(mass)
        model.credit(mass)
        for unit, received in model.mass.items():
            assert cache.mass(unit) == pytest.approx(received)


def calls_of(cache: BlockCache, *calls: list[int]) -> Iterator[list[int]]:
    for units in calls:
        _, loads = cache.place(units)
        yield [units[i] for i, _ in loads]


def test_lru_keeps_what_was_used_and_fifo_does_not() -> None:
    assert list(calls_of(BlockCache(2, "lru"), [1], [2], [1], [3], [1])) == [[1], [2], [], [3], []]
    assert list(calls_of(BlockCache(2, "fifo"), [1], [2], [1], [3], [1])) == [
        [1], [2], [], [3], [1],
    ]  # fmt: skip


def test_lru_s_remembers_the_mass_of_units_that_left() -> None:
    cache = BlockCache(1, "lru-s", decay=0.5)
    cache.place(["a"])
    cache.credit({"a": 8.0})
    cache.place(["b"])  # a leaves
    assert "a" not in cache
    cache.place(["c"])
    assert cache.mass("a") == 2.0  # decayed by two uses, not forgotten
    cache.place(["a"])
    cache.credit({"a": 1.0})
    assert cache.mass("a") == 2.0


def test_lru_s_keeps_the_heavier_unit() -> None:
    cache = BlockCache(2, "lru-s", decay=0.5)
    cache.place(["heavy", "light"])
    cache.credit({"heavy": 1.0, "light": 0.25})
    cache.place(["new"])
    assert "heavy" in cache
    assert "light" not in cache


SETTINGS = [
    {"cache_strategy": strategy, "max_cached_block": size, "score_decay": decay}
    for strategy in STRATEGIES
    for size in (3, 5, 64)
    for decay in ((0.1,) if strategy != "lru-s" else (0.0, 0.1, 1.0))
]


@pytest.mark.parametrize("perhead", [False, True])
def test_strategy_size_and_decay_change_no_bit(llama: Served, perhead: bool) -> None:
    rows, loads = [], set()
    for changes in SETTINGS:
        session = llama.session(perhead=perhead, **changes)
        session.read(ids(180))
        got = torch.cat([session.score(ids(9, seed=4)), session.score(ids(4, seed=5), step=True)])
        stats = session.stats
        assert stats.cache_misses > 0
        rows.append(got)
        loads.add(stats.cache_misses)
    assert all(torch.equal(rows[0], row) for row in rows)
    assert len(loads) > 3  # the settings do decide what is loaded


def test_more_slots_load_less(llama: Served) -> None:
    def misses(**changes: Any) -> int:
        session = llama.session(**changes)
        session.read(ids(400))
        return session.stats.cache_misses

    few, many = misses(max_cached_block=3), misses(max_cached_block=200)
    assert many < few
    session = llama.session(max_cached_block=200)
    session.read(ids(400))
    # Nothing gives way: each unit is loaded at most once in each of the two layers.
    assert session.stats.cache_misses <= 2 * session.stats.units
