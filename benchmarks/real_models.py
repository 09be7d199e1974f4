"""Real models on this machine: reading and decoding speed, and perplexity along a book.

    pip install xllamacpp   # llama.cpp as a wheel, for its rows
    python benchmarks/real_models.py --model MODEL.gguf ... --text FOLDER \\
        --parts speed,perplexity,weights --output benchmarks/results/real_models.json

Speed: tokens a second of reading and of decoding behind 1K to 128K tokens, beside transformers'
own attention (`sdpa`, with the same dtype) and llama.cpp (with the same file and threads), each in
a process of its own. What is expected to take longer than `--bound` minutes is extrapolated from
the rows before it and marked `~`: reading as a n + b n^2, a step as a + b n; ours as its last rate.
The floor is the operations of reading over the rate of a matrix product of the model's own shapes.
Figures are by CPU time, which other work on the machine changes little: with one thread they are
those of an idle machine. Perplexity: along one text that no model here was tuned on, under inf-llm,
stream-lm and full attention to the trained length (16K at most); and of the last tokens alone, as
many as the trained length (`inf-llm@end`, `origin@end`), whose last bin is that of inf-llm along
all: what more text before does, and what full attention would have brought. Weights: of each form
of `--weights` its bytes, and the speed and perplexity of decode steps behind 1,024 tokens.

The report is written after each row; the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import environment
from real_models_rows import seconds_at

from infllm.cli.options import parse_setting
from infllm.cli.tasks.lengths import length_name, parse_length

RESULTS = Path(__file__).parent / "results"
ROWS = Path(__file__).with_name("real_models_rows.py")
METHODS = ("infllm", "sdpa", "llama.cpp")
FORMS = ("full", "packed", "int8", "int4")  # of weights
POLICIES = ("inf-llm", "stream-lm", "origin", "inf-llm@end", "origin@end")
FULL = 2**14  # tokens read under full attention at most
Row = dict[str, Any]


class Report:
    """Rows of one command's choices, on disk after each."""

    def __init__(self, path: Path, choices: Row) -> None:
        self._path, self._choices = path, choices
        self.rows: list[Row] = []
        if path.is_file():
            before = json.loads(path.read_text(encoding="utf-8"))
            if before["choices"] != choices:
                raise SystemExit(
                    f"{path} holds rows of other choices, {before['choices']}: give another "
                    "--output, or the same threads and settings"
                )
            self.rows = before["rows"]

    def add(self, row: Row) -> None:
        self.rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
        report = {
            "benchmark": "real_models", **environment(), "choices": self._choices,
            "rows": self.rows,
        }  # fmt: skip
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        part.replace(self._path)

    def of(self, **wanted: Any) -> list[Row]:
        return [r for r in self.rows if all(r.get(k) == v for k, v in wanted.items())]


def run(asked: Row) -> Iterator[Row]:
    """Rows of a fresh process, as they come; an error is the last row."""
    process = subprocess.Popen(
        [sys.executable, str(ROWS), json.dumps(asked)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    for line in process.stdout:
        if line.startswith("ROW "):
            yield json.loads(line.removeprefix("ROW "))
    error = process.stderr.read()
    if process.wait() != 0:
        yield {"error": error.strip()[-400:]}


def extrapolated(rows: list[Row], length: int, method: str) -> Row:
    """A row at `length` from the measured `rows` of a method."""
    row: Row = {"tokens": length, "extrapolated": True}
    for key in ("seconds", "cpu_seconds"):
        if method == "infllm":
            last, before = rows[-1], rows[-2] if len(rows) > 1 else {"tokens": 0, key: 0.0}
            rate = (last[key] - before[key]) / (last["tokens"] - before["tokens"])
            row[key] = round(last[key] + rate * (length - last["tokens"]), 1)
        else:
            row[key] = round(seconds_at(rows, length, key), 1)
    for key in ("step_seconds", "step_cpu_seconds"):
        row[key] = rows[-1][key]
        if method != "infllm" and len(rows) > 1:
            (m, s), (n, t) = ((one["tokens"], one[key]) for one in rows[-2:])
            row[key] = round(t + max(0.0, (t - s) / (n - m)) * (length - n), 5)
    return row


def measure_speed(report: Report, model: Path, given: argparse.Namespace, asked: Row) -> None:
    name = model.name
    if not report.of(model=name, part="ceilings"):
        for row in run({**asked, "method": "ceilings"}):
            report.add({"model": name, "part": "ceilings", **row})
    ceiling = report.of(model=name, part="ceilings")[-1]
    lengths = sorted(parse_length(x) for x in given.lengths.split(","))
    for method in given.methods.split(","):
        key = {"model": name, "part": "speed", "method": method}
        left = [n for n in lengths if not report.of(**key, tokens=n)]
        if not left:
            continue
        more = {"method": method, "lengths": left, "vocab": ceiling.get("vocab")}
        for row in run({**asked, **more}):
            if "operations" in row:
                floor = row["operations"] / ceiling["flops_per_cpu_second"]
                row["floor_cpu_seconds"] = round(floor, 3)
                row["of_floor"] = round(floor / row["cpu_seconds"], 3)
                moved = row["decode_bytes"] / ceiling["bytes_per_cpu_second"]
                row["step_floor_cpu_seconds"] = round(moved, 5)
            report.add({**key, **row})
        done = [r for r in report.of(**key) if "seconds" in r and "extrapolated" not in r]
        done.sort(key=lambda row: row["tokens"])
        for length in left:
            if done and not report.of(**key, tokens=length):
                report.add({**key, **extrapolated(done, length, method)})


def measure_perplexity(report: Report, model: Path, given: argparse.Namespace, asked: Row) -> None:
    text = chosen_text(given)
    if not report.of(model=model.name, part="ceilings"):
        for row in run({**asked, "method": "ceilings"}):
            report.add({"model": model.name, "part": "ceilings", **row})
    trained = report.of(model=model.name, part="ceilings")[-1].get("trained_length") or 2048
    total = parse_length(given.along)
    for policy in given.policies.split(","):
        key = {"model": model.name, "part": "perplexity", "policy": policy}
        if not report.of(**key):
            name, at_end, _ = policy.partition("@")
            tokens = min(total, trained) if at_end or name == "origin" else total
            tokens = min(tokens, FULL) if name == "origin" else tokens
            first = total - tokens if at_end else 0
            more = {"method": "perplexity", "policy": name, "first": first, "text": str(text),
                    "tokens": tokens}  # fmt: skip
            for row in run({**asked, **more}):
                report.add({**key, "trained_length": trained, **row})


def measure_weights(report: Report, model: Path, given: argparse.Namespace, asked: Row) -> None:
    text = chosen_text(given)
    for form in FORMS:
        key = {"model": model.name, "part": "weights", "form": form}
        if not report.of(**key):
            more = {"method": "weights", "form": form, "text": str(text),
                    "context": 1024, "tokens": given.steps}  # fmt: skip
            for row in run({**asked, **more}):
                report.add({**key, **row})


def chosen_text(given: argparse.Namespace) -> Path:
    """The book of `--text`, or the longest in that folder."""
    if given.text is None:
        raise SystemExit("these parts need --text: a book, or a folder of books")
    texts = sorted(given.text.glob("*.txt")) if given.text.is_dir() else [given.text]
    if not texts:
        raise SystemExit(f"no *.txt in {given.text}")
    return max(texts, key=lambda path: path.stat().st_size)


# ---- tables --------------------------------------------------------------------------------------


def speed_table(report: Report, model: str) -> str:
    """Tokens a CPU second: reading, then decoding, a column a method."""
    rows = [r for r in report.of(model=model, part="speed") if "cpu_seconds" in r]
    methods = [m for m in METHODS if any(r["method"] == m for r in rows)]
    names = ", ".join(methods)
    lines = [
        f"{model}: tokens a CPU second ({names})",
        "| tokens | " + " | ".join(f"reading, {m}" for m in methods) + " | of the floor | system | "
        + " | ".join(f"decoding, {m}" for m in methods) + " |",
        "|---" * (2 * len(methods) + 3) + "|",
    ]  # fmt: skip
    for length in sorted({r["tokens"] for r in rows}):
        at = {r["method"]: r for r in rows if r["tokens"] == length}
        own = at.get("infllm", {})
        reading = [_rate(at.get(m), length) for m in methods]
        decoding = [_rate(at.get(m), 1, "step_cpu_seconds") for m in methods]
        share = [f"{own[k]:.0%}" if k in own else "" for k in ("of_floor", "system_share")]
        lines.append("| " + " | ".join([length_name(length), *reading, *share, *decoding]) + " |")
    return "\n".join(lines)


def _rate(row: Row | None, tokens: int, key: str = "cpu_seconds") -> str:
    if row is None or not row.get(key):
        return ""
    mark = "~" if row.get("extrapolated") else ""
    return f"{mark}{tokens / row[key]:,.1f}"


def perplexity_table(report: Report, model: str) -> str:
    lines = []
    for row in report.of(model=model, part="perplexity"):
        if "error" in row:
            lines.append(f"{model}, {row['policy']}: failed: {row['error'][-80:]}")
            continue
        bins = " ".join(f"{nll:.3f}" for nll in row["nll_of_bins"])
        first = row.get("first")
        behind = f" behind {length_name(first)}" if first else ""
        lines.append(
            f"{model}, {row['policy']}, {length_name(row['tokens'])} of {row['text']}{behind}: "
            f"{row['perplexity']} ({bins} nats by {length_name(row['bin'])})"
        )
    return "\n".join(lines)


def weights_table(report: Report, model: str) -> str:
    rows = [r for r in report.of(model=model, part="weights") if "nll" in r]
    lines = [f"{model}: weights", "| form | MB | CPU ms a step | perplexity |", "|---|---|---|---|"]
    for row in rows:
        change = row["perplexity"] / rows[0]["perplexity"] - 1
        lines.append(
            f"| {row['form']} | {row['bytes'] / 1e6:,.0f} | {1e3 * row['step_cpu_seconds']:.1f} | "
            f"{row['perplexity']:.2f}, {change:+.1%} |"
        )
    return "\n".join(lines) if rows else ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="+", type=Path, required=True, metavar="FILE.gguf")
    parser.add_argument("--parts", default="speed,perplexity")
    parser.add_argument("--lengths", default="1K,4K,16K,64K,128K")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--text", type=Path, help="a book, or a folder: its longest *.txt is taken")
    parser.add_argument("--along", default="64K", help="tokens of it")
    parser.add_argument("--steps", type=int, default=512, help="decoded with each form of weights")
    parser.add_argument("--bound", type=float, default=20.0, help="minutes of one row")
    parser.add_argument("--generate", type=int, default=16, help="tokens decoded at each length")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--output", type=Path, default=RESULTS / "real_models.json")
    given = parser.parse_args()
    settings = dict(parse_setting(text) for text in given.set)
    choices = {"threads": given.threads, "generate": given.generate, "settings": settings}
    report = Report(given.output, choices)
    for model in given.model:
        if not model.is_file():
            raise SystemExit(f"no file {model}")
    parts = {"speed": measure_speed, "perplexity": measure_perplexity, "weights": measure_weights}
    wanted = given.parts.split(",")
    if unknown := sorted(set(wanted) - set(parts)):
        raise SystemExit(f"no part {unknown[0]}: {', '.join(parts)}")
    for model in given.model:
        for part in wanted:
            asked = {**choices, "model": str(model), "bound": 60 * given.bound}
            parts[part](report, model, given, asked)
    for model in given.model:
        name = model.name
        speed = speed_table(report, name) if report.of(model=name, part="speed") else ""
        tables = speed, perplexity_table(report, name), weights_table(report, name)
        print("\n\n".join(filter(None, tables)))


if __name__ == "__main__":
    main()
