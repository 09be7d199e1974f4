"""Parts of a memory unit, each with moments of its own. Needs no torch."""

PARTS = 4  # of a unit at most


def parts_of(block: int) -> int:
    """Parts of a unit of `block` keys: as many as may be, all alike."""
    return next(n for n in range(PARTS, 0, -1) if block % n == 0)
