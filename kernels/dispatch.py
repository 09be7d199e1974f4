"""Which version of a kernel a tensor takes: PyTorch's, or the one in the table of Triton's."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

VERSIONS = "infllm.kernels.triton.versions"  # fills the table when it is imported
_triton: dict[str, Callable[..., Any]] = {}


def fill(versions: Mapping[str, Callable[..., Any]]) -> None:
    """Put the Triton versions of operations into the table, by their names."""
    _triton.update(versions)


def triton_version(operation: str, x: Tensor) -> Callable[..., Any] | None:
    """The Triton version of `operation`, to be called as the operation itself; None where `x`
    does not take it."""
    if not takes_triton(x):
        return None
    if not _triton:
        importlib.import_module(VERSIONS)  # by name: the versions need the contracts, not we them
    return on_device(_triton[operation], x.device)


def on_device(version: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """Triton launches on the current device: `version`, with `device` made that where it is not."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return version

    def there(*args: Any, **kwargs: Any) -> Any:
        with torch.cuda.device(device):
            return version(*args, **kwargs)

    return there


def takes_triton(x: Tensor) -> bool:
    """CUDA tensors take Triton where it is installed, all others PyTorch.

    INFLLM_KERNELS=torch keeps to PyTorch. INFLLM_KERNELS=triton takes Triton on every device: on a
    CPU that needs TRITON_INTERPRET=1, set before the first kernel is loaded. Beside a GPU, what is
    computed on the host goes on by PyTorch all the same.
    """
    forced = os.environ.get("INFLLM_KERNELS")
    if forced is None:
        return x.device.type == "cuda" and _installed()
    if x.device.type == "cpu" and torch.cuda.is_available():
        return forced == "triton" and os.environ.get("TRITON_INTERPRET") == "1"
    return forced == "triton"


@lru_cache
def has_fp8(device: torch.device) -> bool:
    """Whether kernels can be compiled for fp8 (e4m3) there: compute capability 8.9 and later."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 9)


@lru_cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None
