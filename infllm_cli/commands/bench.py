"""`infllm bench`: the field's benchmarks."""

import typer

from infllm.cli.commands.bench_report import report
from infllm.cli.commands.bench_run import run

app = typer.Typer(
    help="Run the field's benchmarks and report the results.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
app.command("run")(run)
app.command("report")(report)
