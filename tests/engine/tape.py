"""A CUDA graph without a GPU: what PyTorch computed is put on tape and computed again.

As with a graph, nothing of Python runs again, results come to the tensors that they came to first,
and what would make the host wait for the device is refused. Triton kernels that are interpreted are
launched again, with the arguments that they had.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
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
        self.launches = 0  # of Triton kernels
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
    with launches_to(tape), tape:
        run()
    return tape.replay


@contextmanager
def launches_to(tape: Tape) -> Iterator[None]:
    """Launches of interpreted kernels are put on tape, and not what the interpreter does."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        yield
        return
    from triton.runtime.interpreter import GridExecutor

    launch = GridExecutor.__call__

    def taped(executor: Any, *args: Any, **kwargs: Any) -> None:
        with _disable_current_modes():
            launch(executor, *args, **kwargs)
        tape.launches += 1
        tape.calls.append((partial(launch, executor), args, kwargs, []))

    with patch.object(GridExecutor, "__call__", taped):
        yield
