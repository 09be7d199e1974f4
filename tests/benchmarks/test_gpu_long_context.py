"""The GPU benchmark, rehearsed as a whole at toy size in Triton's interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_long_context.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False
    )


def test_rehearsal(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    file = tmp_path / "toy.json"
    done = run("--shape", "toy", "--device", "cpu", "--output", str(file))
    assert done.returncode == 0, done.stderr
    report = json.loads(file.read_text())
    assert json.loads(done.stdout.splitlines()[-1]) == report
    assert not list(tmp_path.glob("*.part"))
    assert report["ceilings"]["matmul"] > 0
    assert {"torch", "triton", "command", "settings", "model"} <= set(report)
    rows = report["rows"]
    assert not [row for row in rows if "error" in row or "skipped" in row]

    kernels = [row for row in rows if row["part"] == "kernels"]
    names = {row["name"] for row in kernels}
    assert {"block", "block with mass", "decode step", "unit scores", "top units"} <= names
    for row in kernels:
        assert row["seconds"] >= row["floor_seconds"] > 0

    readings = [row for row in rows if row["part"] == "prefill"]
    assert [(row["name"], row["tokens"]) for row in readings] == [
        ("inf-llm dot", 64), ("inf-llm dot", 128), ("inf-llm mass", 64), ("inf-llm mass", 128),
    ]  # fmt: skip
    for row in readings:
        assert row["tokens"] / row["seconds"] == pytest.approx(row["tokens_per_second"], rel=0.01)
        assert row["decode_tokens_per_second"] > 0
        assert row["peak_bytes"] > 0
        assert set(row["floors"]) == {"linear", "attention", "mass", "scoring", "decode"}
        assert row["chunk_split"]["linear"] > 0
        assert row["decode_split"]["wall"] > 0
    assert readings[0]["floors"]["mass"] == 0 < readings[2]["floors"]["mass"]
    assert readings[1]["cache_misses"] > 0

    whole, layer = (row for row in rows if row["part"] == "dense")
    assert (whole["name"], whole["tokens"]) == ("whole model", 64)
    assert (layer["tokens"], layer["one_layer_times_layers"]) == (128, 2)
    once = layer["layer_attention_seconds"] + layer["layer_linear_seconds"]
    assert layer["seconds"] == pytest.approx(2 * once, abs=1e-4)
    assert "whole model" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--shape", "toy", "--parts", "all"], "'all' is none of kernels, prefill, decode, dense"),
        (["--shape", "1b", "--device", "cpu"], "--shape toy"),
    ],
)
def test_wrong_usage(arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert words in done.stderr


def test_time_that_runs_out_is_said(tmp_path: Path) -> None:
    file = tmp_path / "toy.json"
    done = run("--shape", "toy", "--device", "cpu", "--minutes", "0", "--output", str(file))
    assert done.returncode == 0, done.stderr
    rows = json.loads(file.read_text())["rows"]
    assert rows
    assert all(row["skipped"] == "no time left" for row in rows)
