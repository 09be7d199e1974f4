"""A session as tensor files: its units, which never change, and the rest, which is small."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from infllm.engine.files.draft import Draft, checksum, unit_checksums
from infllm.engine.files.tensor_file import rows_of_a_sum

if TYPE_CHECKING:
    from infllm.engine.session import Session
    from infllm.engine.units import UnitStore


def stores(session: Session) -> dict[int, UnitStore]:
    """The layers that have units, by their number."""
    policies = session.policies.items()
    units = {i: p.units for i, p in policies if p.units is not None}
    return {i: store for i, store in sorted(units.items()) if store.n}


def _key_bytes(store: UnitStore) -> int:
    """Bytes of the keys of one unit."""
    return store.views[0].slab.runs[0].kv[0, :, 0].nbytes


def unit_count(session: Session) -> int:
    """Units of each layer that has any: all have the same."""
    counts = {store.n for store in stores(session).values()}
    assert len(counts) <= 1
    return max(counts, default=0)


def draft_units(session: Session, start: int, stop: int) -> Draft:
    """A file of units `start` to `stop - 1` of all layers.

    For each layer `L.kv` [2 * n, 1, Hkv, block_size, D], all keys and then all values, since a
    lookup by keys reads those alone; likewise `L.scale` [2 * n, 1, Hkv, block_size, 1] of int8 and
    fp8; `L.index` [n, 1, R, D], see `UnitIndex`; and `sums` int64 [sums, layers, 2] of the keys and
    the values of so many units each as the header's `rows` says. The header also holds a SHA-256 of
    `sums` and a XXH3-64 of each index.

    Raises MemoryFileError where units that come from a file are damaged.
    """
    tensors: dict[str, list[Tensor]] = {}
    unit_sums: list[np.ndarray] = []
    index_sums: list[int] = []
    layers = stores(session)
    rows = rows_of_a_sum(max(map(_key_bytes, layers.values())))
    for i, store in layers.items():
        runs = [run for view in store.views for run in view.runs(start, stop)]
        for run in runs:
            if run.seal is not None:
                run.seal.check_all()
        index = [
            view.slab.index.rows(
                max(start - view.first, 0), min(stop - view.first, view.count)
            ).cpu()
            for view in store.views
            if view.first < stop and view.first + view.count > start
        ]
        kv = [run.kv for run in runs]
        scale = [run.scale for run in runs if run.scale is not None]
        tensors[f"{i}.kv"] = [part[:, :, x] for x in (0, 1) for part in kv]
        if scale:
            tensors[f"{i}.scale"] = [part[:, :, x] for x in (0, 1) for part in scale]
        tensors[f"{i}.index"] = index
        unit_sums.append(unit_checksums(kv, scale, rows))
        index_sums.append(checksum(*index))
    sums = np.ascontiguousarray(np.stack(unit_sums, axis=1))
    tensors["sums"] = [torch.from_numpy(sums)]
    content = sha256(sums.tobytes()).hexdigest()
    metadata = {
        "first": start, "rows": rows, "layers": list(layers), "content": content,
        "index": index_sums,
    }  # fmt: skip
    return Draft.of(tensors, metadata)


def draft_state(session: Session) -> Draft:
    """A file of all but the units: what each layer keeps, what waits, the last logits.

    The header holds the counts, how the units lay in slabs, and a XXH3-64 of each tensor.
    """
    progress = session.progress
    tensors = {"pending": torch.tensor(progress.pending, dtype=torch.int64)}
    if progress.logits is not None:
        tensors["logits"] = progress.logits
    if progress.kept is not None:
        tensors["kept.number"] = progress.kept.number
        tensors["kept.surprise"] = progress.kept.surprise
    counts: dict[str, dict[str, int]] = {}
    for i, policy in session.policies.items():
        counts[str(i)] = {}
        for name, value in policy.state().items():
            if isinstance(value, Tensor):
                tensors[f"{i}.{name}"] = value
            else:
                counts[str(i)][name] = value
    tensors = {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
    store = next(iter(stores(session).values()), None)
    metadata: dict[str, Any] = {
        "start": progress.start,
        "offset": progress.offset,
        "read": progress.read,
        "given": progress.given,
        "layers": counts,
        "slabs": [[v.slab.capacity, v.count] for v in store.views] if store else [],
        "growing": store is not None and store.growing,
        "sums": {name: checksum(x) for name, x in tensors.items()},
    }
    return Draft.of({name: [x] for name, x in tensors.items()}, metadata)
