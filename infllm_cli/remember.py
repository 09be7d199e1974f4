"""From what a user names to a memory: opened if it was kept, read and kept if not."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infllm.cli.documents import is_memory
from infllm.cli.errors import UsageError
from infllm.cli.memory import (
    Memory,
    about_memory,
    open_memory,
    plan_reading,
    read_memory,
)
from infllm.cli.options import EngineChoice
from infllm.cli.output import Output
from infllm.cli.progress import Spinner
from infllm.cli.reading import (
    check_budget,
    open_all,
    open_config,
    open_engine,
    preset_name,
    read_documents,
)
from infllm.cli.text import count, seconds, size
from infllm.presets import names as preset_names

if TYPE_CHECKING:
    from infllm.cli.memory import Plan
    from infllm.engine import Engine
    from infllm.engine.config import Config

LEAST_KEPT = 4096  # tokens; what is shorter is read again as fast as it is found
# Settings of a run and not of what was read: a memory opens on any device.
OF_A_RUN = ("model.device", "device")


def remember(
    choice: EngineChoice,
    sources: Sequence[str],
    password: str | None,
    out: Output,
    *,
    question: str = "",
    budget: int | None = None,
    keep: bool = True,
) -> tuple["Engine", Memory]:
    """An engine, and a memory of the sources to ask.

    A memory's folder as the only source is opened. Other sources are read, unless a memory of the
    same content, model and settings is in the user's cache; what is read goes there if `keep`.

    Raises:
        UsageError: a memory among other sources.
        BudgetExceeded: more tokens than `budget`.
        infllm.engine.errors.MemoryFileError: the memory that was named cannot be used.
    """
    kept = [source for source in sources if is_memory(source)]
    if kept and len(sources) > 1:
        raise UsageError(
            f"{kept[0]} is a memory, and one memory is asked at a time",
            f"add documents to it with: infllm index --append SOURCE -o {kept[0]}",
        )
    if kept:
        return _opened(choice, Path(kept[0]), out, budget)
    collection, engine = open_all(choice, sources, password, out)
    plan = plan_reading(engine, collection, tail_tokens(engine, question), budget)
    return engine, _read_or_found(engine, plan, choice, out, keep)


def tail_tokens(engine: "Engine", question: str) -> int:
    """Tokens of a question's prompt behind the document."""
    from infllm.engine.text import build_prompt

    assert engine.tokenizer is not None
    return len(build_prompt(engine.tokenizer, engine.config, "ask", question=question).tail_ids)


def _opened(
    choice: EngineChoice, folder: Path, out: Output, budget: int | None
) -> tuple["Engine", Memory]:
    from infllm.cli import cache
    from infllm.engine import Verification

    choice = choice_of(folder, choice)
    config = open_config(choice)
    verification = Verification(folder)  # done when the model is loaded
    engine = open_engine(config, choice, out)
    with Spinner(out, f"opening {folder}"):
        memory = open_memory(engine, verification)
    check_budget(memory.reading.tokens_read, budget)
    cache.touch(folder)
    _tell_reuse(memory, out)
    return engine, memory


def choice_of(folder: Path, choice: EngineChoice) -> EngineChoice:
    """Preset and settings that a memory was read with, unless others are asked for by name."""
    recorded = about_memory(folder)["choice"]
    if choice.source is not None:
        return choice
    overrides = {**recorded.get("overrides", {}), **choice.overrides}
    return replace(choice, source=recorded.get("source"), overrides=overrides)


def recorded(choice: EngineChoice, config: "Config") -> dict[str, Any]:
    """`choice` as a memory keeps it."""
    overrides = {key: value for key, value in choice.overrides.items() if key not in OF_A_RUN}
    source = choice.source
    if source is not None and source not in preset_names() and Path(source).exists():
        source = str(Path(source).resolve())
    return {"source": source, "overrides": overrides, "name": preset_name(config, choice)}


def _read_or_found(
    engine: "Engine", plan: "Plan", choice: EngineChoice, out: Output, keep: bool
) -> Memory:
    from infllm.cli import cache
    from infllm.engine.errors import MemoryFileError

    how = recorded(choice, engine.config)
    if not keep or plan.tokens < LEAST_KEPT or not cache.limits().total:
        return read_memory(engine, plan, out, choice=how)
    refused = cache.refusal(engine, plan.tokens)
    if refused:
        out.note(f"this memory is not kept: {refused}")
        return read_memory(engine, plan, out, choice=how)
    folder = cache.place_of(engine, plan)
    if is_memory(str(folder)):
        try:
            with Spinner(out, f"opening {folder}"):
                memory = open_memory(engine, folder)
            memory.passages = plan.passages  # the same, with the sources as they are called now
            cache.touch(folder)
            _tell_reuse(memory, out)
            return memory
        except MemoryFileError as error:
            if error.reason != "unfinished":
                out.warn(f"{error.message}: reading again")
                cache.remove(folder)
    try:
        cache.make_folder()
        memory = read_memory(engine, plan, out, folder, how)
    except MemoryFileError as error:
        out.warn(f"this memory is not kept: {error.message}")
        return read_memory(engine, plan, out, choice=how)
    removed = cache.prune(cache.limits().total, keep=folder)
    if removed:
        for kept in removed:
            out.note(f"removed from the cache what was not used for longest: {kept.name}")
    return memory


def _tell_reuse(memory: Memory, out: Output) -> None:
    took = memory.reading.seconds
    saved = f": saved {seconds(took)} of reading" if took else ""
    out.note(f"reused the memory of {count(memory.reading.tokens_read)} tokens{saved}")


def index_sources(
    choice: EngineChoice,
    sources: Sequence[str],
    password: str | None,
    folder: Path,
    out: Output,
    budget: int | None = None,
) -> tuple["Engine", Memory]:
    """Read sources into a memory at `folder`; one that is there and whole is not read again.

    Raises:
        UsageError: there is another memory.
        infllm.engine.errors.MemoryFileError: it cannot be written.
    """
    from infllm.engine.errors import MemoryFileError

    config = open_config(choice)
    collection = read_documents(sources, password, out)
    engine = open_engine(config, choice, out)
    plan = plan_reading(engine, collection, tail_tokens(engine, ""), budget)
    how = recorded(choice, config)
    if is_memory(str(folder)):
        about = about_memory(folder)
        if about["digest"] != plan.digest:
            raise UsageError(
                f"{folder} is a memory of something else ({', '.join(about['sources'][:3])})",
                "name another folder, add to it with --append, or remove it with: "
                f"infllm memory rm {folder}",
            )
        try:
            memory = open_memory(engine, folder, whole=True)
            _tell_reuse(memory, out)
            return engine, memory
        except MemoryFileError:
            pass  # unfinished, damaged or of other settings: it is read on, or anew
    return engine, read_memory(engine, plan, out, folder, how)


def bytes_of(folder: Path) -> str:
    """Size of a memory on disk, in words."""
    return size(sum(path.stat().st_size for path in folder.iterdir() if path.is_file()))
