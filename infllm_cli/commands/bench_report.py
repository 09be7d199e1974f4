"""`infllm bench report`: tables and pictures of results."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infllm.cli import options as opt
from infllm.cli.errors import UsageError
from infllm.cli.output import Output

if TYPE_CHECKING:
    from infllm.cli.bench.report import Report
    from infllm.cli.bench.suites import Published


class Format(StrEnum):
    table = "table"
    markdown = "markdown"
    csv = "csv"
    json = "json"


@opt.spread
def report(
    *,
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="DIR", show_default=False, help="Results of `infllm bench run`."),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How it is written.")] = Format.table,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline", metavar="METHOD", help="What others are compared with. [default: first]"
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="DIR", help="Also draw pictures there (needs matplotlib)."),
    ] = None,
    streams: opt.StreamFlags,
) -> None:
    """Report results: scores with 95% intervals, by length, method against method.

    Intervals are bootstrapped over samples; a difference is taken sample by sample. Several
    folders, of several models for instance, are set side by side. Figures that others published
    for the same tasks and models stand in a table of their own.

    \b
    Examples:
      infllm bench report results
      infllm bench report llama qwen --format markdown --plot pictures/
    """
    from infllm.cli.bench.render import as_csv, as_fields, markdown, tables
    from infllm.cli.bench.report import load_report

    if streams.as_json:
        form = Format.json
    out = Output("bench report", form is Format.json, streams.quiet, streams.verbose)
    if not folders:
        raise UsageError("no folder of results was named", "for example: infllm bench report DIR")
    if plot is not None:
        _check_plots(plot)
    found = load_report(list(dict.fromkeys(folders)))
    if not found.tasks:
        raise UsageError(f"{folders[0]} holds no results yet", "make some with: infllm bench run")
    published = _published(found)
    if form is Format.json:
        out.object(as_fields(found, baseline, published))
    elif form is Format.csv:
        out.write(as_csv(found))
    elif form is Format.markdown:
        out.write(markdown(tables(found, baseline, published)))
    else:
        for i, (title, table) in enumerate(tables(found, baseline, published).items()):
            out.line(("\n" if i else "") + title)
            table.show(out)
    for failure in found.failures:
        place = f"{failure['where']}: " if failure["where"] else ""
        out.warn(
            f"failed: {failure['task']}, {failure['method']}, sample {failure['id']}: "
            f"{place}{failure['why']}"
        )
    for sentence in found.unlike:
        out.warn(f"not compared: {sentence}")
    if plot is not None:
        from infllm.cli.bench.pictures import draw_report

        drawn = draw_report(found, plot)
        for path in drawn:
            out.note(f"drew {path}")
        if not drawn:
            out.warn("nothing to draw: samples of one length and one depth")


def _check_plots(folder: Path) -> None:
    """Make the folder, and find out whether pictures can be drawn there."""
    from infllm.cli.plots import check_plot

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--plot {folder}: {error.strerror}", "name a folder") from error
    check_plot(str(folder / "x.png"))


def _published(found: "Report") -> "list[tuple[str, Published]]":
    """Figures of others for the tasks and models of a report, suites' averages included."""
    from infllm.cli.bench.suites import suite, suites

    figures: list[tuple[str, Published]] = []
    for name in found.suites:
        if name not in suites():
            continue
        tasks = suites()[name]
        for task in tasks.values():
            if task.id in found.tasks:
                figures += [(task.id, figure) for figure in task.published]
        for what, several in suite(name).published.items():
            figures += [(f"{name}, {what}", figure) for figure in several]
    models = [model.lower() for model in found.models]
    return [
        (task, figure)
        for task, figure in figures
        if any(figure.model.lower() in model for model in models)
    ]
