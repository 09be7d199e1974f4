"""`infllm bench`: how good and how fast models with a memory are."""

import typer

from infllm.cli.commands.bench_report import report
from infllm.cli.commands.bench_run import run
from infllm.cli.commands.bench_suites import fetch, list_suites
from infllm.cli.commands.speed import speed

app = typer.Typer(
    help="Run the field's benchmarks, report the results, and measure speed.",
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
)
app.command("list")(list_suites)
app.command("fetch")(fetch)
app.command("run")(run)
app.command("report")(report)
app.command("speed")(speed)
