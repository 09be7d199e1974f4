"""Launches counted without a device: Triton's own way to a launch, up to where the device begins.

A kernel is specialised, looked up among those compiled and launched as on a card of compute
capability 9.0, but for the compiling and the running: so launches, compilations and the host's time
are those of a card. What PyTorch computes on a GPU by a kernel of its own is counted beside them.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import triton.compiler
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from infllm.kernels.triton import arguments

# Calls that make the host wait for a device.
WAITS = ("tolist", "item", "cpu", "numpy", "nonzero", "__bool__", "__int__", "__float__",
         "__index__")  # fmt: skip
NO_KERNEL = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "detach",
             "lift_fresh", "set_", "resize_", "_pin_memory", "is_pinned")  # fmt: skip

PROCESSORS = 132  # of an H100 or H200

_devices = itertools.count(1000)  # each count knows nothing of what others have compiled
Stand = Callable[[dict[str, Any]], None]


@dataclass
class Counts:
    """What was launched, by name."""

    triton: Counter[str] = field(default_factory=Counter)
    torch: Counter[str] = field(default_factory=Counter)
    compiled: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)

    @property
    def launches(self) -> int:
        """Kernels in all."""
        return self.triton.total() + self.torch.total()

    def clear(self) -> None:
        """Begin anew; what is compiled stays so."""
        for counter in (self.triton, self.torch, self.compiled, self.waits):
            counter.clear()


class _Kernel:
    """What stands for a compiled kernel."""

    function = packed_metadata = None

    def __init__(self, source: Any, counts: Counts, stand: Stand | None) -> None:
        self._counts, self._stand = counts, stand
        self._name, self._arguments = source.fn.__name__, source.fn.arg_names

    def launch_metadata(self, *args: Any) -> None:
        return None

    def run(self, *args: Any) -> None:
        self._counts.triton[self._name] += 1
        if self._stand is not None:
            given = args[len(args) - len(self._arguments) :]
            with uncounted():
                self._stand(dict(zip(self._arguments, given, strict=True)))


class _Driver:
    """A card of compute capability 9.0, as far as launching asks."""

    def __init__(self) -> None:
        self._device = next(_devices)

    def get_current_device(self) -> int:
        return self._device

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_benchmarker(self) -> Callable[..., tuple[float, float, float]]:
        def once(call: Callable[[], object], **more: Any) -> tuple[float, float, float]:
            call()
            return 1.0, 1.0, 1.0

        return once


class _Operators(TorchDispatchMode):
    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self._counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.name().removeprefix("aten::").partition(".")[0]
        if launches(name, func, (args, kwargs), out):
            self._counts.torch[name] += 1
        return out


def launches(name: str, func: Any, given: Any, out: Any) -> bool:
    """Whether an operator's call is at least one kernel on a GPU: no view, no bare allocation."""
    if name in NO_KERNEL:
        return False
    if any(argument.alias_info and argument.alias_info.is_write for argument in
           func._schema.arguments):  # fmt: skip
        return True
    made = [x for x in tree_flatten(out)[0] if isinstance(x, Tensor)]
    storages = {_storage(x) for x in tree_flatten(given)[0] if isinstance(x, Tensor)}
    return any(x.numel() > 0 and _storage(x) not in storages for x in made)


def _storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata


@contextmanager
def uncounted() -> Iterator[None]:
    """What PyTorch does inside is no kernel: work of the host on tensors of its own."""
    with _disable_current_modes():
        yield


@contextmanager
def counted(
    stands: dict[str, Stand] | None = None, *, operators: bool = True, processors: int = PROCESSORS
) -> Iterator[Counts]:
    """Count launches of Triton kernels on tensors of any device, none of which compute anything.

    Args:
        stands: by a kernel's name what is done in its place, given its arguments by name.
        processors: of the device; fewer in proportion where queries are fewer than they stand for.
        operators: count PyTorch's as well, and what makes the host wait; these run.

    Not under TRITON_INTERPRET=1, where kernels are no longer Triton's.
    """
    counts = Counts()
    stands = stands or {}

    def compiled(source: Any, **more: Any) -> _Kernel:
        name = source.fn.__name__
        counts.compiled[name] += 1
        return _Kernel(source, counts, stands.get(name))

    def watched(name: str) -> Callable[..., Any]:
        call = getattr(Tensor, name)

        def run(self: Tensor, *args: Any, **kwargs: Any) -> Any:
            counts.waits[name] += 1
            return call(self, *args, **kwargs)

        return run

    before = driver._active
    with ExitStack() as stack:
        stack.enter_context(patch.object(arguments, "processors", lambda device: processors))
        stack.callback(driver.set_active, before)
        driver.set_active(_Driver())
        stack.enter_context(patch.object(triton.compiler, "compile", compiled))
        if operators:
            for name in WAITS:
                stack.enter_context(patch.object(Tensor, name, watched(name)))
            stack.enter_context(_Operators(counts))
        yield counts
