"""`infllm bench list` and `bench fetch`: which suites there are, and their files."""

import os
from pathlib import Path
from typing import Annotated

import typer

from infllm.cli import options as opt
from infllm.cli.output import Output
from infllm.cli.tables import Table
from infllm.cli.text import plural


def list_suites(
    suite: Annotated[
        str | None,
        typer.Argument(metavar="SUITE", show_default=False, help="Only this one, as SUITE[:TASK]."),
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """List suites and their tasks: metric, longest answer, where samples come from."""
    from infllm.cli.bench import suites as known

    out = Output("bench list", as_json)
    names = [suite] if suite else list(known.suites())
    tasks = known.find_tasks(*names)
    table = Table(["task", "metric", "samples from", "answer"], text_columns=3)
    for task in tasks:
        table.rows.append([task.id, task.metric, _samples_from(task), str(task.answer_tokens)])
    table.show(out)
    shown = [name for name in known.suites() if any(task.suite == name for task in tasks)]
    out.object(
        {
            "suites": {name: known.suite(name).model_dump(exclude_none=True) for name in shown},
            "tasks": [
                {"id": task.id, "samples": _samples_from(task), **_fields(task)} for task in tasks
            ],
        }
    )
    for name in shown:
        out.note(f"{name}: {known.suite(name).title}")
    out.note(f"{plural(len(tasks), 'task')}; answers are at most so many tokens long")


def _fields(task):
    wanted = {"suite", "name", "title", "version", "metric", "metric_options", "answer_tokens",
              "chat", "language", "source", "published"}  # fmt: skip
    return task.model_dump(include=wanted)


def _samples_from(task) -> str:
    if task.data is not None:
        return task.data.files[0]
    if task.generator.uses_qa():
        return f"generated, --qa ({task.generator.format})"
    return "generated, --haystack" if task.generator.uses_haystack() else "generated"


def fetch(
    suite: Annotated[str, typer.Argument(metavar="SUITE", show_default=False, help="Its name.")],
    data: Annotated[
        Path,
        typer.Option("--data", metavar="DIR", help="Folder for data; a suite's goes to DIR/SUITE."),
    ],
    offline: opt.Offline = False,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Fetch a suite's files from the Hugging Face hub, at a pinned revision, sums checked.

    Offline it says which files to put where (exit status 5).
    """
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    from infllm.cli.bench.fetch import fetch_suite
    from infllm.cli.bench.suites import find_tasks
    from infllm.cli.opening import quiet_libraries

    out = Output("bench fetch", as_json, quiet)
    name = find_tasks(suite)[0].suite
    quiet_libraries(out, bars=True)
    record = fetch_suite(name, data, out.note)
    files = record["files"]
    out.note(f"{plural(len(files), 'file')} of {record['repository']} in {data / name}")
    out.object({"folder": str(data / name), **record})
