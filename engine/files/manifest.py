"""The manifest of a memory file: what belongs to it and how each file is known. Free of torch.

A memory file is a folder. `manifest.json` names every other file with its size and a SHA-256 of
all of it or, for tensor files, of its header, which holds checksums of the rest. Files are named
by that digest and never changed; the manifest is replaced, last and at once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from infllm.engine.errors import MemoryFileError

FORMAT = 2
MANIFEST = "manifest.json"
LOCK = "lock"
TEMPORARY = ".tmp-"
OURS = re.compile(r"(units|state|extra)-[0-9a-f]{16}(\.safetensors)?")  # named by a digest
READ_AGAIN = "remove the folder and read the document again"


@dataclass(frozen=True)
class Entry:
    """How a file is known: its size, and the SHA-256 of its first `hashed` bytes."""

    size: int
    hashed: int
    sha256: str


@dataclass(frozen=True)
class Segment:
    """A file of memory units `first` to `first + count - 1` of all layers."""

    first: int
    count: int
    file: str


@dataclass(frozen=True)
class Manifest:
    """What a memory file is. Counts are in tokens and units."""

    complete: bool  # False: a checkpoint of a reading that goes on
    key: dict[str, Any]  # model, tokenizer, settings: see `fingerprint`
    tokens_given: int
    tokens_read: int
    units: int
    state: str  # file
    segments: list[Segment]
    extra_files: dict[str, str]  # the caller's name -> file
    files: dict[str, Entry]
    extra: Any = None  # the caller's, as JSON
    written_by: str = field(default="", compare=False)

    def to_bytes(self) -> bytes:
        """The contents of `manifest.json`."""
        content = {"format": FORMAT, **asdict(self)}
        content["sha256"] = hashlib.sha256(_json(content)).hexdigest()
        return _json(content)

    @classmethod
    def of_bytes(cls, data: bytes, path: Path) -> Manifest:
        """What `to_bytes` wrote at `path`. Raises MemoryFileError: `newer`, `older`, `damaged`."""
        try:
            content = json.loads(data)
            written, _ = content.pop("format"), content.pop("sha256", None)
            if isinstance(written, int) and written != FORMAT:
                newer = written > FORMAT
                raise MemoryFileError(
                    f"{path.parent} is a memory of format {written}; this version knows {FORMAT}",
                    "update infllm, or read the document again" if newer else READ_AGAIN,
                    reason="newer" if newer else "older",
                )
            content["segments"] = [Segment(**segment) for segment in content["segments"]]
            content["files"] = {name: Entry(**entry) for name, entry in content["files"].items()}
            manifest = cls(**content)
            if manifest.to_bytes() != data:  # with the checksum, which this one has right
                raise ValueError("its checksum is of something else")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise damaged(path, str(error)) from error
        return manifest

    @property
    def size(self) -> int:
        """Bytes of all files but the manifest."""
        return sum(entry.size for entry in self.files.values())


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a memory file; looks at no other file.

    Raises MemoryFileError: `missing`, `newer`, `older`, `damaged`.
    """
    path = Path(folder) / MANIFEST
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MemoryFileError(f"{folder} holds no memory", reason="missing") from error
    except OSError as error:
        raise MemoryFileError(f"{path}: {error.strerror}", reason="storage") from error
    return Manifest.of_bytes(data, path)


def check_files(folder: Path, files: Mapping[str, Entry]) -> None:
    """Compare files with what is known of them.

    Raises MemoryFileError (`damaged`) that names the first that differs, FileNotFoundError.
    """
    for name, entry in files.items():
        path = folder / name
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size != entry.size:
                raise damaged(path, f"it has {size} bytes and should have {entry.size}")
            file.seek(0)
            digest = hashlib.sha256()
            left = entry.hashed
            while left and (block := file.read(min(left, 2**20))):
                digest.update(block)
                left -= len(block)
        if digest.hexdigest() != entry.sha256:
            raise damaged(path, "its checksum is of something else")


def read_extra(folder: str | Path, name: str, manifest: Manifest | None = None) -> bytes:
    """One of the caller's files, checked; `manifest`: of the folder, where it is known already.

    Raises MemoryFileError: `missing`, `newer`, `older`, `damaged`.
    """
    manifest = manifest or read_manifest(folder)
    try:
        file = manifest.extra_files[name]
        check_files(Path(folder), {file: manifest.files[file]})
        return (Path(folder) / file).read_bytes()
    except (KeyError, FileNotFoundError) as error:
        raise MemoryFileError(f"{folder} holds no {name}", READ_AGAIN, reason="missing") from error


def damaged(path: Path | str, why: str) -> MemoryFileError:
    """The error for a file that is not as it was written."""
    return MemoryFileError(f"{path} is damaged: {why}", READ_AGAIN)


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=1, sort_keys=True).encode() + b"\n"
