"""`infllm bench`: how good and how fast models with a memory are."""

import typer

from infllm.cli.commands.speed import speed

app = typer.Typer(
    help="Measure models with a memory.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
app.command("speed")(speed)
