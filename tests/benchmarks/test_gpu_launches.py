"""What a layer launches on a GPU, counted without one: held below bounds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_launches.py"


@pytest.fixture(scope="module")
def counts() -> dict[str, Any]:
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--units", "700", "--repeats", "1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


@pytest.mark.parametrize(
    ("name", "launches", "nodes"), [("dot", 55, 8), ("mass", 430, 10), ("dot, exact", 140, 15)]
)
def test_launches_of_a_layer(counts: dict[str, Any], name: str, launches: int, nodes: int) -> None:
    """A chunk of 16 execution blocks, and a decode step, whatever the number of units."""
    chunk, step = counts[name]["chunk"], counts[name]["step"]
    assert chunk["launches"] <= launches, chunk
    assert step["nodes"] <= nodes, step


@pytest.mark.parametrize("name", ["dot", "mass", "dot, exact"])
def test_the_host_waits_once_a_layer_and_chunk_and_in_no_step(
    counts: dict[str, Any], name: str
) -> None:
    assert counts[name]["chunk"]["waits"] == {"tolist": 1}
    assert counts[name]["step"]["waits"] == {}


@pytest.mark.parametrize("name", ["dot", "mass", "dot, exact"])
def test_little_is_compiled_while_a_text_is_read(counts: dict[str, Any], name: str) -> None:
    """Sizes are no constants: what other lengths compile is for calls of few rows."""
    chunk = counts[name]["chunk"]
    assert chunk["compiled"] == 0
    assert sum(chunk["compiled_by_other_lengths"].values()) <= 2
