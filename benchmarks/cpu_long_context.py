"""Reading speed and memory of every memory policy on a CPU, beside transformers' own attention.

Each row runs in a process of its own, so that its peak memory is its own; the figure of a policy
divided by that of `sdpa` at the same length is the ratio to look at, since machines differ.

    python benchmarks/cpu_long_context.py --lengths 4K,8K,32K,128K,1M
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import environment

from infllm.cli.tasks.lengths import parse_length

METHODS: dict[str, dict[str, Any]] = {
    "inf-llm mass": {"type": "inf-llm", "repr_score": "mass"},
    "inf-llm dot": {"type": "inf-llm", "repr_score": "dot"},
    "stream-lm": {"type": "stream-lm"},
    "infinite-lm": {"type": "infinite-lm"},
    "sdpa": {},
}
RESULTS = Path(__file__).parent / "results"


def measure(method: str, length: int, preset: str) -> dict[str, Any]:
    """Read `length` random tokens and report seconds and peak resident bytes of this process."""
    import torch
    import transformers

    from infllm.engine import load

    torch.manual_seed(0)
    row: dict[str, Any] = {"method": method, "tokens": length}
    if method == "sdpa":
        with load(preset) as engine:  # what the engine would run: the same path and dtype
            path, dtype = engine.config.model.path, engine.dtype
        model = transformers.AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, attn_implementation="sdpa"
        ).eval()
        ids = torch.randint(3, model.config.vocab_size, (1, length))
        with torch.no_grad():
            model(ids[:, :1024], logits_to_keep=1)  # warm-up
            base = _resident()
            began, used = time.perf_counter(), time.process_time()
            model(ids, logits_to_keep=1)
            row["seconds"] = time.perf_counter() - began
            row["cpu_seconds"] = round(time.process_time() - used, 3)
    else:
        engine = load(preset)
        ids = torch.randint(3, engine.vocab_size, (length,)).tolist()
        warm = engine.session(overrides=METHODS[method])
        warm.read(ids[:2048])
        warm.end()
        base = _resident()
        session = engine.session(overrides=METHODS[method])
        began, used = time.perf_counter(), time.process_time()
        session.read(ids[: length // 2])
        half = time.perf_counter()
        session.read(ids[length // 2 :])
        session.end()
        row["seconds"] = time.perf_counter() - began
        row["cpu_seconds"] = round(time.process_time() - used, 3)
        row["tokens_per_second_second_half"] = round(
            (length - length // 2) / (time.perf_counter() - half), 1
        )
        stats = session.stats
        row["host_bytes"], row["device_bytes"] = stats.host_bytes, stats.device_bytes
    row["dtype"] = str(engine.dtype).removeprefix("torch.")
    row["seconds"] = round(row["seconds"], 3)
    row["tokens_per_second"] = round(length / row["seconds"], 1)
    row["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    row["peak_bytes_above_model"] = max(0, row["peak_bytes"] - base)
    return row


def _resident() -> int:
    """Resident bytes of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def run_row(method: str, length: int, preset: str) -> dict[str, Any]:
    """`measure` in a fresh process."""
    command = [sys.executable, __file__, "--row", method, str(length), "--preset", preset]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    if out.returncode != 0:
        return {"method": method, "tokens": length, "error": out.stderr.strip()[-400:]}
    return json.loads(out.stdout.splitlines()[-1])


def extrapolated(rows: list[dict[str, Any]], length: int) -> dict[str, Any] | None:
    """SDPA's seconds at `length` from its two longest runs: a n + b n^2 through both."""
    seen = sorted(
        (r["tokens"], r["seconds"]) for r in rows if r["method"] == "sdpa" and "seconds" in r
    )
    if len(seen) < 2:
        return None
    (n1, s1), (n2, s2) = seen[-2:]
    b = (s2 / n2 - s1 / n1) / (n2 - n1)
    a = s1 / n1 - b * n1
    seconds = a * length + b * length**2
    return {
        "method": "sdpa", "tokens": length, "seconds": round(seconds, 1), "extrapolated": True,
        "tokens_per_second": round(length / seconds, 1),
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a row a length, a column a method, each with tokens/s, ratio to sdpa, peak GiB."""
    methods = list(METHODS)
    by = {(r["method"], r["tokens"]): r for r in rows}
    lines = ["| tokens | " + " | ".join(methods) + " |", "|---|" + "---|" * len(methods)]
    for length in sorted({r["tokens"] for r in rows}):
        cells = []
        base = by.get(("sdpa", length), {}).get("tokens_per_second")
        for method in methods:
            cells.append(_cell(by.get((method, length)), base))
        lines.append(f"| {length:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(row: dict[str, Any] | None, base: float | None) -> str:
    if row is None:
        return ""
    if "error" in row:
        return "failed"
    text = f"{row['tokens_per_second']:,.0f} tok/s"
    if row.get("extrapolated"):
        return text + " (extrapolated)"
    if base:
        text += f", x{row['tokens_per_second'] / base:.2f}"
    return text + f", {row['peak_bytes'] / 2**30:.2f} GiB"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--lengths", default="4K,8K,32K,128K,1M")
    parser.add_argument("--sdpa-to", default="128K", help="longest length that sdpa is run at")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--preset", default="pocket")
    parser.add_argument("--output", type=Path, default=RESULTS / "cpu_long_context.json")
    parser.add_argument("--row", nargs=2, metavar=("METHOD", "TOKENS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        print(json.dumps(measure(args.row[0], int(args.row[1]), args.preset)))
        return
    methods, lengths = args.methods.split(","), [*map(parse_length, args.lengths.split(","))]
    if unknown := [one for one in methods if one not in METHODS]:
        parser.error(f"--methods: no {unknown[0]!r}; there are {', '.join(METHODS)}")
    rows: list[dict[str, Any]] = []
    for length in lengths:
        for method in methods:
            if method == "sdpa" and length > parse_length(args.sdpa_to):
                row = extrapolated(rows, length)
            else:
                row = run_row(method, length, args.preset)
            if row is None:
                continue
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
            args.output.parent.mkdir(parents=True, exist_ok=True)
            report = {"benchmark": "cpu_long_context", **environment(), "rows": rows}
            args.output.write_text(json.dumps(report, indent=1) + "\n")
    print(table(rows))
    print(json.dumps({"benchmark": "cpu_long_context", **environment(), "rows": rows}))


if __name__ == "__main__":
    main()
