"""Which parts of a document an answer looked up, drawn as a strip over it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from infllm.cli.text import one_line

if TYPE_CHECKING:
    from infllm.engine.session import UnitMass

SHADES = " ░▒▓█"
ASCII_SHADES = " .:*#"
ROWS = 24
LABEL = 14  # cells of a terminal


def strips(steps: Sequence[Sequence["UnitMass"]], tokens: int, columns: int) -> list[list[float]]:
    """For each step the attention that each of `columns` equal parts of a document of `tokens`
    tokens received: rows of masses; a row of a step without a lookup is all zero."""
    rows = []
    for units in steps:
        row = [0.0] * columns
        for unit in units:
            middle = (unit.start + unit.stop) / 2
            row[min(columns - 1, max(0, int(middle * columns / max(1, tokens))))] += unit.mass
        rows.append(row)
    return rows


def draw_strip(
    looked: Sequence["UnitMass"],
    steps: Sequence[Sequence["UnitMass"]],
    pieces: Sequence[str],
    tokens: int,
    width: int,
    shades: str = SHADES,
) -> list[str]:
    """Lines of at most `width` cells of a terminal: the question, then the answer's tokens from
    the top down, the document from left to right; darker is more attention."""
    from rich.cells import set_cell_size

    columns = max(8, width - LABEL - 3)
    groups = _groups(list(zip(pieces, steps, strict=True)), ROWS)
    rows = strips([looked], tokens, columns)
    labels = ["question"]
    for group in groups:
        parts = strips([units for _, units in group], tokens, columns)
        rows.append([sum(values) for values in zip(*parts, strict=True)])
        labels.append(one_line("".join(piece for piece, _ in group)))
    lines = [_line("", f"0{f'{tokens:,} tokens':>{columns - 1}}")]
    for label, row in zip(labels, rows, strict=True):
        most = max(row) or 1.0
        cells = "".join(shades[-(-int(value / most * 4 * 16) // 16)] for value in row)
        lines.append(_line(label, f"|{cells}|"))
    return [set_cell_size(line, width).rstrip() for line in lines]


def _line(label: str, rest: str) -> str:
    from rich.cells import cell_len, set_cell_size

    cut = label if cell_len(label) <= LABEL else set_cell_size(label, LABEL - 1) + "~"
    return f"{set_cell_size(cut, LABEL)} {rest}"


def _groups(items: list, most: int) -> list[list]:
    """Neighbours together, at most `most` groups."""
    size = -(-len(items) // most) if items else 1
    return [items[i : i + size] for i in range(0, len(items), size)]
