"""Tables: drawn by rich on a terminal, aligned text off it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from infllm.cli.output import Output
from infllm.cli.text import one_line


@dataclass(frozen=True)
class Table:
    """Rows of cells under headers. `text_columns` are aligned left, all others right.

    The first `whole_columns` are not wrapped on a narrow terminal as long as others can be.
    """

    headers: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    text_columns: int = 1
    whole_columns: int = 0

    def plain(self) -> str:
        """Columns two spaces apart, without rules: what scripts and diffs like."""
        lines = [[one_line(cell) for cell in row] for row in [self.headers, *self.rows]]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if i < self.text_columns else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in lines
        )

    def show(self, out: Output) -> None:
        """On stdout; nothing when JSON was asked for."""
        if out.as_json:
            return
        if not sys.stdout.isatty():
            out.line(self.plain())
            return
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=SIMPLE_HEAD, pad_edge=False)
        for i, header in enumerate(self.headers):
            left = i < self.text_columns
            table.add_column(
                Text(header),
                justify="left" if left else "right",
                overflow="fold",
                no_wrap=i < self.whole_columns,
            )
        for row in self.rows:
            table.add_row(*(Text(one_line(cell)) for cell in row))
        Console().print(table)
