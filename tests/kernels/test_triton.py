"""The Triton kernels without a GPU: interpreted against their references, and compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.mark.parametrize("file", sorted(path.name for path in HERE.glob("test_triton_*.py")))
def test_interpreted_kernels_equal_their_references(file: str) -> None:
    """In a process of its own: kernels are made for the interpreter when they are loaded."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / file)],
        cwd=ROOT, env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_kernels_compile_for_every_card_without_spills() -> None:
    """The variants that stand for all of `make kernels-report`."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "infllm.kernels.report", "--quick"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("| kernel | sm_80 | sm_86 | sm_89 | sm_90 | sm_100 | sm_120 |")
