"""Memories that `ask` keeps for the next question, in the user's cache.

`INFLLM_CACHE_DIR` names another folder, `INFLLM_CACHE_MAX` the bytes of all memories (20GB) and
`INFLLM_CACHE_MAX_ONE` those of one (4GB); 0 keeps nothing. Documents are private: folders are
made with mode 0700.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infllm.cli.errors import InfllmError, UsageError
from infllm.cli.text import size

if TYPE_CHECKING:
    from infllm.cli.memory import Plan
    from infllm.engine import Engine

SUFFIX = ".mem"
UNITS = ("", "K", "M", "G", "T")


@dataclass(frozen=True)
class Kept:
    """A memory on disk. `used` is when it was last asked, in seconds since the epoch."""

    folder: Path
    bytes: int
    used: float
    tokens: int
    units: int
    sources: list[str]
    preset: str
    complete: bool
    seconds: float
    damage: str = ""

    @property
    def name(self) -> str:
        return self.folder.name.removesuffix(SUFFIX)


class CacheUnavailable(InfllmError):
    """There is no place for the cache."""


@dataclass(frozen=True)
class Limits:
    """Bytes of all memories together, and of one."""

    total: int
    one: int


def limits() -> Limits:
    """The caps of the user's cache. Raises UsageError for what is no size."""
    return Limits(_size("INFLLM_CACHE_MAX", "20GB"), _size("INFLLM_CACHE_MAX_ONE", "4GB"))


def _size(variable: str, default: str) -> int:
    return parse_size(os.environ.get(variable, default), variable)


def parse_size(text: str, name: str) -> int:
    """`20GB`, `500M`, `4GiB` or `0` in bytes; `name` is what gave it. Raises UsageError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([KMGT])(i(?=B))?)?B?\s*", text, re.IGNORECASE)
    if match is None:
        raise UsageError(f"{name} {text!r} is not a size", "write for example 20GB, 500M or 0")
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** UNITS.index((match[2] or "").upper()))


def cache_folder() -> Path:
    """Where memories are kept; it may not exist yet. Raises CacheUnavailable."""
    named = os.environ.get("INFLLM_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(named).expanduser() if named else Path(base).expanduser() / "infllm/memories"
    except RuntimeError as error:  # as in containers: neither HOME nor an entry for the user
        raise CacheUnavailable(
            "this user has no home folder for a cache (INFLLM_CACHE_DIR names another)",
            "name a folder: INFLLM_CACHE_DIR=/some/where",
        ) from error


def why(error: Exception) -> str:
    """In words, why the cache cannot be used."""
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    return str(getattr(error, "message", error))


def place_of(engine: "Engine", plan: "Plan") -> Path:
    """Where the memory of this reading is, or would be: by content, model, tokenizer, settings."""
    key = json.dumps([engine.session().key, plan.digest], sort_keys=True)
    return cache_folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}{SUFFIX}"


def refusal(engine: "Engine", tokens: int) -> str:
    """Why a memory of so many tokens is not kept; empty where it is."""
    caps = limits()
    needs = engine.estimate(tokens)
    bytes_ = needs.host_bytes + (needs.device_bytes if engine.device.type == "cpu" else 0)
    if bytes_ <= min(caps.one, caps.total):
        return ""
    return (
        f"it would take {size(bytes_)}, more than {size(min(caps.one, caps.total))}: keep it with "
        f"`infllm index SOURCE -o NAME.mem`, or raise INFLLM_CACHE_MAX_ONE"
    )


def look_at(folder: Path) -> Kept:
    """What is in a memory's folder; damage is told, not raised."""
    from infllm.cli.memory import about_memory, noted_time
    from infllm.engine.errors import MemoryFileError
    from infllm.engine.files import read_manifest

    files = [path for path in folder.iterdir() if path.is_file()]
    held = sum(path.stat().st_size for path in files)
    used = folder.stat().st_mtime
    try:
        about = about_memory(folder)
        manifest = read_manifest(folder)
    except MemoryFileError as error:
        return Kept(folder, held, used, 0, 0, [], "", False, 0.0, error.message)
    return Kept(
        folder,
        held,
        used,
        manifest.tokens_read,
        manifest.units,
        list(about["sources"]),
        preset_of(about["choice"]),
        manifest.complete,
        noted_time(folder),
    )


def preset_of(choice: dict[str, Any]) -> str:
    return str(choice.get("name") or choice.get("source") or "")


def memories(folder: Path | None = None) -> Iterator[Kept]:
    """All memories of the cache, the last used first."""
    folder = folder or cache_folder()
    if not folder.is_dir():
        return
    found = [look_at(path) for path in folder.glob(f"*{SUFFIX}") if path.is_dir()]
    yield from sorted(found, key=lambda kept: -kept.used)


def touch(folder: Path) -> None:
    """Note that a memory was used now; one that is not ours to touch stays as it is."""
    try:
        os.utime(folder)
    except OSError:
        return


def make_folder() -> None:
    """The cache's folder, for this user alone."""
    cache_folder().mkdir(mode=0o700, parents=True, exist_ok=True)


def prune(cap: int, keep: Path | None = None) -> list[Kept]:
    """Remove the memories that were not used for longest until all fit `cap` bytes.

    Neither `keep` nor one that is being written is removed. Gives what was.
    """
    held = list(memories())
    total = sum(kept.bytes for kept in held)
    removed = []
    for kept in reversed(held):
        if total <= cap:
            break
        if kept.folder != keep and remove(kept.folder):
            removed.append(kept)
            total -= kept.bytes
    return removed


def remove(folder: Path) -> bool:
    """Remove a memory; False where it is being written."""
    from infllm.engine.files import LOCK, MANIFEST
    from infllm.engine.files.storage import lock

    held = lock(folder / LOCK)
    if held is None:
        return False
    try:
        # The manifest first: what is half removed must not look like a memory.
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder)
    finally:
        os.close(held)
    return True
