"""What a session gives: generated tokens, what they attended, and counts."""

from __future__ import annotations

from dataclasses import dataclass, field


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
