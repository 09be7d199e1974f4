"""The GPU benchmark's figures: written after every row, printed as tables at the end."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infllm.cli.tables import Table
from infllm.cli.tasks.lengths import length_name
from infllm.engine.errors import EngineError

FAILURES = (EngineError, RuntimeError, ValueError)  # out of memory, a backend that is not there
ROWS = {"kernels": 0.15, "dot": 0.35, "mass": 0.6, "dense": 1.0}  # share of the time then left


def failure(error: Exception) -> dict[str, Any]:
    return {"error": f"{type(error).__name__}: {error}"[:300]}


class Report:
    """The figures so far, written to a file after every row."""

    def __init__(self, path: Path, head: dict[str, Any], deadline: float) -> None:
        self.path = path
        self.head = head
        self.rows: list[dict[str, Any]] = []
        self._deadline = deadline
        self.write()

    @property
    def seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    def deadline(self, part: str) -> float:
        """When a part must have ended, of `time.monotonic`."""
        return time.monotonic() + ROWS[part] * max(0.0, self.seconds_left)

    def row(self, part: str, name: str, fields: dict[str, Any]) -> None:
        self.rows.append({"part": part, "name": name, **fields})
        print(json.dumps(self.rows[-1]), file=sys.stderr, flush=True)
        self.write()

    def attempt(self, part: str, name: str, run: Callable[[], dict[str, Any]]) -> None:
        """A row of what `run` gives, or of why it gives nothing: the others go on."""
        if self.seconds_left <= 0:
            self.row(part, name, {"skipped": "no time left"})
            return
        try:
            self.row(part, name, run())
        except FAILURES as error:
            self.row(part, name, failure(error))

    def as_dict(self) -> dict[str, Any]:
        return {"benchmark": "gpu_long_context", **self.head, "rows": self.rows}

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".part")
        draft.write_text(json.dumps(self.as_dict(), indent=1) + "\n")
        os.replace(draft, self.path)


def tables(report: Report) -> str:
    """What was measured, a table a part."""
    blocks = [
        f"{report.head['shape']} in {report.head['dtype']} on {report.head['device']}: "
        f"a large product reaches {report.head['ceilings']['matmul'] / 1e12:.4g} TFLOP/s, "
        f"a large copy {report.head['ceilings']['copy'] / 1e9:.4g} GB/s"
    ]
    kernels = Table(["kernel", "ms", "TFLOP/s", "GB/s", "of floor"])
    reading = Table(
        ["policy", "tokens", "read s", "floor s", "tok/s", "decode tok/s", "floor", "peak GiB",
         "linear", "attention", "scoring", "copies", "other", "idle"]
    )  # fmt: skip
    dense = Table(["dense", "tokens", "read s", "tok/s", "of floor"])
    for row in report.rows:
        told = row.get("error") or row.get("skipped")
        if row["part"] == "kernels":
            kernels.rows.append(
                [row["name"], *([told, "", "", ""] if told else [
                    f"{row['seconds'] * 1e3:.4g}", f"{row['tflops']:.4g}",
                    f"{row['gb_per_second']:.4g}", f"{row['of_floor']:.0%}",
                ])]
            )  # fmt: skip
        elif row["part"] == "prefill":
            reading.rows.append([row["name"], *([told, *[""] * 12] if told else _reading(row))])
        else:
            dense.rows.append(
                [row["name"], *([told, "", "", ""] if told else [
                    length_name(row["tokens"]), f"{row['seconds']:,.3f}",
                    f"{row['tokens_per_second']:,.0f}", f"{row['of_floor']:.0%}",
                ])]
            )  # fmt: skip
    return "\n\n".join(blocks + [t.plain() for t in (kernels, reading, dense) if t.rows])


def _reading(row: dict[str, Any]) -> list[str]:
    """Cells of a reading: rates, memory, and shares of a chunk's wall time."""
    floors, split = row["floors"], row["chunk_split"]
    floor = floors["linear"] + floors["attention"] + floors["mass"] + floors["scoring"]
    rate = row["decode_tokens_per_second"]
    kinds = ("linear", "attention", "scoring", "copies", "other", "idle")
    return [
        length_name(row["tokens"]), f"{row['seconds']:,.3f}", f"{floor:,.3f}",
        f"{row['tokens_per_second']:,.0f}",
        "-" if rate is None else f"{rate:,.1f}",
        "-" if rate is None else f"{1 / floors['decode']:,.1f}",
        f"{row['peak_bytes_above_model'] / 2**30:.2f}",
        *(f"{split[kind] / split['wall']:.0%}" if kind in split else "-" for kind in kinds),
    ]  # fmt: skip
