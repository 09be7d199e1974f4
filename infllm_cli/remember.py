"""From what a user names to a memory: opened if it was kept, read and kept if not."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infllm.cli.documents import is_memory
from infllm.cli.errors import UsageError
from infllm.cli.memory import (
    Memory,
    Unread,
    about_memory,
    digest_of,
    documents_of,
    open_memory,
    plan_reading,
    read_memory,
)
from infllm.cli.opening import open_all, open_config, open_engine, preset_name
from infllm.cli.options import DocumentFlags, EngineChoice
from infllm.cli.output import Output
from infllm.cli.progress import Spinner
from infllm.cli.reading import check_budget
from infllm.cli.sources import read_documents, tell_left_out
from infllm.cli.text import count, seconds, size
from infllm.presets import names as preset_names

if TYPE_CHECKING:
    from infllm.cli.memory import Plan
    from infllm.engine import Engine
    from infllm.engine.config import Config

LEAST_KEPT = 4096  # tokens; what is shorter is read again as fast as it is found
# Settings of a run and not of what was read: a memory opens on any device.
OF_A_RUN = ("model.device", "device")
# What the device decides, unless it is chosen: of a memory from another one that is told.
OF_THE_DEVICE = ("model.dtype",)


@dataclass(frozen=True)
class Prepared:
    """An engine and what it is to read, told apart by `digest`; `read` gives the memory of it, and
    `documents` what a reader takes in its place."""

    engine: "Engine"
    digest: str
    sources: list[str]
    read: Callable[[], Memory]
    documents: Callable[[], Unread]


def remember(
    choice: EngineChoice,
    sources: Sequence[str],
    documents: DocumentFlags,
    out: Output,
    *,
    question: str = "",
    budget: int | None = None,
    keep: bool = True,
) -> tuple["Engine", Memory]:
    """An engine, and a memory of the sources to ask; as `prepare`, and read at once."""
    prepared = prepare(choice, sources, documents, out, question=question, budget=budget, keep=keep)
    return prepared.engine, prepared.read()


def prepare(
    choice: EngineChoice,
    sources: Sequence[str],
    documents: DocumentFlags,
    out: Output,
    *,
    question: str = "",
    budget: int | None = None,
    keep: bool = True,
) -> Prepared:
    """An engine, and what is to be asked, before a token of it is read.

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
        return _opening(choice, Path(kept[0]), out, budget)
    collection, engine = open_all(choice, sources, documents, out)
    plan = plan_reading(engine, collection, tail_tokens(engine, question), budget)
    names = [document.source for document in collection.documents]
    return Prepared(
        engine,
        plan.digest,
        names,
        lambda: _read_or_found(engine, plan, choice, out, keep),
        lambda: plan.unread,
    )


def tail_tokens(engine: "Engine", question: str) -> int:
    """Tokens of a question's prompt behind the document."""
    from infllm.engine.text import build_prompt

    return len(build_prompt(engine.tokenizer, engine.config, "ask", question=question).tail_ids)


def _opening(choice: EngineChoice, folder: Path, out: Output, budget: int | None) -> Prepared:
    from infllm.cli import cache
    from infllm.engine import Verification

    choice, config = config_of(folder, choice)
    about = about_memory(folder)
    verification = Verification(folder)  # done when the model is loaded
    engine = open_engine(config, choice, out)

    def read() -> Memory:
        with Spinner(out, f"opening {folder}"):
            memory = open_memory(engine, verification)
        check_budget(memory.reading.tokens_read, budget)
        cache.touch(folder)
        tell_left_out(memory.collection, out)
        _tell_reuse(memory, out)
        return memory

    def documents() -> Unread:
        if about["turns"]:
            raise UsageError(
                f"{folder} holds a conversation, which a reader does not know",
                "leave out --reader, or name a memory of documents",
            )
        unread = documents_of(folder)
        check_budget(unread.given, budget)
        cache.touch(folder)
        tell_left_out(unread.passages.collection, out)
        return unread

    return Prepared(engine, digest_of(folder, about), list(about["sources"]), read, documents)


def choice_of(folder: Path, choice: EngineChoice) -> EngineChoice:
    """Preset and settings that a memory was read with, unless others are asked for by name."""
    recorded = about_memory(folder)["choice"]
    if choice.source is not None:
        return choice
    overrides = {**recorded.get("overrides", {}), **choice.overrides}
    return replace(choice, source=recorded.get("source"), overrides=overrides)


def config_of(folder: Path, choice: EngineChoice) -> tuple[EngineChoice, "Config"]:
    """The choice and the configuration that a memory is used with.

    What nobody chose is as it was when the memory was read: presets change, and what is fitted to a
    model is fitted to the device, too.
    """
    from infllm.engine.config import KNOWN, UNCHOSEN
    from infllm.engine.files import read_manifest

    name = about_memory(folder)["choice"].get("name")
    choice = choice_of(folder, choice)
    config = open_config(choice)
    gives_way = {*UNCHOSEN, f"preset {name}"}
    origins, now = config.origins, config.flat()
    then = {
        key: value
        for key, value in read_manifest(folder).key["settings"].items()
        if key in KNOWN and key not in OF_THE_DEVICE and origins[key] in gives_way
    }
    changed = {key: value for key, value in then.items() if now[key] != value}
    return choice, config.with_overrides(changed, "memory") if changed else config


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

    how = recorded(choice, engine.config)
    if not keep or plan.tokens < LEAST_KEPT or not cache.limits().total:
        return read_memory(engine, plan, out, choice=how)
    refused = cache.refusal(engine, plan.tokens)
    if refused:
        out.note(f"this memory is not kept: {refused}")
        return read_memory(engine, plan, out, choice=how)
    try:
        folder = cache.place_of(engine, plan)
        found = _found(engine, plan, folder, out)
        if found is not None:
            return found
        cache.make_folder()
    except (OSError, cache.CacheUnavailable) as error:
        out.warn(f"this memory is not kept: {cache.why(error)}")
        return read_memory(engine, plan, out, choice=how)
    memory = _read_and_kept(engine, plan, folder, how, out)
    if memory.folder is not None:
        try:
            removed = cache.prune(cache.limits().total, keep=folder)
        except OSError as error:
            out.warn(f"the cache could not be pruned: {cache.why(error)}")
            removed = []
        for kept in removed:
            out.note(f"removed from the cache what was not used for longest: {kept.name}")
    return memory


def _read_and_kept(
    engine: "Engine", plan: "Plan", folder: Path, how: dict[str, Any], out: Output
) -> Memory:
    """Read into the cache; where that cannot be written, in this process alone."""
    from infllm.cli import cache
    from infllm.engine.errors import MemoryFileError

    try:
        memory = read_memory(engine, plan, out, folder, how, or_unkept=True)
    except (OSError, MemoryFileError) as error:
        out.warn(f"this memory is not kept: {cache.why(error)}")
        memory = read_memory(engine, plan, out, choice=how)
    if memory.folder is None and not is_memory(str(folder)):
        with suppress(OSError):  # an empty folder, at most
            cache.remove(folder)
    return memory


def _found(engine: "Engine", plan: "Plan", folder: Path, out: Output) -> Memory | None:
    """The memory of the cache; None where there is none that can be used. Raises OSError."""
    from infllm.cli import cache
    from infllm.engine.errors import MemoryFileError

    if not is_memory(str(folder)):
        return None
    try:
        with Spinner(out, f"opening {folder}"):
            memory = open_memory(engine, folder)
    except MemoryFileError as error:
        if error.reason != "unfinished":
            out.warn(f"{error.message}: reading again")
            cache.remove(folder)
        return None
    memory.passages = plan.passages  # the same, with the sources as they are called now
    cache.touch(folder)
    _tell_reuse(memory, out)
    return memory


def _tell_reuse(memory: Memory, out: Output) -> None:
    took = memory.reading.seconds
    saved = f": saved {seconds(took)} of reading" if took else ""
    out.note(f"reused the memory of {count(memory.reading.tokens_read)} tokens{saved}")


def index_sources(
    choice: EngineChoice,
    sources: Sequence[str],
    documents: DocumentFlags,
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
    collection = read_documents(sources, documents, out)
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
