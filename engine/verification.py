"""Checking memory files. Free of torch, which takes long to import."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np

from infllm.engine.errors import MemoryFileError
from infllm.engine.manifest import READ_AGAIN, Manifest, check_files, damaged, read_manifest
from infllm.engine.tensor_file import Seal, TensorFile, seal


@dataclass
class Rows:
    """The units of one layer in one file."""

    first: int  # unit
    seal: Seal

    @property
    def stop(self) -> int:
        return self.first + self.seal.count


@dataclass
class Files:
    """The checked files of a memory."""

    manifest: Manifest
    state: TensorFile
    rows: dict[int, list[Rows]]  # by layer

    def verify(self) -> None:
        """Check every unit. Raises MemoryFileError for the first that is damaged."""
        _at_once(rows.seal.check_all for layer in self.rows.values() for rows in layer)


def verify(folder: str | Path) -> None:
    """Check every byte of a memory file, finished or not; needs no model.

    Raises MemoryFileError: `missing`, `damaged` (naming the file), `newer`, `older`.
    """
    map_files(Path(folder), read_manifest(folder)).verify()


def map_files(folder: Path, manifest: Manifest) -> Files:
    """Map a memory's files and check all but the units themselves.

    Raises MemoryFileError: `missing`, `damaged` (naming the file), `storage`.
    """
    try:
        check_files(folder, manifest.files)
        state = TensorFile(folder / manifest.state)
        segments = [(s, TensorFile(folder / s.file)) for s in manifest.segments]
    except FileNotFoundError as error:
        raise MemoryFileError(
            f"{error.filename} is missing", READ_AGAIN, reason="missing"
        ) from error
    except OSError as error:
        raise MemoryFileError(f"{error.filename}: {error.strerror}", reason="storage") from error
    expected = state.metadata["sums"]
    checks = [partial(_check, state, name, expected[name]) for name in state.names]
    rows: dict[int, list[Rows]] = {}
    for segment, file in segments:
        table = file.raw("sums")
        if sha256(table.data).hexdigest() != file.metadata["content"]:
            raise damaged(file.path, "the table of checksums is of something else")
        sums = table.view(np.int64).reshape(file.place("sums").shape)
        layers, index_sums = file.metadata["layers"], file.metadata["index"]
        for column, (i, index_sum) in enumerate(zip(layers, index_sums, strict=True)):
            sealed = seal(file, i, file.metadata["rows"], sums[:, column])
            rows.setdefault(i, []).append(Rows(segment.first, sealed))
            checks.append(partial(_check, file, f"{i}.index", index_sum))
    _at_once(checks)
    return Files(manifest, state, rows)


def _check(file: TensorFile, name: str, total: int) -> None:
    if file.checksum(name) != total:
        raise damaged(file.path, f"the checksum of {name} is of something else")


def _at_once(checks: Iterable[Callable[[], None]]) -> None:
    """Raises what the first check that fails raises."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda check: check(), checks):
            pass
