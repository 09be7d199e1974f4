"""A report as pictures: heatmaps of length by depth, and curves of score by length."""

from pathlib import Path

from infllm.cli.bench.report import Report
from infllm.cli.plots import Point, draw_needles, draw_scores

DEPTHS = 11  # rows of a heatmap; more are drawn together


def draw_report(report: Report, folder: Path) -> list[Path]:
    """Draw what the results give: a heatmap a task, the curves of a suite. Gives the files."""
    drawn = []
    for task in report.tasks:
        points = _points(report, task)
        if len({point.depth for point in points}) > 1:
            path = folder / f"{task.replace(':', '.')}.heatmap.png"
            draw_needles(str(path), points, task, "mean score")
            drawn.append(path)
    for suite in report.suites:
        tasks = [task for task in report.of_suite(suite) if _has_lengths(report, task)]
        if tasks:
            path = folder / f"{suite}.lengths.png"
            draw_scores(str(path), report, tasks, suite)
            drawn.append(path)
    return drawn


def _points(report: Report, task: str) -> list[Point]:
    points = [
        Point(method, sample.length, sample.depth, sample.score)
        for method in report.methods
        if (task, method) in report.cells
        for sample in report.cells[task, method].samples
        if sample.length is not None and sample.depth is not None
    ]
    if len({point.depth for point in points}) <= DEPTHS:
        return points
    step = 100 / (DEPTHS - 1)
    return [
        Point(p.policy, p.length, round(round(p.depth / step) * step, 1), p.correct) for p in points
    ]


def _has_lengths(report: Report, task: str) -> bool:
    """Whether there is more than one length to draw a curve through."""
    cells = [report.cells[task, m] for m in report.methods if (task, m) in report.cells]
    return len({n for cell in cells for n in cell.by_length}) > 1
