"""Dequantised models in the user's cache, each beside the tokenizer that its file describes.

A folder is named by the SHA-256 of the GGUF file: of all of its bytes, since two quantisations of
one model differ in some blocks alone, and making the copy reads them all anyway. A file's digest is
remembered by device, inode, size and time of change, so that it is computed once.

`INFLLM_CACHE_DIR` names another place. Free of torch.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infllm.engine.errors import ModelFileError

VERSION = 1  # of what the copies hold: raised where another one would be made of the same file
# In a folder of ours: which file it was made from; its tokenizer.json is to be used as it stands.
FROM_GGUF = "gguf.json"
WEIGHTS = "model.safetensors"
DIGESTS = "digests.json"
BLOCK = 1 << 22


@dataclass(frozen=True)
class Copy:
    """A folder of the cache. `whole`: it has weights, not the tokenizer alone."""

    folder: Path
    source: str
    bytes: int
    whole: bool


def models_folder() -> Path:
    """Where dequantised models are kept; it may not exist yet."""
    if named := os.environ.get("INFLLM_CACHE_DIR"):
        return Path(named).expanduser() / "models"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "infllm" / "models"


def copies() -> Iterator[Copy]:
    """All copies in the cache, by name."""
    folder = models_folder()
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            about = read_object(path / FROM_GGUF)
            held = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            yield Copy(path, str(about.get("path", "")), held, (path / WEIGHTS).is_file())


def remove(folder: Path) -> int:
    """Remove a copy; gives its bytes. Whoever has mapped it goes on with it."""
    held = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    (folder / WEIGHTS).unlink(missing_ok=True)  # first: what is half removed must look unfinished
    (folder / FROM_GGUF).unlink(missing_ok=True)
    shutil.rmtree(folder)
    return held


def folder_of(parts: tuple[Path, ...]) -> tuple[Path, str]:
    """The copy's folder for the parts of a file, and their digest; neither need be there."""
    digests = [digest_of(part) for part in parts]
    digest = digests[0] if len(digests) == 1 else _sha256_text("\n".join(digests))
    return models_folder() / f"{digest[:24]}-{VERSION}", digest


def _sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of(path: Path) -> str:
    """SHA-256 of a file, remembered as long as it stays as it is."""
    status = path.stat()
    key = f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"
    remembered = read_object(models_folder() / DIGESTS)
    if isinstance(remembered.get(key), str):
        return remembered[key]
    found = sha256_of(path)
    remembered = {**read_object(models_folder() / DIGESTS), key: found}
    with contextlib.suppress(OSError):  # it is then computed again
        make_folder(models_folder())
        write_json(models_folder() / DIGESTS, remembered)
    return found


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(BLOCK)
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file; an empty one where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def make_folder(path: Path) -> None:
    """A folder for this user alone, and so those above it that are not there yet: memories of
    documents, which are private, lie beside the models."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    write_whole(path, lambda beside: beside.write_text(json.dumps(content), encoding="utf-8"))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside `path`, which then takes its name; nothing stays if it fails.

    Raises what `write` raises.
    """
    forget_unfinished(path.parent)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    beside.unlink(missing_ok=True)
    try:
        write(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def forget_unfinished(folder: Path) -> None:
    """Remove what processes that are gone have left half written."""
    for path in folder.glob(".*.part"):
        number = path.name.split(".")[-2]
        if number.isdigit() and not _is_running(int(number)):
            path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def need_room(folder: Path, nbytes: int) -> None:
    """Raises ModelFileError where so many bytes would not fit the disk."""
    free = shutil.disk_usage(folder).free
    if free < nbytes + (64 << 20):
        raise ModelFileError(
            f"the dequantised model takes {nbytes / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free "
            f"in {folder}",
            "free some with: infllm models prune, or name another place with INFLLM_CACHE_DIR",
        )
