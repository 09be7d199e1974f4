"""`infllm index`: read documents once, into a memory that is asked for ever."""

from pathlib import Path
from typing import Annotated

import typer

from infllm.cli import options as opt
from infllm.cli.errors import UsageError


@opt.spread
def index(
    *,
    sources: opt.Sources = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="NAME.mem", help="Folder of the memory."),
    ] = None,
    append: Annotated[
        bool, typer.Option("--append", help="Add the sources to the memory that is there.")
    ] = False,
    flags: opt.EngineFlags,
    documents: opt.DocumentFlags,
    max_tokens: opt.Budget = None,
    dry_run: opt.DryRun = False,
    streams: opt.StreamFlags,
) -> None:
    """Read documents into a memory file, to ask as often as you like.

    A run that is stopped goes on where it was when the same command is given again.

    \b
    Examples:
      infllm index book.pdf -o book.mem
      infllm ask book.mem "Who inherits the house?"
      infllm index --append sequel.pdf -o book.mem
    """
    from infllm.cli.sources import need_sources

    out = streams.output("index")
    choice = flags.choice()
    example = "infllm index book.pdf -o book.mem"
    sources = need_sources(sources, example)
    if output is None:
        raise UsageError("no place for the memory given", f"for example: {example}")
    if dry_run:
        from infllm.cli.commands.inspect import report

        report(out, choice, sources, documents, max_tokens)
        return

    from infllm.cli.appending import append_to_memory
    from infllm.cli.opening import open_engine
    from infllm.cli.progress import peak_memory_bytes
    from infllm.cli.reading import check_budget
    from infllm.cli.remember import bytes_of, config_of, index_sources, tail_tokens
    from infllm.cli.sources import all_left_out, read_documents
    from infllm.cli.tasks.drafting import suffixes_of
    from infllm.cli.text import plural, size
    from infllm.engine import Verification

    folder = Path(output)
    if append:
        choice, config = config_of(folder, choice)
        verification = Verification(folder)  # done when the documents are read
        collection = read_documents(sources, documents, out)
        engine = open_engine(config, choice, out)
        check_budget(len(engine.tokenizer.encode(collection.text)), max_tokens)
        memory = append_to_memory(engine, verification, collection, tail_tokens(engine, ""), out)
    else:
        engine, memory = index_sources(choice, sources, documents, folder, out, max_tokens)
    if engine.config.draft == "document":
        suffixes_of(engine, memory, keep=True)
    read = memory.collection.documents
    engine.close()
    out.line(str(folder))
    out.object(
        {
            "memory": str(folder),
            "sources": [document.source for document in read],
            "left_out": all_left_out(memory.collection),
            **memory.reading.fields,
            "bytes": sum(path.stat().st_size for path in folder.iterdir() if path.is_file()),
            "peak_memory_bytes": peak_memory_bytes(),
        }
    )
    took = "" if memory.reused else f"{memory.reading.sentence}; "
    out.note(
        f"{took}{plural(len(read), 'document')}, {bytes_of(folder)} on "
        f"disk, peak memory {size(peak_memory_bytes())}"
    )
