"""Checking memory files, at once or beside other work. Free of torch, which takes long to import.

The check of all units reads all of a memory. A command line starts it before anything else, as a
`Verification`: while torch is imported and the model loads, it is done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Thread

import numpy as np

from infllm.engine.errors import MemoryFileError
from infllm.engine.files.manifest import READ_AGAIN, Manifest, check_files, damaged, read_manifest
from infllm.engine.files.tensor_file import Seal, TensorFile, seal

# Bytes of a memory that is checked whole when a command opens it: nearly two million tokens of the
# built-in model. To read 64 GiB would cost what a memory file is there to save.
CHECKED_WHOLE = 2**32
THREADS = 8  # of a check that nothing else waits beside: more do not read memory any faster


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

    def verify(self, threads: int | None = None) -> None:
        """Check every unit. Raises MemoryFileError for the first that is damaged."""
        _run((rows.seal.check_all for layer in self.rows.values() for rows in layer), threads)


class Verification:
    """A check of a memory that runs in a thread of its own, and ends with the process.

    Of a memory above `CHECKED_WHOLE` bytes it leaves units to be checked before their first use.

    Raises on creation, from the manifest alone, MemoryFileError: `missing`, `damaged`, `newer`,
    `older`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(folder)
        self._files: Future[Files] = Future()
        # No pool: Python waits for the threads of one before it ends, also after Ctrl-C.
        Thread(target=self._fill, name="verification", daemon=True).start()

    def files(self, manifest: Manifest) -> Files:
        """The files of the manifest that is there now, checked; waits for it.

        Raises MemoryFileError: `missing`, `damaged` (naming the file), `storage`.
        """
        if manifest != self.manifest:  # the memory was replaced since
            return _checked(self.folder, manifest)
        return self._files.result()

    def _fill(self) -> None:
        try:
            self._files.set_result(_checked(self.folder, self.manifest, threads=1))
        except BaseException as error:
            self._files.set_exception(error)


def verify(folder: str | Path) -> None:
    """Check every byte of a memory file, finished or not; needs no model.

    Raises MemoryFileError: `missing`, `damaged` (naming the file), `newer`, `older`.
    """
    map_files(Path(folder), read_manifest(folder)).verify()


def _checked(folder: Path, manifest: Manifest, threads: int | None = None) -> Files:
    files = map_files(folder, manifest, threads)
    if manifest.size <= CHECKED_WHOLE:
        files.verify(threads)
    return files


def map_files(folder: Path, manifest: Manifest, threads: int | None = None) -> Files:
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
    _run(checks, threads)
    return Files(manifest, state, rows)


def _check(file: TensorFile, name: str, total: int) -> None:
    if file.checksum(name) != total:
        raise damaged(file.path, f"the checksum of {name} is of something else")
    file.release()


def _run(checks: Iterable[Callable[[], None]], threads: int | None) -> None:
    """Raises what the first check that fails raises. `threads`: None for one a core."""
    if threads == 1:
        for check in checks:
            check()
        return
    with ThreadPoolExecutor(threads or min(THREADS, os.cpu_count() or 1)) as pool:
        for _ in pool.map(lambda check: check(), checks):
            pass
