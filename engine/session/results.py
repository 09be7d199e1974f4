"""What a session gives: generated tokens, what they attended, and counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infllm.engine.attachment import UnitUse


@dataclass(frozen=True)
class UnitMass:
    """Tokens start to stop - 1 (absolute) and the attention mass that a token gave them.

    The mass is a mean over layers and query heads: at most 1 over all units of a token.
    """

    start: int
    stop: int
    mass: float


@dataclass(frozen=True)
class Token:
    """One generated token, with the units that the step which chose it attended."""

    id: int
    units: list[UnitMass] = field(default_factory=list)


@dataclass(frozen=True)
class Stats:
    """Counts in tokens, units and bytes; seconds of wall time."""

    tokens_given: int
    tokens_read: int
    tokens_pending: int
    units: int
    cache_hits: int
    cache_misses: int
    device_bytes: int
    host_bytes: int
    disk_bytes: int
    seconds_reading: float
    seconds_generating: float


def unit_masses(uses: Iterable[UnitUse], block_size: int, shared: int) -> list[UnitMass]:
    """Units of `block_size` tokens with their mass, largest first; `shared`: layers times queries
    that the masses are of."""
    total: dict[int, float] = {}
    for use in uses:
        _, h, n = use.mass.shape
        by_group = use.mass.view(1, use.start.shape[1], -1, n).sum(dim=2) / h
        for start, mass in zip(
            use.start.flatten().tolist(), by_group.flatten().tolist(), strict=True
        ):
            total[start] = total.get(start, 0.0) + mass
    masses = [UnitMass(start, start + block_size, mass / shared) for start, mass in total.items()]
    return sorted(masses, key=lambda unit: -unit.mass)
