"""`infllm prune`: a smaller model of one that is there."""

from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infllm.cli import options as opt
from infllm.cli.errors import UsageError
from infllm.cli.tables import Table

if TYPE_CHECKING:
    from infllm.cli.tasks.pruning import Outcome

# By the names of the paper, and of the published code.
CRITERIA = {
    "vector": "vector", "element1": "element1", "element2": "element2", "second": "second",
    "l1": "l1", "l2": "l2", "random": "random",
    "element^1": "element1", "element^2": "element2", "vectorize": "vector",
    "param_first": "element1", "param_second": "second", "param_mix": "element2",
}  # fmt: skip


class Aggregation(StrEnum):
    sum = "sum"
    mean = "mean"
    max = "max"
    prod = "prod"
    first = "first"
    second = "second"


class Kind(StrEnum):
    blocks = "blocks"
    hidden = "hidden"


class Selection(StrEnum):
    local = "local"
    everywhere = "global"


class Export(StrEnum):
    plain = "plain"
    padded = "padded"


def parse_criterion(text: str) -> str:
    """Raises UsageError for an unknown name."""
    if text.lower() in CRITERIA:
        return CRITERIA[text.lower()]
    near = get_close_matches(text.lower(), list(CRITERIA), 1)
    known = ", ".join(dict.fromkeys(CRITERIA.values()))
    raise UsageError(
        f"--criterion {text!r} is unknown",
        f"did you mean {near[0]!r}?" if near else f"one of {known}",
    )


@opt.spread
def prune(
    *,
    model: opt.OneModel,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="New folder of the smaller model."),
    ] = None,
    ratio: Annotated[
        float, typer.Option("--ratio", metavar="SHARE", help="Of heads and channels, 0 to below 1.")
    ] = 0.25,
    criterion: Annotated[
        str,
        typer.Option(
            "--criterion",
            metavar="NAME",
            parser=parse_criterion,
            help="What matters least: vector, element1, element2, second, l1, l2 or random.",
        ),
    ] = "element1",
    aggregate: Annotated[
        Aggregation | None,
        typer.Option(
            "--aggregate",
            show_default=False,
            help="Over a group's matrices. [default: sum; mean for l1 and l2]",
        ),
    ] = None,
    group: Annotated[
        Kind,
        typer.Option(
            "--group",
            help="blocks: heads and channels by layer; hidden: the residual stream everywhere.",
        ),
    ] = Kind.blocks,
    layers: Annotated[
        str,
        typer.Option(
            "--layers",
            metavar="A-B",
            help="Layers to prune, from 0, e.g. 4-29; all; spared: as published, without the first "
            "eighth and the last sixteenth.",
        ),
    ] = "spared",
    attention_layers: Annotated[
        str | None,
        typer.Option(
            "--attention-layers",
            metavar="A-B",
            show_default=False,
            help="Layers that lose heads; none. [default: --layers]",
        ),
    ] = None,
    mlp_layers: Annotated[
        str | None,
        typer.Option(
            "--mlp-layers",
            metavar="A-B",
            show_default=False,
            help="Layers that lose channels; none. [default: --layers]",
        ),
    ] = None,
    select: Annotated[
        Selection,
        typer.Option(
            "--select",
            help="local: the same share of each group; global: the lowest of all groups, which "
            "takes channels and hardly any head.",
        ),
    ] = Selection.local,
    steps: Annotated[
        int, typer.Option("--steps", metavar="N", min=1, help="Steps, each with new gradients.")
    ] = 1,
    calibrate: Annotated[
        list[str] | None,
        typer.Option(
            "--calibrate",
            metavar="SOURCE",
            show_default=False,
            help="Text to take gradients of: a file or folder. Repeatable. [default: built in]",
        ),
    ] = None,
    examples: Annotated[
        int, typer.Option("--examples", metavar="N", min=1, help="Parts of that text.")
    ] = 10,
    length: Annotated[
        int, typer.Option("--length", metavar="N", min=2, help="Tokens of each part.")
    ] = 64,
    official: Annotated[
        bool,
        typer.Option(
            "--official",
            help="Score grouped heads as the published code does: a query head by another KV head.",
        ),
    ] = False,
    export: Annotated[
        Export,
        typer.Option(
            "--export",
            help="plain, or padded: layers made alike with zeros, for stock transformers.",
        ),
    ] = Export.plain,
    recover: Annotated[
        list[str] | None,
        typer.Option(
            "--recover",
            metavar="SOURCE",
            show_default=False,
            help="Train it afterwards on this text, by LoRA (needs peft). Repeatable.",
        ),
    ] = None,
    minutes: Annotated[
        float, typer.Option("--minutes", metavar="N", help="How long --recover trains.")
    ] = 10.0,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", help="Of random, and of recovery.")
    ] = 0,
    device: opt.Device = None,
    offline: opt.Offline = False,
    streams: opt.StreamFlags,
) -> None:
    """Make a smaller model: remove the heads and channels that matter least (LLM-Pruner).

    The folder is loaded by --model as any other. Where all layers are alike (--layers all) stock
    transformers loads it, too; where not, --export padded makes one that it does.

    \b
    Examples:
      infllm prune model.gguf -o smaller --ratio 0.25
      infllm prune qwen2.5-0.5b-instruct -o smaller --layers all --calibrate notes/
      infllm prune smaller -o exchanged --ratio 0 --export padded
    """
    from infllm.cli.tasks.pruning import Plan, make_smaller

    out = streams.output("prune")
    if output is None:
        raise UsageError(
            "no folder for the smaller model", f"for example: -o {Path(model).stem}-small"
        )
    plan = Plan(
        ratio=ratio,
        criterion=criterion,
        aggregation=aggregate and aggregate.value,
        group=group.value,
        attention_layers=attention_layers or layers,
        mlp_layers=mlp_layers or layers,
        everywhere=select is Selection.everywhere,
        steps=steps,
        official=official,
        seed=seed,
        calibrate=calibrate or [],
        examples=examples,
        length=length,
        export=export.value,
        recover=recover or [],
        minutes=minutes,
    )
    overrides: dict[str, Any] = {"model.dtype": "float32"}
    if device is not None:
        overrides["model.device"] = device
    outcome = make_smaller(opt.EngineChoice(model, overrides, offline), plan, Path(output), out)
    table(outcome).show(out)
    out.object({"model": model, "folder": output, **outcome.fields})
    for sentence in outcome.sentences:
        out.note(sentence)


def table(outcome: "Outcome") -> Table:
    """Before and after, a column each."""
    rows = Table(["", "before", "after"])
    for name, before, after in outcome.rows:
        rows.rows.append([name, before, after])
    return rows
