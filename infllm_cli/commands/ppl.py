"""`infllm ppl`: perplexity of a text of any length, and its course over position."""

import math
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from infllm.cli import options as opt
from infllm.cli.tables import Table
from infllm.cli.tasks.lengths import parse_length

if TYPE_CHECKING:
    from infllm.cli.tasks.perplexity import Perplexity


class Spacing(StrEnum):
    even = "even"
    log = "log"


@opt.spread
def ppl(
    *,
    sources: opt.Sources = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            metavar="N",
            parser=parse_length,
            help="Score only the first N tokens, e.g. 32K or 1M.",
        ),
    ] = None,
    policy: opt.Policies = None,
    bins: Annotated[
        int, typer.Option("--bins", metavar="N", min=1, max=1000, help="Points of the curve.")
    ] = 16,
    spacing: Annotated[
        Spacing, typer.Option("--spacing", help="Bins of equal length, or growing ones.")
    ] = Spacing.even,
    plot: opt.Plot = None,
    flags: opt.ModelFlags,
    documents: opt.DocumentFlags,
    streams: opt.StreamFlags,
) -> None:
    """Measure perplexity of a text of any length.

    The text is one continuous stream: BOS once, every token predicted from all before it. Several
    sources follow each other in the order given, a blank line between; no name is scored.
    Memory does not grow with a window policy, and slowly with inf-llm.

    \b
    Examples:
      infllm ppl corpus.txt
      infllm ppl books/*.txt --max-tokens 128K --policy inf-llm,stream-lm --plot curve.png
    """
    from infllm.cli.opening import open_config, open_engine, preset_name
    from infllm.cli.plots import check_plot, draw_curves
    from infllm.cli.progress import Progress
    from infllm.cli.sources import all_left_out, need_sources, read_documents
    from infllm.cli.tasks.perplexity import (
        PROTOCOL,
        bin_edges,
        make_stream,
        measure_perplexity,
        plain_text,
    )
    from infllm.cli.tasks.policies import parse_policies
    from infllm.cli.text import count, size

    out = streams.output("ppl")
    sources = need_sources(sources, "infllm ppl corpus.txt")
    check_plot(plot)
    choice = flags.choice()
    config = open_config(choice)
    preset = preset_name(config, choice)
    policies = parse_policies(policy, config)
    collection = read_documents(sources, documents, out)
    results: list[Perplexity] = []
    with open_engine(config, choice, out) as engine:
        stream = make_stream(engine, plain_text(collection), max_tokens)
        predicted = len(stream.ids) - stream.context
        edges = bin_edges(predicted, bins, spacing.value)
        with Progress(out, "ppl", predicted * len(policies)) as progress:
            for name in policies:
                result = measure_perplexity(engine, stream, name, edges, progress)
                results.append(result)
        device_name = str(engine.device)

    summary(results).show(out)
    out.line()
    curves(results).show(out)
    if plot is not None:
        draw_curves(plot, results, spacing.value, f"perplexity, {preset}")
        out.note(f"drew {plot}")
    first = asdict(results[0])
    out.object(
        {
            **first,
            "tokens_given": stream.tokens_given,
            "tokens_truncated": stream.tokens_truncated,
            "tokens_per_second": _rate(results[0]),
            "by_policy": {result.policy: asdict(result) for result in results},
            "protocol": PROTOCOL,
            "sources": sources,
            "left_out": all_left_out(collection),
            "preset": preset,
            "device": device_name,
        }
    )
    if stream.tokens_truncated:
        out.note(f"{count(stream.tokens_truncated)} tokens left out (--max-tokens)")
    out.note(f"protocol: {PROTOCOL}; nll in nats per token")
    out.note(f"peak memory {size(results[-1].peak_memory_bytes)}")


def summary(results: list["Perplexity"]) -> Table:
    table = Table(["policy", "tokens", "perplexity", "nll", "bits/byte", "tok/s"])
    for result in results:
        table.rows.append(
            [
                result.policy,
                f"{result.tokens:,}",
                _number(result.perplexity, 2),
                _number(result.nll, 4),
                _number(result.bits_per_byte, 4),
                f"{_rate(result):,.0f}",
            ]
        )
    return table


def curves(results: list["Perplexity"]) -> Table:
    """Mean NLL by position, a column for each policy."""
    table = Table(["tokens", *(f"nll {result.policy}" for result in results)], text_columns=0)
    for i, point in enumerate(results[0].curve):
        row = [_number(result.curve[i].nll, 4) for result in results]
        table.rows.append([f"{point.start:,}-{point.end:,}", *row])
    return table


def _rate(result: "Perplexity") -> float:
    return round(result.tokens / max(result.seconds, 1e-9), 1)


def _number(value: float, digits: int) -> str:
    if not math.isfinite(value):
        return "not finite"
    return f"{value:.{digits}f}" if value < 1e6 else f"{value:.3g}"
