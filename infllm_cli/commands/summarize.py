"""`infllm summarize`: a summary of documents of any length."""

from enum import StrEnum
from typing import Annotated

import typer

from infllm.cli import options as opt
from infllm.cli.errors import UsageError


class Strategy(StrEnum):
    memory = "memory"
    map_reduce = "map-reduce"


@opt.spread
def summarize(
    *,
    sources: opt.Sources = None,
    strategy: Annotated[
        Strategy,
        typer.Option(
            "--strategy", help="Whole document through memory, or parts that fit the window."
        ),
    ] = Strategy.memory,
    flags: opt.EngineFlags,
    documents: opt.DocumentFlags,
    answering: opt.SummaryFlags,
    max_tokens: opt.Budget = None,
    dry_run: opt.DryRun = False,
    streams: opt.StreamFlags,
) -> None:
    """Summarize documents of any length.

    `memory` reads everything once and then writes. `map-reduce` summarizes chapters and sections
    that fit the model's own window, then those summaries, until one is left.

    \b
    Examples:
      infllm summarize book.epub
      infllm summarize report.pdf --strategy map-reduce -v
    """
    from infllm.cli.opening import open_all, preset_name
    from infllm.cli.reading import check_budget, peak_memory_bytes, with_prompt_stops
    from infllm.cli.replies import tell_finish, tell_thinking
    from infllm.cli.sources import all_left_out, need_sources
    from infllm.cli.tasks.drafting import tell_of_drafts
    from infllm.cli.tasks.summarize import find_sections, summarize_by_memory, summarize_by_parts
    from infllm.cli.text import plural, seconds, size

    out = streams.output("summarize")
    sources = need_sources(sources, "infllm summarize book.epub")
    by_parts = strategy is Strategy.map_reduce
    if by_parts and flags.policy not in (None, "origin"):
        raise UsageError(
            f"--policy {flags.policy} has no part in map-reduce: its parts fit the window",
            "leave --policy out, or use --strategy memory",
        )
    choice = flags.choice()
    if dry_run:
        from infllm.cli.commands.inspect import report

        report(out, choice, sources, documents, max_tokens)
        return

    sampling = answering.sampling()
    collection, engine = open_all(choice, sources, documents, out)
    with engine:
        sampling = with_prompt_stops(engine, sampling)
        tell_of_drafts(engine, sampling, out)
        ids = engine.tokenizer.encode(collection.text)
        if by_parts:
            check_budget(len(ids), max_tokens)
            offsets = engine.tokenizer.offsets(collection.text, ids)
            sections = find_sections(collection, offsets)
            result = summarize_by_parts(engine, ids, sections, sampling, out)
        else:
            result = summarize_by_memory(engine, ids, sampling, out, max_tokens)
        kind = "origin" if by_parts else engine.config.model.type
        name = preset_name(engine.config, choice)
        device_name = str(engine.device)
    out.line()
    answer, reading = result.answer, result.reading
    out.object(
        {
            "answer": answer.text,
            "sources": sources,
            "citations": [],
            "left_out": all_left_out(collection),
            "strategy": strategy.value,
            "parts": result.parts,
            "rounds": result.rounds,
            **reading.fields,
            "tokens_generated": answer.tokens,
            "tokens_thinking": answer.tokens_thinking,
            "seconds_answering": round(answer.seconds, 3),
            "finish": answer.finish,
            "preset": name,
            "policy": kind,
            "device": device_name,
            "peak_memory_bytes": peak_memory_bytes(),
        }
    )
    done = f" in {plural(result.parts, 'part')}" if by_parts else ""
    out.note(
        f"{reading.sentence}{done}, summarized in {seconds(answer.seconds)}; "
        f"{name}, {kind}, peak memory {size(peak_memory_bytes())}"
    )
    tell_thinking(answer, out)
    tell_finish(answer.finish, sampling.max_new_tokens, out)
