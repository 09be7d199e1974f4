"""Opening memory files: everything is checked before it is used, units when they are or before.

An open session keeps its files mapped. A writer only adds and unlinks files, which a mapping
outlives; a file that something else cuts short under it ends the process, as with any mapping.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from infllm.engine.errors import MemoryFileError
from infllm.engine.files.fingerprint import refuse_other
from infllm.engine.files.manifest import read_manifest
from infllm.engine.files.snapshot import STATES
from infllm.engine.files.tensor_file import TensorFile
from infllm.engine.files.verification import Files, Rows, Verification, map_files
from infllm.engine.policies import KeptTokens, OffDevice
from infllm.engine.session import Progress
from infllm.engine.units import Run, by_unit

if TYPE_CHECKING:
    from infllm.engine.session import Session

ATTEMPTS = 5  # at a memory that is being replaced while it is opened


def open_memory(
    session: Session,
    source: str | Path | Verification,
    *,
    verify: bool = False,
    unfinished: bool = False,
) -> None:
    """Bring a memory into a session that was given nothing yet, see `Engine.open`.

    `unfinished`: a checkpoint will do.
    """
    folder = source.folder if isinstance(source, Verification) else Path(source)
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
            if isinstance(source, Verification):
                files = source.files(manifest)
            else:
                files = map_files(folder, manifest)
        except MemoryFileError as error:
            replaced = error.reason == "missing" and read_manifest(folder) != manifest
            if not replaced or attempt == ATTEMPTS - 1:
                raise
        else:
            break
    if verify:
        files.verify()
    _restore(session, files)


def _restore(session: Session, files: Files) -> None:
    state = files.state
    told = state.metadata
    device = session.backing.attachment.device
    logits = state["logits"].to(device, copy=True) if "logits" in state.names else None
    kept_tokens = None
    if "kept.number" in state.names:
        kept_tokens = KeptTokens(state["kept.number"].clone(), state["kept.surprise"].clone())
    session.restore(
        Progress(
            told["start"], told["offset"], told["read"], told["given"],
            state["pending"].tolist(), logits, kept_tokens,
        )
    )  # fmt: skip
    carried = {
        name.removeprefix(f"{STATES}."): state[name].clone()
        for name in state.names
        if name.startswith(f"{STATES}.")
    }
    session.states.restore(carried, told.get(STATES, {}))
    for i, policy in session.policies.items():
        kept: dict[str, Tensor | int] = dict(told["layers"][str(i)])
        for name in state.names:
            layer, _, leaf = name.partition(".")
            if layer == str(i):
                # Copied: a window that lives in a file would fault in the middle of a pass.
                kept[leaf] = state[name].to(policy.layer.device, copy=True)
        policy.restore(kept)
        if isinstance(policy, OffDevice) and i in files.rows:
            _adopt(policy, i, files.rows[i], told["slabs"], growing=told["growing"])
    session.manifest = files.manifest


def _adopt(
    policy: OffDevice, layer: int, rows: list[Rows], slabs: list[list[int]], *, growing: bool
) -> None:
    """Give a layer its units, in slabs as they were: [capacity, used] of each."""
    first = 0
    for number, (capacity, used) in enumerate(slabs):
        runs, index = [], []
        for part in rows:
            a, z = max(first, part.first), min(first + used, part.stop)
            if a < z:
                there = slice(a - part.first, z - part.first)
                file, scaled = part.seal.file, f"{layer}.scale"
                kv = _by_unit(file, f"{layer}.kv")[there]
                scale = _by_unit(file, scaled)[there] if scaled in file.names else None
                sealed = part.seal.part(there.start, there.stop)
                runs.append(Run(a - first, kv, scale, sealed))
                index.append(file[f"{layer}.index"][there])
        last = number == len(slabs) - 1
        policy.adopt(capacity, index, runs, growing=growing and last)
        first += used


def _by_unit(file: TensorFile, name: str) -> Tensor:
    """A view [n, 1, 2, ...] of the keys and values [2 * n, 1, ...] of a file."""
    return by_unit(file[name].unflatten(0, (2, -1)))
