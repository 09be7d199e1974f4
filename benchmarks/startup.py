"""Seconds until `infllm --help` is done: median of 10 fresh processes, beside a bare interpreter.

python benchmarks/startup.py
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 10


def seconds(command: list[str]) -> float:
    """Median wall time of `command` over RUNS runs, after one to warm the file cache."""
    taken = []
    for _ in range(RUNS + 1):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


def main() -> None:
    infllm = str(Path(sys.executable).parent / "infllm")
    figures = {
        "benchmark": "startup",
        "help_seconds": round(seconds([infllm, "--help"]), 3),
        "python_seconds": round(seconds([sys.executable, "-c", "pass"]), 3),
        "runs": RUNS,
    }
    print(f"infllm --help: {figures['help_seconds']} s, bare python: {figures['python_seconds']} s")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
