"""How long `infllm --help` takes beside a bare interpreter and beside importing typer alone.

    python benchmarks/startup.py

Processor seconds of fresh processes, one of each kind in turn; medians, and the median of the
ratios taken round by round, so that other work on the machine hits all kinds alike.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

RUNS = 20


def processor_seconds(command: list[str]) -> float:
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])


def main() -> None:
    commands = {
        "help": [str(Path(sys.executable).parent / "infllm"), "--help"],
        "typer": [sys.executable, "-c", "import typer"],
        "python": [sys.executable, "-c", "pass"],
    }
    rounds = [
        {name: processor_seconds(command) for name, command in commands.items()}
        for _ in range(RUNS + 1)
    ][1:]  # the first warms the file cache
    figures: dict[str, object] = {"benchmark": "startup", "runs": RUNS}
    for name in commands:
        figures[f"{name}_seconds"] = round(statistics.median(one[name] for one in rounds), 3)
    ratio = statistics.median(one["help"] / one["typer"] for one in rounds)
    figures["help_by_typer"] = round(ratio, 2)
    print(
        f"infllm --help: {figures['help_seconds']} s of processor time, "
        f"importing typer: {figures['typer_seconds']} s, "
        f"bare python: {figures['python_seconds']} s; help / typer: {ratio:.2f}"
    )
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
