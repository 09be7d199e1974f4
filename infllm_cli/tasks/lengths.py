"""Lengths and depths as people write them: 32K, 1M, 0-100."""

import re

from infllm.cli.errors import UsageError

UNITS = {"": 1, "K": 1024, "M": 1024**2}


def parse_length(text: str) -> int:
    """`4096`, `32K`, `1M`, `1.5M` in tokens; K is 1,024 and M is 1,024 x 1,024.

    Raises:
        UsageError: not a length.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KM]?)", text.strip().replace("_", "").upper())
    if not match:
        raise UsageError(f"{text!r} is not a length", "write for example 4096, 32K or 1M")
    number = float(match[1]) * UNITS[match[2]]
    if number < 1:
        raise UsageError(f"a length of {text!r} has no tokens", "write for example 4096, 32K or 1M")
    return int(number)


def length_name(tokens: int) -> str:
    """The short form of a length: 32K, 1M, or the plain number."""
    for unit in ("M", "K"):
        if tokens % UNITS[unit] == 0:
            return f"{tokens // UNITS[unit]}{unit}"
    return f"{tokens:,}"


def parse_depths(text: str) -> list[float]:
    """`0,25,50` as percentages.

    Raises:
        UsageError: not numbers from 0 to 100.
    """
    depths = []
    for part in text.split(","):
        try:
            depth = float(part.strip().rstrip("%"))
        except ValueError:
            depth = -1.0
        if not 0 <= depth <= 100:
            raise UsageError(
                f"--depth {part.strip()!r} is not a percentage from 0 to 100",
                "write for example --depth 0,50,100",
            )
        depths.append(depth)
    return depths
