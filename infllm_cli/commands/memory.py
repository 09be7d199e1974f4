"""`infllm memory`: the memories on this disk."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from infllm.cli import options as opt
from infllm.cli.cache import Kept, cache_folder, limits, look_at, memories, prune, remove
from infllm.cli.errors import InfllmError, UsageError
from infllm.cli.output import Output
from infllm.cli.tables import Table
from infllm.cli.text import count, one_line, seconds, size

app = typer.Typer(
    help="List, show, check or remove memories of documents that were read.",
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
)

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME", show_default=False, help="Of the list, or a memory's folder."),
]


@app.command("list")
def list_memories(as_json: opt.Json = False) -> None:
    """List what the cache holds, the last used first."""
    out = Output("memory list", as_json)
    held = list(memories())
    table = Table(["name", "sources", "tokens", "size", "used"], text_columns=2)
    for kept in held:
        state = "" if kept.complete else (" (damaged)" if kept.damage else " (unfinished)")
        table.rows.append(
            [
                kept.name,
                _sources(kept) + state,
                count(kept.tokens),
                size(kept.bytes),
                _date(kept.used),
            ]
        )
    table.show(out)
    out.object(
        {
            "folder": str(cache_folder()),
            "bytes": sum(kept.bytes for kept in held),
            "memories": [_fields(kept) for kept in held],
        }
    )
    total = size(sum(kept.bytes for kept in held))
    many = "1 memory" if len(held) == 1 else f"{count(len(held))} memories"
    out.note(f"{many}, {total} of at most {size(limits().total)} in {cache_folder()}")


@app.command("show")
def show(names: Names = None, as_json: opt.Json = False) -> None:
    """Show what memories are of, and how they were read."""
    out = Output("memory show", as_json)
    shown = [look_at(folder) for folder in _folders(names)]
    for kept in shown:
        if kept.damage:
            raise InfllmError(kept.damage, f"remove it with: infllm memory rm {kept.folder}")
        for name, value in _lines(kept):
            out.line(f"{name:<9} {value}")
    out.object({"memories": [_fields(kept) for kept in shown]})


@app.command("verify")
def verify(names: Names = None, as_json: opt.Json = False) -> None:
    """Check every byte of memories; without names, of all in the cache."""
    from infllm.engine import verify as verify_memory
    from infllm.engine.errors import MemoryFileError

    out = Output("memory verify", as_json)
    folders = _folders(names) if names else [kept.folder for kept in memories()]
    damaged = []
    results = []
    for folder in folders:
        try:
            verify_memory(folder)
            results.append({"memory": str(folder), "intact": True, "error": None})
            out.line(f"{folder}: intact")
        except MemoryFileError as error:
            damaged.append(folder)
            results.append({"memory": str(folder), "intact": False, "error": error.message})
            out.line(f"{folder}: {error.message}")
    out.object({"memories": results})
    if damaged:
        out.note(f"remove what is damaged with: infllm memory rm {damaged[0]}")
        raise typer.Exit(1)


@app.command("rm")
def rm(names: Names = None, as_json: opt.Json = False) -> None:
    """Remove memories."""
    out = Output("memory rm", as_json)
    removed = []
    for folder in _folders(names):
        bytes_ = look_at(folder).bytes
        if not remove(folder):
            raise InfllmError(
                f"{folder} is being written", "wait for the other run to end, or stop it"
            )
        removed.append({"memory": str(folder), "bytes": bytes_})
        out.note(f"removed {folder}, {size(bytes_)}")
    out.object({"removed": removed})


@app.command("prune")
def prune_cache(
    keep: Annotated[
        str | None,
        typer.Option("--keep", metavar="SIZE", help="Bytes that may stay, e.g. 5GB; 0 for none."),
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """Remove memories not used for longest until the cache fits its limit."""
    from infllm.cli.cache import parse_size

    out = Output("memory prune", as_json)
    cap = limits().total if keep is None else parse_size(keep, "--keep")
    removed = prune(cap)
    for kept in removed:
        out.note(f"removed {kept.name}, {size(kept.bytes)}")
    out.object({"removed": [{"memory": str(k.folder), "bytes": k.bytes} for k in removed]})
    out.note(f"{size(sum(kept.bytes for kept in removed))} freed")


def _folders(names: list[str] | None) -> list[Path]:
    """Folders of the memories that are meant by a path, or by the beginning of a cached name."""
    from infllm.cli.documents import is_memory

    if not names:
        raise UsageError("no memory named", "see: infllm memory list")
    folders = []
    for name in names:
        if is_memory(name):
            folders.append(Path(name))
            continue
        found = [kept.folder for kept in memories() if kept.name.startswith(name)]
        if len(found) != 1:
            what = "no memory" if not found else f"{len(found)} memories"
            raise UsageError(f"{what} of the name {name!r}", "see: infllm memory list")
        folders.append(found[0])
    return list(dict.fromkeys(folders))


def _sources(kept: Kept) -> str:
    shown = ", ".join(Path(source).name or source for source in kept.sources[:2])
    more = len(kept.sources) - 2
    return one_line(f"{shown} and {more} more" if more > 0 else shown) or "?"


def _date(when: float) -> str:
    return datetime.fromtimestamp(when).strftime("%Y-%m-%d %H:%M")


def _lines(kept: Kept) -> list[tuple[str, str]]:
    return [
        ("memory", str(kept.folder)),
        *[("source", one_line(source)) for source in kept.sources],
        ("preset", kept.preset),
        ("tokens", f"{count(kept.tokens)} in {count(kept.units)} units"),
        ("size", size(kept.bytes)),
        ("read in", seconds(kept.seconds) if kept.seconds else "unknown"),
        ("used", _date(kept.used)),
        ("state", "whole" if kept.complete else "unfinished: the same index command goes on"),
    ]


def _fields(kept: Kept) -> dict[str, Any]:
    return {
        "name": kept.name,
        "memory": str(kept.folder),
        "sources": kept.sources,
        "preset": kept.preset,
        "tokens": kept.tokens,
        "units": kept.units,
        "bytes": kept.bytes,
        "seconds_reading": kept.seconds,
        "used": round(kept.used),
        "complete": kept.complete,
        "damage": kept.damage or None,
    }
