"""`infllm presets`: the model configurations that come with the tool."""

from typing import Annotated

import typer

from infllm.cli import options as opt
from infllm.cli.output import Output
from infllm.cli.tables import Table

app = typer.Typer(
    help="List model configurations, or show one.",
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
)


@app.command("list")
def list_presets(as_json: opt.Json = False) -> None:
    """List presets: policy, window, licence, model."""
    from infllm import presets
    from infllm.engine.config import load_config

    out = Output("presets", as_json)
    # Only the preset itself: neither the environment nor files of this folder belong in a list.
    configs = {name: load_config_alone(name, load_config) for name in presets.names()}
    table = Table(["preset", "policy", "window", "licence", "model"], text_columns=5)
    for name, config in configs.items():
        model = config.model
        window = f"{model.n_local:,}"
        path = "built in" if model.path.startswith(str(presets.FOLDER)) else model.path
        table.rows.append([name, model.type, window, config.license or "-", path])
    table.show(out)
    out.object(
        {
            "presets": [
                {
                    "name": name,
                    "policy": config.model.type,
                    "n_local": config.model.n_local,
                    "license": config.license,
                    "path": config.model.path,
                    "description": config.description,
                }
                for name, config in configs.items()
            ]
        }
    )


def load_config_alone(name, load_config):
    from pathlib import Path

    nowhere = Path("/nonexistent")
    return load_config(name, environ={}, project=nowhere, user=nowhere)


@app.command("show")
def show_preset(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Preset, YAML file, folder or hub id.")
    ] = None,
    policy: opt.Policy = None,
    settings: opt.Settings = None,
    as_json: opt.Json = False,
) -> None:
    """Show a configuration and where each value comes from.

    Flags win over INFLLM_* variables, these over ./infllm.yaml, this over the user's file, this
    over the preset.
    """
    import yaml

    from infllm.cli.opening import open_config, preset_name

    out = Output("presets", as_json)
    choice = opt.EngineFlags(preset=name, policy=policy, settings=settings).choice()
    config = open_config(choice)
    values, origins = config.flat(), config.origins
    table = Table(["key", "origin", "value"], text_columns=3)
    for key, value in values.items():
        shown = yaml.safe_dump(value, default_flow_style=True, width=10**9).strip()
        table.rows.append([key, origins.get(key, "default"), shown.removesuffix("\n...")])
    table.show(out)
    for note in config.notes:
        out.note(f"note: {note}")
    out.object(
        {
            "preset": preset_name(config, choice),
            "config": values,
            "origins": {key: origins.get(key, "default") for key in values},
            "notes": config.notes,
        }
    )
