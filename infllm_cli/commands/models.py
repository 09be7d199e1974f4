"""`infllm models`: the models on this machine, and those that presets name."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from infllm.cli import options as opt
from infllm.cli.errors import InfllmError
from infllm.cli.output import Output
from infllm.cli.tables import Table
from infllm.cli.text import count, plural, size

if TYPE_CHECKING:
    from infllm.cli.models.shelf import Row
    from infllm.engine.sources import Copy

app = typer.Typer(
    help="List models, fetch one, choose the default, remove what is not needed.",
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
)

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="Preset, hub id, hf:ORG/REPO:FILE.gguf, or what the list says."
    ),
]


@app.command("list")
def list_models(
    here: Annotated[
        bool, typer.Option("--here", help="Only those that are on this machine.")
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """List presets, and models of the hub's cache, Ollama and LM Studio.

    `kv` is what the layers that keep every token take for each; `fits` compares weights and a
    window with the memory that is free now.
    """
    from infllm.cli.models.default import current_default
    from infllm.cli.models.shelf import rows
    from infllm.engine.sources import copies, models_folder

    out = Output("models list", as_json)
    found = [row for row in rows() if row.place or not here]
    table = Table(["model", "place", "licence", "size", "trained", "kv", "fits"], text_columns=3)
    for row in found:
        table.rows.append(_cells(row))
    table.show(out)
    unpacked = list(copies())
    default, _ = current_default()
    out.object(
        {
            "models": [row.fields for row in found],
            "default": default,
            "unpacked": {
                "folder": str(models_folder()),
                "bytes": sum(copy.bytes for copy in unpacked),
                "models": [_copy_fields(copy) for copy in unpacked],
            },
        }
    )
    for row in found:
        if row.problem:
            out.note(f"{row.name} cannot be used: {row.problem}")
    if unpacked:
        total = size(sum(copy.bytes for copy in unpacked))
        out.note(
            f"{plural(len(unpacked), 'unpacked GGUF file')}, {total}, in {models_folder()} "
            f"(infllm models prune removes them)"
        )
    out.note(f"the default is {default}; another: infllm models use NAME")


def _cells(row: "Row") -> list[str]:
    fits = {True: "yes", False: "no", None: "-"}[row.fits]
    return [
        row.name,
        row.place or "-",
        row.license or "-",
        "-" if row.bytes is None else size(row.bytes),
        "-" if row.trained is None else count(row.trained),
        "-" if row.kv_bytes is None else f"{size(row.kv_bytes)}",
        "no use" if row.problem else fits,
    ]


def _copy_fields(copy: "Copy") -> dict[str, Any]:
    return {
        "folder": str(copy.folder),
        "source": copy.source,
        "bytes": copy.bytes,
        "whole": copy.whole,
    }


@app.command("get")
def get_model(
    name: Name,
    offline: opt.Offline = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = 0,
    as_json: opt.Json = False,
) -> None:
    """Fetch a model from the Hugging Face hub; a broken download is gone on with."""
    from infllm.cli.models.download import allow_bars, fetch_model, target_of

    out = Output("models get", as_json, quiet, verbose)
    allow_bars(out)
    fetched = fetch_model(target_of(name), out, offline)
    out.line(fetched["path"])
    out.object(fetched)
    out.note(f'ask it: infllm ask SOURCE "QUESTION" {_as_option(name)}')
    out.note(f"make it the default: infllm models use {name}")


def _as_option(name: str) -> str:
    from infllm import presets

    return f"-p {name}" if name in presets.names() else f"--model {name}"


@app.command("use")
def use_model(name: Name, as_json: opt.Json = False) -> None:
    """Make a model the default, in the user's config.yaml."""
    from infllm.cli.models.default import current_default, set_default

    out = Output("models use", as_json)
    path = set_default(name)
    default, origin = current_default()
    out.note(f"the default is now {name} ({path})")
    named = origin not in ("preset", f"user config {path}") or (
        origin == "preset" and default != name
    )
    if named:
        out.warn(f"here {default} is used all the same: the {origin} names it")
    if missing := _missing(name):
        out.note(f"it is not on this machine yet: infllm models get {missing}")
    out.object({"default": name, "file": str(path), "in_force": default})


def _missing(name: str) -> str:
    """What is still to be fetched, as a name; empty where all is here."""
    import os

    from infllm.cli.models.shelf import preset_alone
    from infllm.engine.config import read_model_config

    path = preset_alone(name).model.path
    return "" if os.path.isdir(path) or read_model_config(path) is not None else name


@app.command("rm")
def remove_model(name: Name, as_json: opt.Json = False) -> None:
    """Remove a model that was fetched from the hub, or the unpacked copy of a GGUF file.

    Files of yours, and those of Ollama and LM Studio, stay.
    """
    from infllm.cli.models.download import remove_from_hub, target_of
    from infllm.engine.sources import find_gguf, folder_of, names_gguf, remove

    out = Output("models rm", as_json)
    freed, removed = 0, []
    if names_gguf(name):
        file = find_gguf(name, fetch=False)
        folder = None if file is None else folder_of(file.parts)[0]
        if folder is not None and folder.is_dir():
            freed += remove(folder)
            removed.append(str(folder))
    if name.startswith("hf:") or not names_gguf(name):
        repo = target_of(name).repo
        bytes_ = remove_from_hub(repo)
        if bytes_:
            freed += bytes_
            removed.append(repo)
    if not removed:
        raise InfllmError(f"nothing of {name} is kept here", "see: infllm models list --here")
    for what in removed:
        out.note(f"removed {what}")
    out.note(f"{size(freed)} freed")
    out.object({"removed": removed, "bytes": freed})


@app.command("prune")
def prune_models(as_json: opt.Json = False) -> None:
    """Remove all unpacked copies of GGUF files; the files themselves stay."""
    from infllm.engine.sources import copies, remove

    out = Output("models prune", as_json)
    removed: list[dict[str, Any]] = []
    for copy in copies():
        try:
            removed.append({"folder": str(copy.folder), "bytes": remove(copy.folder)})
        except OSError as error:
            raise InfllmError(
                f"cannot remove {copy.folder}: {error.strerror or error}", "check its rights"
            ) from error
        out.note(f"removed the copy of {copy.source or copy.folder.name}, {size(copy.bytes)}")
    out.object({"removed": removed})
    out.note(f"{size(sum(one['bytes'] for one in removed))} freed")
