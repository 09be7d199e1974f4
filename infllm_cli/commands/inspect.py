"""`infllm inspect`: what would be read, and what reading it needs."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infllm.cli import options as opt
from infllm.cli.errors import UsageError
from infllm.cli.output import Output
from infllm.cli.tables import Table

if TYPE_CHECKING:
    from infllm.cli.documents import Collection, Document
    from infllm.cli.options import DocumentFlags, EngineChoice
    from infllm.engine.config import Config


@opt.spread
def inspect(
    *,
    sources: opt.Sources = None,
    text: Annotated[
        bool, typer.Option("--text", help="Print the text that would be read, and nothing else.")
    ] = False,
    flags: opt.EngineFlags,
    documents: opt.DocumentFlags,
    streams: opt.StreamFlags,
) -> None:
    """Show what would be read, and what that needs.

    Tokens, characters and pages of each file, what of it is not in the text (-v: samples), what is
    skipped (-v: why), and about how much memory and time reading takes. No weights are loaded.

    \b
    Examples:
      infllm inspect book.pdf
      infllm inspect src/ --json
      infllm inspect --text book.pdf > book.txt
    """
    from infllm.cli.sources import need_sources, read_documents

    out = streams.output("inspect")
    sources = need_sources(sources, "infllm inspect book.pdf")
    if text:
        if out.as_json:
            raise UsageError("--text prints text and no JSON", "leave out --text or --json")
        out.exact(read_documents(sources, documents, out).text)
        return
    choice = flags.choice()
    report(out, choice, sources, documents, None)


def report(
    out: Output,
    choice: "EngineChoice",
    sources: Sequence[str],
    documents: "DocumentFlags",
    budget: int | None,
) -> None:
    """Read and tokenize, then tell; also what `--dry-run` of other commands prints.

    Raises:
        BudgetExceeded: after the report, when the run itself would exceed its budget.
    """
    from infllm.cli.estimate import estimate_needs, load_tokenizer
    from infllm.cli.opening import announce_download, open_config, preset_name, quiet_libraries
    from infllm.cli.progress import Spinner
    from infllm.cli.reading import check_budget
    from infllm.cli.sources import all_left_out, gather
    from infllm.cli.text import plural, seconds, size

    config = open_config(choice)
    name = preset_name(config, choice)
    collection = gather(sources, documents, out)
    quiet_libraries(out, bars=announce_download(config, choice, out, "tokenizer"))
    with Spinner(out, "counting tokens"):
        tokenizer = load_tokenizer(config)
        counts = [len(tokenizer.encode(document.text)) for document in collection.documents]
        # The text of several has more: a line before each, and what merges across the seams.
        total = counts[0] if len(counts) == 1 else len(tokenizer.encode(collection.text))
    needs = estimate_needs(config, total)

    table = Table(["source", "kind", "pages", "characters", "tokens"], text_columns=2)
    for document, tokens in zip(collection.documents, counts, strict=True):
        pages = "-" if document.pages is None else _pages(document)
        row = [document.source, document.kind, pages]
        table.rows.append([*row, f"{len(document.text):,}", f"{tokens:,}"])
    if len(counts) > 1:
        table.rows.append(["all", "", "", f"{len(collection.text):,}", f"{total:,}"])
    table.show(out)
    _show_left_out(collection, out)
    if collection.skipped and not out.as_json:
        out.line()
        out.line(f"{plural(len(collection.skipped), 'file')} skipped")
        for skipped in collection.skipped if out.verbose else ():
            out.line(f"  {skipped.source}: {skipped.reason}")
    if not out.as_json:
        out.line()
        out.line(f"{total:,} tokens with {name}, policy {config.model.type}")
        out.line(_settings(config))
        if needs is None:
            out.line("memory and time are unknown: the model is not on this machine yet")
        elif needs.device == "cpu":
            both = size(needs.device_bytes + needs.host_bytes)
            out.line(
                f"memory: about {both} beside the program, {size(needs.weight_bytes)} of it weights"
            )
        else:
            out.line(
                f"memory: about {size(needs.device_bytes)} on {needs.device} "
                f"({size(needs.weight_bytes)} of it weights), {size(needs.host_bytes)} on the host"
            )
        if needs is not None and needs.seconds is not None:
            out.line(f"time: about {seconds(needs.seconds)} on {needs.device}, a rough guess")
        for note in () if needs is None else needs.notes:
            out.line(note)
    out.object(
        {
            "sources": list(sources),
            "documents": [
                {**_facts(document), "tokens": tokens}
                for document, tokens in zip(collection.documents, counts, strict=True)
            ],
            "skipped": [asdict(skipped) for skipped in collection.skipped],
            "left_out": all_left_out(collection),
            "tokens": total,
            "characters": len(collection.text),
            "needs": None if needs is None else asdict(needs),
            "preset": name,
            "policy": config.model.type,
            "settings": _chosen(config),
        }
    )
    check_budget(total, budget)


def _chosen(config: "Config") -> dict[str, Any]:
    """The settings that cost most, and where they come from."""
    from infllm.engine.config import UNCHOSEN

    model, origin = config.model, config.origins["model.n_local"]
    return {
        "n_init": model.n_init,
        "n_local": model.n_local,
        "topk": model.topk,
        "question_topk": model.short_topk,
        "block_size": model.block_size,
        "chunk_size": config.chunk_size,
        "read_back": config.read_back,
        "n_local_from": origin,
        "why": config.why_fitted if origin in UNCHOSEN else "",
    }


def _settings(config: "Config") -> str:
    """The same in a line."""
    chosen = _chosen(config)
    asked = chosen["question_topk"]
    by_questions = f" ({asked} by a question)" if asked != chosen["topk"] else ""
    looked_up = f", {chosen['topk']} units of {chosen['block_size']} looked up{by_questions}"
    units = looked_up if config.model.type == "inf-llm" else ""
    return (
        f"window {chosen['n_local']:,}{units}, chunks of {chosen['chunk_size']:,}: "
        f"{chosen['why'] or 'chosen by ' + chosen['n_local_from']}"
    )


def _show_left_out(collection: "Collection", out: Output) -> None:
    """What the sources hold and the text does not; samples with -v."""
    from infllm.cli.text import one_line, plural

    for document in collection.documents if not out.as_json else ():
        if not document.left_out:
            continue
        out.line()
        out.line(f"left out of {one_line(document.source)}")
        for one in document.left_out:
            out.line(f"  {plural(one.count, one.what)}")
            for sample in one.samples if out.verbose else ():
                out.line(f'    "{one_line(sample)}"')


def _pages(document: "Document") -> str:
    without = document.pages_without_text
    return f"{document.pages}" + (f" ({without} without text)" if without else "")


def _facts(document: "Document") -> dict[str, Any]:
    return {
        "source": document.source,
        "kind": document.kind,
        "title": document.title,
        "pages": document.pages,
        "pages_without_text": document.pages_without_text,
        "characters": len(document.text),
        "warnings": document.warnings,
        "left_out": [asdict(one) for one in document.left_out],
    }
