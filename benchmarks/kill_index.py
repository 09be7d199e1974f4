"""Is a memory ever lost? `infllm index` killed at random moments, then given again.

    python benchmarks/kill_index.py --source BOOK --times 10

Each time the command is killed (SIGKILL) at a random moment of its run, what is on the disk is
checked, and the same command is run to its end: its files must be those of a run that nobody
killed, byte for byte.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from common import environment
from kills import contents, infllm, parser, tell, write_report

from infllm.engine import verify
from infllm.engine.errors import MemoryFileError

NO_PART = ("lock", "reading.json")  # of the memory: the writer's lock, and how long reading took


def index(source: Path, folder: Path, *more: str) -> list[str]:
    return infllm("index", str(source), "-o", str(folder), *more)


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
    flags = parser(__doc__)
    flags.add_argument("--source", type=Path, required=True)
    args = flags.parse_args()
    rng = random.Random(args.seed)
    place = Path(tempfile.mkdtemp())
    runs = []
    try:
        began = time.monotonic()
        subprocess.run(index(args.source, place / "whole", "-q"), check=True)
        whole_seconds = time.monotonic() - began
        wanted = contents(place / "whole", NO_PART)
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
                    "same_bytes": contents(folder, NO_PART) == wanted,
                }
            )  # fmt: skip
            tell(runs[-1])
            shutil.rmtree(folder)
    finally:
        shutil.rmtree(place)
    report = {
        "benchmark": "kill_index", **environment(), "undisturbed_seconds": round(whole_seconds, 2),
        "same_bytes": sum(run["same_bytes"] for run in runs), "of": len(runs), "runs": runs,
    }  # fmt: skip
    write_report(report, args.output)


if __name__ == "__main__":
    main()
