"""The commands by name: the module of one is imported when it is run, not before."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup


@dataclass(frozen=True)
class Entry:
    """A command in `infllm.cli.commands`: its module's `app`, or the function named as the module.

    `help` is the first sentence of its own help.
    """

    module: str
    help: str
    hidden: bool = False


ENTRIES = {
    "ask": Entry("ask", "Ask a question about documents of any length, or about a memory of them."),
    "query": Entry("ask", "", hidden=True),
    "chat": Entry(
        "chat", "Talk about documents, or about a memory of them; questions may come from a pipe."
    ),
    "index": Entry("index", "Read documents into a memory file, to ask as often as you like."),
    "summarize": Entry("summarize", "Summarize documents of any length."),
    "passkey": Entry("passkey", "Hide a pass key in a long text and ask for it."),
    "ppl": Entry("ppl", "Measure perplexity of a text of any length."),
    "perplexity": Entry("ppl", "", hidden=True),
    "inspect": Entry("inspect", "Show what would be read, and what that needs."),
    "doctor": Entry("doctor", "Check that everything a run needs is here."),
    "memory": Entry("memory", "List, show, check or remove memories of documents that were read."),
    "bench": Entry("bench", "Run the field's benchmarks, report the results, and measure speed."),
    "models": Entry(
        "models", "List models, fetch one, choose the default, remove what is not needed."
    ),
    "prune": Entry(
        "prune",
        "Make a smaller model: remove the heads and channels that matter least (LLM-Pruner).",
    ),
    "calibrate": Entry(
        "calibrate",
        "Measure how a model's attention depends on distance, which the reader homer takes off.",
    ),
    "presets": Entry("presets", "List model configurations, or show one."),
}


class _Commands(MutableMapping[str, Any]):
    """The commands themselves, each made when it is asked for."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = _make(name, ENTRIES[name])
        return self._made[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        del self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(ENTRIES)

    def __len__(self) -> int:
        return len(ENTRIES)


def _make(name: str, entry: Entry) -> Any:
    module = import_module(f"infllm.cli.commands.{entry.module}")
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(name)(getattr(module, entry.module))
    command = typer.main.get_command(app)
    command.name, command.hidden = name, entry.hidden
    return command


class CommandTable(TyperGroup):
    """The root of the command line, over `ENTRIES`."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands()

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        shown = {name: entry.help for name, entry in ENTRIES.items() if not entry.hidden}
        with formatter.section("Commands"):
            formatter.write_dl(list(shown.items()))
