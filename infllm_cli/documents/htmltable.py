"""The columns of a table while its rows are written."""

from __future__ import annotations

from dataclasses import dataclass, field

from infllm.cli.documents.htmlfields import Attributes
from infllm.cli.documents.htmlstyle import integer

SPANNED = 50  # columns or rows that a cell spans, at most


@dataclass
class Table:
    """``counts_empty``: a table of data, in which every cell has its place in the row."""

    counts_empty: bool
    column: int = 0
    due: int = 0  # columns that the last cell spans beside its own
    carried: dict[int, int] = field(default_factory=dict)  # rows to come that a column's cell spans

    def start_row(self) -> None:
        self.column = self.due = 0

    def cell(self, attributes: Attributes) -> int:
        """How many separators stand before the next cell of the row."""
        before = self.due + (self.column > 0)
        self.column += self.due
        while self.carried.get(self.column):
            before += 1
            self.column += 1
        width = max(1, min(integer(attributes.get("colspan")) or 1, SPANNED))
        rows = integer(attributes.get("rowspan"))
        height = SPANNED if rows == 0 else max(1, min(rows or 1, SPANNED))
        if height > 1:
            for column in range(self.column, self.column + width):
                self.carried[column] = height
        self.column += 1
        self.due = width - 1
        return before

    def end_row(self) -> None:
        self.carried = {column: rows - 1 for column, rows in self.carried.items() if rows > 1}
