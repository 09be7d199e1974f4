"""Opening memory files: everything is checked before it is used, units when they are.

An open session keeps its files mapped. A writer only adds and unlinks files, which a mapping
outlives; a file that something else cuts short under it ends the process, as with any mapping.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from infllm.engine.errors import MemoryFileError
from infllm.engine.fingerprint import refuse_other
from infllm.engine.manifest import READ_AGAIN, Manifest, check_files, damaged, read_manifest
from infllm.engine.policies import InfLLM
from infllm.engine.tensor_file import Seal, TensorFile, checksum, seal
from infllm.engine.units import Run, by_unit

if TYPE_CHECKING:
    from infllm.engine.engine import Engine
    from infllm.engine.session import Session

ATTEMPTS = 5  # at a memory that is being replaced while it is opened


@dataclass
class Rows:
    """The units of one layer in one file."""

    first: int  # unit
    kv: Tensor  # [n, 1, 2, Hkv, block_size, D]
    scale: Tensor | None
    index: Tensor  # [n, 1, R, D]
    seal: Seal

    @property
    def stop(self) -> int:
        return self.first + self.kv.shape[0]


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
    _files(Path(folder), read_manifest(folder)).verify()


def open_memory(
    engine: Engine,
    folder: Path,
    *,
    verify: bool = False,
    unfinished: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> Session:
    """See `Engine.open`. `unfinished`: a checkpoint will do."""
    session = engine.session(overrides=overrides)
    for attempt in range(ATTEMPTS):
        manifest = read_manifest(folder)
        if not (manifest.complete or unfinished):
            raise MemoryFileError(
                f"{folder} is of a reading that was not finished",
                "read on from it with resume()",
                reason="unfinished",
            )
        refuse_other(str(folder), manifest.key, session.key)
        try:
            files = _files(folder, manifest)
        except MemoryFileError as error:
            replaced = error.reason == "missing" and read_manifest(folder) != manifest
            if not replaced or attempt == ATTEMPTS - 1:
                raise
        else:
            break
    if verify:
        files.verify()
    _restore(session, files)
    return session


def _files(folder: Path, manifest: Manifest) -> Files:
    """Map a memory's files and check all but the units themselves."""
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
        sums = file["sums"].numpy()
        if sha256(sums.tobytes()).hexdigest() != file.metadata["content"]:
            raise damaged(file.path, "the table of checksums is of something else")
        layers, index_sums = file.metadata["layers"], file.metadata["index"]
        for column, (i, index_sum) in enumerate(zip(layers, index_sums, strict=True)):
            kv = _by_unit(file, f"{i}.kv")
            scale = _by_unit(file, f"{i}.scale") if f"{i}.scale" in file.names else None
            sealed = seal(file, kv, scale, file.metadata["rows"], sums[:, column])
            found = Rows(segment.first, kv, scale, file[f"{i}.index"], sealed)
            rows.setdefault(i, []).append(found)
            checks.append(partial(_check, file, f"{i}.index", index_sum))
    _at_once(checks)
    return Files(manifest, state, rows)


def _by_unit(file: TensorFile, name: str) -> Tensor:
    """A view [n, 1, 2, ...] of the keys and values [2 * n, 1, ...] of a file."""
    return by_unit(file[name].unflatten(0, (2, -1)))


def _check(file: TensorFile, name: str, total: int) -> None:
    if checksum(file[name]) != total:
        raise damaged(file.path, f"the checksum of {name} is of something else")


def _at_once(checks: Iterable[Callable[[], None]]) -> None:
    """Raises what the first check that fails raises."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda check: check(), checks):
            pass


def _restore(session: Session, files: Files) -> None:
    state = files.state
    told = state.metadata
    session.start, session._offset = told["start"], told["offset"]
    session._read, session._given = told["read"], told["given"]
    session._pending = state["pending"].tolist()
    if "logits" in state.names:
        session._last_logits = state["logits"].to(session.engine.device, copy=True)
    for i, policy in session.policies.items():
        kept: dict[str, Tensor | int] = dict(told["layers"][str(i)])
        for name in state.names:
            layer, _, leaf = name.partition(".")
            if layer == str(i):
                # Copied: a window that lives in a file would fault in the middle of a pass.
                kept[leaf] = state[name].to(policy.layer.device, copy=True)
        policy.restore(kept)
        if isinstance(policy, InfLLM) and i in files.rows:
            _adopt(policy, files.rows[i], told["slabs"], growing=told["growing"])
    session.manifest = files.manifest


def _adopt(policy: InfLLM, rows: list[Rows], slabs: list[list[int]], *, growing: bool) -> None:
    """Give a layer its units, in slabs as they were: [capacity, used] of each."""
    first = 0
    for number, (capacity, used) in enumerate(slabs):
        runs, index = [], []
        for part in rows:
            a, z = max(first, part.first), min(first + used, part.stop)
            if a < z:
                there = slice(a - part.first, z - part.first)
                scale = None if part.scale is None else part.scale[there]
                sealed = part.seal.part(there.start, there.stop)
                runs.append(Run(a - first, part.kv[there], scale, sealed))
                index.append(part.index[there])
        last = number == len(slabs) - 1
        policy.adopt(capacity, index, runs, growing=growing and last)
        first += used
