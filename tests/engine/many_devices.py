"""Several devices on a machine that has none: real numbers on the CPU, with labels of devices.

`Labels` watches every call to torch: a tensor is where it was made or moved to, and a call that
mixes devices fails as it would on them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from transformers import PreTrainedModel

CPU = torch.device("cpu")
GETTERS = {
    Tensor.device.__get__: lambda device: device,  # type: ignore[attr-defined]
    Tensor.is_cuda.__get__: lambda device: device.type == "cuda",  # type: ignore[attr-defined]
    Tensor.is_cpu.__get__: lambda device: device.type == "cpu",  # type: ignore[attr-defined]
}
# What takes indices from the host beside tensors elsewhere.
INDEXING = (Tensor.__getitem__, Tensor.__setitem__)


class Labels(TorchFunctionMode):
    """While it is entered, tensors are where they say."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in GETTERS:
            return GETTERS[func](where(args[0]))
        target = kwargs.pop("device", None)
        if func is Tensor.cpu:
            target = CPU
        elif func is Tensor.to:
            args, target = _target(args, kwargs, target)
        elif func is Tensor.copy_:
            return func(*args, **kwargs)  # from anywhere
        device = self._common(func, args, kwargs)
        out = func(*args, **kwargs)
        device = torch.device(target) if target is not None else device
        if func in (Tensor.to, Tensor.cpu) and out is args[0] and device != where(out):
            out = out.clone()
        for x in tree_leaves(out):
            if isinstance(x, Tensor) and x is not kwargs.get("out"):
                x.label = device  # type: ignore[attr-defined]
        return out

    def _common(self, func: Any, args: Any, kwargs: Any) -> torch.device:
        found = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        places = {where(x) for x in found if x.ndim or where(x) != CPU}
        if func in INDEXING:
            places = {where(args[0])} | (places - {CPU})
        if len(places) > 1:
            raise RuntimeError(f"{func.__name__} of tensors on {sorted(map(str, places))}")
        return places.pop() if places else CPU


def where(x: Tensor) -> torch.device:
    """The device that a tensor says it is on."""
    return getattr(x, "label", CPU)


def _target(
    args: tuple[Any, ...], kwargs: dict[str, Any], target: Any
) -> tuple[tuple[Any, ...], Any]:
    """Arguments of `Tensor.to` without a device, and the device."""
    x, *rest = args
    kept = []
    for arg in rest:
        if isinstance(arg, (torch.device, str)):
            target = arg
        elif isinstance(arg, Tensor):
            target = where(arg)
            kept.append(arg.dtype)
        else:
            kept.append(arg)
    return (x, *(kept if kept or "dtype" in kwargs else [x.dtype])), target


def spread(model: PreTrainedModel, devices: dict[str, str]) -> None:
    """Put modules on devices by their names, and let what they are given come there, as
    accelerate's device map does."""
    for name, device in devices.items():
        module = model.get_submodule(name)
        for x in _tensors(module):
            x.label = torch.device(device)  # type: ignore[attr-defined]
        module.register_forward_pre_hook(_bringing(device), with_kwargs=True)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _bringing(device: str) -> Any:
    def bring(module: nn.Module, args: Any, kwargs: Any) -> Any:
        return tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, (args, kwargs))

    return bring
