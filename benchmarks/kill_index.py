"""Is a memory ever lost? `infllm index` killed at random moments, then given again.

    python benchmarks/kill_index.py --source BOOK --times 10

Each time the command is killed (SIGKILL) at a random moment of its run, what is on the disk is
checked, and the same command is run to its end: its files must be those of a run that nobody
killed, byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import environment

from infllm.engine import verify
from infllm.engine.errors import MemoryFileError

NO_PART = ("lock", "reading.json")  # of the memory: the writer's lock, and how long reading took


def index(source: Path, folder: Path, *more: str) -> list[str]:
    program = [sys.executable, "-c", "from infllm.cli.main import main; main()"]
    return [*program, "index", str(source), "-o", str(folder), *more]


def contents(folder: Path) -> dict[str, str]:
    """Name and SHA-256 of every file of a memory."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.name not in NO_PART
    }


def state(folder: Path) -> str:
    """What a killed run left: nothing, or a checkpoint or memory without fault."""
    try:
        verify(folder)
    except MemoryFileError as error:
        if error.reason == "missing":
            return "nothing yet"
        raise
    complete = json.loads((folder / "manifest.json").read_text())["complete"]
    return "whole" if complete else "a checkpoint"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    place = Path(tempfile.mkdtemp())
    runs = []
    try:
        began = time.monotonic()
        subprocess.run(index(args.source, place / "whole", "-q"), check=True)
        whole_seconds = time.monotonic() - began
        wanted = contents(place / "whole")
        for number in range(args.times):
            folder = place / f"killed-{number}"
            process = subprocess.Popen(index(args.source, folder, "-q"))
            after = rng.uniform(0.3, 1.0) * whole_seconds
            try:
                process.wait(after)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            left = state(folder)
            done = subprocess.run(
                index(args.source, folder), check=True, capture_output=True, text=True
            )
            went_on = "going on at token" in done.stderr
            runs.append(
                {
                    "killed_after_s": round(after, 2), "left": left, "went_on": went_on,
                    "same_bytes": contents(folder) == wanted,
                }
            )  # fmt: skip
            print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
            shutil.rmtree(folder)
    finally:
        shutil.rmtree(place)
    report = {
        "benchmark": "kill_index", **environment(), "undisturbed_seconds": round(whole_seconds, 2),
        "same_bytes": sum(run["same_bytes"] for run in runs), "of": len(runs), "runs": runs,
    }  # fmt: skip
    if args.output:
        args.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
