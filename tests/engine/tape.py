"""A CUDA graph without a GPU: what PyTorch computed is put on tape and computed again.

As with a graph, nothing of Python runs again, results come to the tensors that they came to first,
and what would make the host wait for the device is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

# `lift_fresh` is what `torch.tensor` calls: a copy from memory that is not pinned.
WAITS = (
    "_local_scalar_dense", "item", "equal", "nonzero", "is_nonzero", "masked_select", "unique",
    "lift_fresh",
)  # fmt: skip


class HostWaits(RuntimeError):
    """What a capture refuses."""


class Tape(TorchDispatchMode):
    """Records the operations that are called while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., Any], Any, Any, list[tuple[int, Tensor]]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.name().removeprefix("aten::").partition(".")[0]
        if name in WAITS or (name == "index" and _by_mask(args[1])):
            raise HostWaits(name)
        out = func(*args, **kwargs)
        given = {_storage(x) for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)}
        made = [
            (i, x)
            for i, x in enumerate(tree_flatten(out)[0])
            if isinstance(x, Tensor) and _storage(x) not in given
        ]
        self.calls.append((func, args, kwargs, made))
        return out

    def replay(self) -> None:
        for func, args, kwargs, made in self.calls:
            out = tree_flatten(func(*args, **kwargs))[0]
            for i, target in made:
                if out[i].numel():
                    target.copy_(out[i])


def _by_mask(indices: Any) -> bool:
    return any(isinstance(x, Tensor) and x.dtype is torch.bool for x in indices)


def _storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata


def record(run: Callable[[], None]) -> Callable[[], None]:
    """Like `infllm.engine.decode.decoder.record_cuda`."""
    run()
    tape = Tape()
    with tape:
        run()
    return tape.replay
