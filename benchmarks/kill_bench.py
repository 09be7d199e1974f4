"""Is a result ever lost, or another for it? `infllm bench run` killed, and with two workers.

    python benchmarks/kill_bench.py --times 10

Each time the command is killed (SIGKILL, with all its children) at a random moment of its run and
then given again: its files must be those of a run that nobody killed, byte for byte, and no result
that was on the disk may be made twice. The same is asked of a run with two workers, and of one
that is killed with two and gone on with one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from common import environment
from kills import contents, infllm, parser, tell, write_report

TASKS = ["ruler:niah_single_1,niah_multikey_2", "local:passkey,kv"]
NO_PART = ("lock", "timings.jsonl")  # of the results: they differ from run to run


def bench(folder: Path, args: argparse.Namespace, *more: str) -> list[str]:
    return infllm(
        "bench", "run", *TASKS, "--len", args.length, "--samples", str(args.samples),
        "--policy", "inf-llm,stream-lm", "--output", str(folder), *more,
    )  # fmt: skip


def whole_lines(folder: Path) -> int:
    """Results that are on the disk."""
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("*/*.jsonl"))


def killed(command: list[str], folder: Path, results: int, after: float) -> None:
    """Run a command in a session of its own, and kill all of it so many seconds after so many
    results are on the disk: by results, since a busy machine makes times mean nothing."""
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    while process.poll() is None and whole_lines(folder) < results:
        time.sleep(0.01)
    time.sleep(after)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def finished(command: list[str]) -> tuple[dict[str, int], float]:
    """Run a command to its end: its counts, and its seconds."""
    began = time.monotonic()
    done = subprocess.run([*command, "--json"], check=True, capture_output=True, text=True)
    fields = json.loads(done.stdout)
    return {key: fields[key] for key in ("made", "kept")}, time.monotonic() - began


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--length", default="2K")
    flags.add_argument("--samples", type=int, default=5)
    args = flags.parse_args()
    rng = random.Random(args.seed)
    place = Path(tempfile.mkdtemp())
    runs = []
    try:
        counts, whole_seconds = finished(bench(place / "whole", args))
        wanted = contents(place / "whole", NO_PART)
        total = counts["made"]
        for number in range(args.times):
            folder = place / f"killed-{number}"
            workers = [1, 1] if number < args.times - 1 else [2, 1]
            results, after = rng.randrange(total), rng.uniform(0, 0.5)
            killed(bench(folder, args, "--workers", str(workers[0])), folder, results, after)
            left = whole_lines(folder)
            counts, _ = finished(bench(folder, args, "--workers", str(workers[1])))
            runs.append(
                {
                    "killed_at_result": results, "and_seconds": round(after, 2), "workers": workers,
                    "left": left, **counts,
                    "nothing_twice": counts["kept"] == left and counts["made"] == total - left,
                    "same_bytes": contents(folder, NO_PART) == wanted,
                }
            )  # fmt: skip
            tell(runs[-1])
            shutil.rmtree(folder)
        two, seconds = finished(bench(place / "two", args, "--workers", "2"))
        same_of_two = contents(place / "two", NO_PART) == wanted
    finally:
        shutil.rmtree(place)
    report = {
        "benchmark": "kill_bench", **environment(), "results": total,
        "undisturbed_seconds": round(whole_seconds, 2),
        "same_bytes": sum(run["same_bytes"] for run in runs),
        "nothing_twice": sum(run["nothing_twice"] for run in runs), "of": len(runs),
        "two_workers": {**two, "seconds": round(seconds, 2), "same_bytes": same_of_two},
        "runs": runs,
    }  # fmt: skip
    write_report(report, args.output)


if __name__ == "__main__":
    main()
