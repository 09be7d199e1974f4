"""A report as tables for the terminal, Markdown and CSV, and as JSON."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from infllm.cli.bench.report import Cell, Report
from infllm.cli.bench.statistics import Mean
from infllm.cli.tables import Table
from infllm.cli.tasks.lengths import length_name
from infllm.cli.text import count, one_line

if TYPE_CHECKING:
    from infllm.cli.bench.suites import Published


def tables(
    report: Report, baseline: str | None, published: Sequence[tuple[str, "Published"]]
) -> dict[str, Table]:
    """Tables by their titles; those that would be empty are left out.

    Raises UsageError as `Report.differences`.
    """
    scoring = "" if report.scoring == "corrected" else f", {report.scoring} scoring"
    found = {
        f"Score in %, with its 95% interval{scoring}": score_table(report),
        "Score in %, and seconds a question, by length in tokens": length_table(report),
        **_differences(report, baseline),
        "Samples": sample_table(report),
        "Published by others, theirs and not measured here, in %": published_table(published),
    }
    return {title: table for title, table in found.items() if table.rows}


def score_table(report: Report) -> Table:
    """A row a task, a column a method; suites of several tasks end in their mean."""
    table = Table(["task", *report.methods], whole_columns=1)
    for suite in report.suites:
        names = report.of_suite(suite)
        for task in names:
            cells = [report.cells.get((task, method)) for method in report.methods]
            table.rows.append([task, *(mean_text(cell.mean if cell else None) for cell in cells)])
        if len(names) > 1:
            means = [report.suite_mean(suite, method) for method in report.methods]
            table.rows.append([f"{suite}, mean of {len(names)}", *map(mean_text, means)])
    return table


def length_table(report: Report) -> Table:
    """A row a task and method, two columns a length: score, and seconds where they are known."""
    cells = list(_ordered(report))
    lengths = sorted({n for cell in cells for n in cell.by_length})
    timed = [n for n in lengths if any(cell.seconds(n) is not None for cell in cells)]
    names = [*map(length_name, lengths), *(f"{length_name(n)}, s" for n in timed)]
    table = Table(["task", "method", *names], text_columns=2)
    for cell in cells:
        if cell.by_length:
            shares = [cell.by_length.get(n) for n in lengths]
            scores = [_percent(m.mean) if m else "-" for m in shares]
            times = [_seconds(cell.seconds(n)) for n in timed]
            table.rows.append([cell.task, cell.method, *scores, *times])
    return table


def _differences(report: Report, baseline: str | None) -> dict[str, Table]:
    """A row a task and method; positive where the method is better than the baseline."""
    table = Table(["task", "method", "difference", "interval", "samples"], [], 2, 1)
    differences = report.differences(baseline)
    for difference in differences:
        mean = difference.mean
        interval = f"{_points(mean.low)} to {_points(mean.high)}"
        numbers = [_points(mean.mean), interval, count(mean.n)]
        table.rows.append([difference.task, difference.method, *numbers])
    against = differences[0].baseline if differences else ""
    return {f"Difference to {against} in points, sample by sample, with its 95% interval": table}


def sample_table(report: Report) -> Table:
    """What the scores rest on: samples, failures, truncation, tokens; and seconds a question,
    where they are known."""
    timed = any(cell.seconds() is not None for cell in report.cells.values())
    names = ["task", "method", "scored", "failed", "truncated", "given", "read"]
    table = Table([*names, *(["s a question"] if timed else [])], [], 2, 1)
    for cell in _ordered(report):
        numbers = [len(cell.samples), cell.failed, cell.truncated]
        numbers += [cell.tokens_given, cell.tokens_read]
        took = [_seconds(cell.seconds())] if timed else []
        table.rows.append([cell.task, cell.method, *map(count, numbers), *took])
    return table


def published_table(published: Sequence[tuple[str, "Published"]]) -> Table:
    """Figures of others for the same tasks, with their source."""
    table = Table(["task", "method", "model", "source", "score"], text_columns=4)
    for task, figure in published:
        score = f"{figure.score:.1f}"
        table.rows.append([task, figure.method, figure.model, figure.source, score])
    return table


def markdown(found: dict[str, Table]) -> str:
    """Tables as Markdown, each under its title."""
    parts = []
    for title, table in found.items():
        left = table.text_columns
        rule = [":--" if i < left else "--:" for i in range(len(table.headers))]
        rows = [table.headers, rule, *table.rows]
        lines = ["| " + " | ".join(map(_cell_text, row)) + " |" for row in rows]
        parts.append("\n".join([f"**{title}**", "", *lines]))
    return "\n\n".join(parts) + "\n"


CSV_COLUMNS = (
    "task", "method", "length", "score", "low", "high", "scored", "failed", "truncated",
    "tokens_given", "tokens_read", "seconds_a_question",
)  # fmt: skip


def as_csv(report: Report) -> str:
    """A line a task and method over all lengths, followed by a line for each length.

    Scores are from 0 to 1. What is known of all lengths together alone is empty in the others.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for cell in _ordered(report):
        whole = [len(cell.samples), cell.failed, cell.truncated, cell.tokens_given]
        mean = cell.mean
        numbers = [mean.mean, mean.low, mean.high] if mean else ["", "", ""]
        took = _decimals(cell.seconds())
        writer.writerow([cell.task, cell.method, "all", *numbers, *whole, cell.tokens_read, took])
        for length, part in cell.by_length.items():
            numbers = [part.mean, part.low, part.high, part.n]
            took = _decimals(cell.seconds(length))
            writer.writerow([cell.task, cell.method, length, *numbers, "", "", "", "", took])
    return text.getvalue()


def as_fields(
    report: Report, baseline: str | None, published: Sequence[tuple[str, "Published"]]
) -> dict[str, Any]:
    """The report as JSON; scores are from 0 to 1, the published ones as they were published."""
    return {
        "scoring": report.scoring,
        "methods": report.methods,
        "results": [
            {
                "task": cell.task,
                "method": cell.method,
                "score": asdict(cell.mean) if cell.mean else None,
                "by_length": {str(n): asdict(mean) for n, mean in cell.by_length.items()},
                "scored": len(cell.samples),
                "failed": cell.failed,
                "truncated": cell.truncated,
                "tokens_given": cell.tokens_given,
                "tokens_read": cell.tokens_read,
                "seconds_a_question": cell.seconds(),
                "seconds_by_length": {str(n): cell.seconds(n) for n in cell.by_length},
            }
            for cell in _ordered(report)
        ],
        "suites": {
            suite: {
                method: asdict(mean)
                for method in report.methods
                if (mean := report.suite_mean(suite, method)) is not None
            }
            for suite in report.suites
        },
        "differences": [asdict(difference) for difference in report.differences(baseline)],
        "failures": report.failures,
        "not_comparable": report.unlike,
        "published": [{"task": task, **figure.model_dump()} for task, figure in published],
    }


def mean_text(mean: Mean | None) -> str:
    """`80.0 (60.0-95.0)`, in percent."""
    if mean is None:
        return "-"
    return f"{_percent(mean.mean)} ({_percent(mean.low)}-{_percent(mean.high)})"


def _ordered(report: Report) -> list[Cell]:
    pairs = ((task, method) for task in report.tasks for method in report.methods)
    return [report.cells[pair] for pair in pairs if pair in report.cells]


def _seconds(took: float | None) -> str:
    return "-" if took is None else f"{took:.2f}" if took < 10 else f"{took:,.0f}"


def _decimals(took: float | None) -> float | str:
    return "" if took is None else round(took, 4)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _cell_text(text: str) -> str:
    return one_line(text).replace("|", "\\|")
