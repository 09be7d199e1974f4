"""Pictures of results, for which matplotlib is an optional dependency."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infllm.cli.errors import MissingExtra, UsageError
from infllm.cli.tasks.lengths import length_name

if TYPE_CHECKING:
    from infllm.cli.bench.report import Report
    from infllm.cli.tasks.passkey import Trial
    from infllm.cli.tasks.perplexity import Perplexity
    from infllm.engine.session import UnitMass

FORMATS = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class Point:
    """A sample's score from 0 to 1 (`correct`), where it stands in a heatmap."""

    policy: str
    length: int
    depth: float
    correct: float


def check_plot(path: str | None) -> None:
    """Find out before a long run whether its picture can be drawn.

    Raises:
        MissingExtra: matplotlib is not installed.
        UsageError: the file's format is unknown, or its folder does not exist.
    """
    if path is None:
        return
    if find_spec("matplotlib") is None:
        raise MissingExtra("--plot needs matplotlib", "pip install 'infllm[plot]'")
    if Path(path).suffix.lower() not in FORMATS:
        raise UsageError(f"--plot {path}: unknown picture format", f"use {', '.join(FORMATS)}")
    folder = Path(path).parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UsageError(f"--plot {path}: cannot write to the folder {folder}", "create it first")


def _figure(width: float, height: float) -> Any:
    # The object API: no pyplot, so no display and no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def draw_lookups(
    path: str,
    looked: Sequence["UnitMass"],
    steps: Sequence[Sequence["UnitMass"]],
    pieces: Sequence[str],
    tokens: int,
    title: str,
) -> None:
    """Attention that the question and each token of its answer (y) gave to a document (x)."""
    from infllm.cli.tasks.explain import strips

    columns = 240
    rows = strips([looked, *steps], tokens, columns)
    rows = [[value / (max(row) or 1.0) for value in row] for row in rows]
    labels = ["question", *map(repr, pieces)]
    height = min(9.0, max(1.8, 0.22 * len(rows) + 1.0))
    figure = _figure(9.0, height)
    axes = figure.subplots()
    image = axes.imshow(
        rows, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest",
        extent=(0, tokens, len(rows), 0),
    )  # fmt: skip
    every = -(-len(labels) // 40)
    shown = range(0, len(labels), every)
    plain = {"parse_math": False}  # a $ in a text is a $
    axes.set_yticks([i + 0.5 for i in shown], [labels[i] for i in shown], fontsize=7, **plain)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("position in the document, tokens")
    axes.set_title(title, fontsize=9, **plain)
    figure.colorbar(image, ax=axes, label="attention")
    figure.savefig(path, dpi=150)


def draw_needles(
    path: str, trials: Sequence["Trial | Point"], title: str, label: str = "share right"
) -> None:
    """A needle heatmap per policy: share of right answers by length (x) and depth (y)."""
    policies = list(dict.fromkeys(trial.policy for trial in trials))
    lengths = sorted({trial.length for trial in trials})
    depths = sorted({trial.depth for trial in trials})
    columns = len(policies) if len(policies) <= 3 else 2
    rows = -(-len(policies) // columns)
    width = max(3.2, 0.8 * len(lengths) + 1.6)
    height = max(1.6, 0.32 * len(depths) + 0.9)
    figure = _figure(columns * width + 0.9, rows * height + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    image = None
    for axes, policy in zip(grid.flat, policies, strict=False):
        shares = [[_share(trials, policy, length, depth) for length in lengths] for depth in depths]
        image = axes.imshow(shares, cmap="RdYlGn", vmin=0, vmax=1, aspect="auto")
        name, _, settings = policy.partition(":")
        axes.set_title(f"{name}\n{settings}" if settings else name, fontsize=9)
        axes.set_xticks(range(len(lengths)), [length_name(n) for n in lengths])
        axes.set_yticks(range(len(depths)), [f"{depth:.3g}" for depth in depths])
        axes.set_xticks([i - 0.5 for i in range(1, len(lengths))], minor=True)
        axes.set_yticks([i - 0.5 for i in range(1, len(depths))], minor=True)
        axes.grid(which="minor", color="white", linewidth=1.5)
        axes.tick_params(which="both", length=0, labelsize=8)
    for axes in grid.flat[len(policies) :]:
        axes.set_visible(False)
    for axes in grid.flat[: len(policies)][-columns:]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
    figure.suptitle(title, fontsize=11)
    figure.supxlabel("length in tokens", fontsize=9)
    figure.supylabel("depth in %", fontsize=9)
    figure.colorbar(image, ax=grid, label=label, ticks=[0, 0.5, 1])
    figure.savefig(path, dpi=150)


def _share(trials: Sequence["Trial | Point"], policy: str, length: int, depth: float) -> float:
    cell = [
        trial.correct
        for trial in trials
        if (trial.policy, trial.length, trial.depth) == (policy, length, depth)
    ]
    return sum(cell) / len(cell) if cell else float("nan")


def draw_curves(path: str, results: Sequence["Perplexity"], spacing: str, title: str) -> None:
    """Mean NLL by position, one line per policy."""
    figure = _figure(7.5, 4.2)
    axes = figure.subplots()
    for result in results:
        axes.plot(
            [point.position for point in result.curve],
            [point.nll for point in result.curve],
            marker=".",
            label=f"{result.policy} (perplexity {result.perplexity:.2f})",
        )
    if spacing == "log":
        axes.set_xscale("log")
    axes.set_xlabel("position in tokens")
    axes.set_ylabel("negative log-likelihood in nats")
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)


def draw_scores(path: str, report: "Report", tasks: Sequence[str], title: str) -> None:
    """Score by length, a panel per task and a line with its 95% interval per method."""
    columns = min(3, len(tasks))
    rows = -(-len(tasks) // columns)
    figure = _figure(3.6 * columns + 0.4, 2.6 * rows + 0.9)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    handles: dict[str, Any] = {}
    for axes, task in zip(grid.flat, tasks, strict=False):
        cells = [report.cells[task, m] for m in report.methods if (task, m) in report.cells]
        lengths = sorted({n for cell in cells for n in cell.by_length})
        for i, method in enumerate(report.methods):
            cell = report.cells.get((task, method))
            means = list(cell.by_length.items()) if cell else []
            if not means:
                continue
            # Beside each other, so that equal scores do not hide one another.
            at = [lengths.index(n) + 0.06 * (i - (len(report.methods) - 1) / 2) for n, _ in means]
            values = [100 * mean.mean for _, mean in means]
            below = [100 * (mean.mean - mean.low) for _, mean in means]
            above = [100 * (mean.high - mean.mean) for _, mean in means]
            handles[method] = axes.errorbar(
                at, values, [below, above], marker="o", markersize=4, capsize=2, color=f"C{i}"
            )
        axes.set_xticks(range(len(lengths)), [length_name(n) for n in lengths])
        axes.set_ylim(-4, 104)
        axes.set_title(task.partition(":")[2], fontsize=10)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=8)
    for axes in grid.flat[len(tasks) :]:
        axes.set_visible(False)
    for axes in grid.flat[: len(tasks)][-columns:]:  # the lowest of each column
        axes.set_xlabel("length in tokens", fontsize=9)
    figure.suptitle(title, fontsize=11)
    figure.supylabel("score in %, with its 95% interval", fontsize=9)
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", fontsize=8,
        ncols=max(1, min(len(handles), 4)),
    )  # fmt: skip
    figure.savefig(path, dpi=150)
