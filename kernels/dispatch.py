"""Which version of a kernel a tensor takes."""

from __future__ import annotations

import importlib.util
import os
from functools import lru_cache

import torch
from torch import Tensor


def takes_triton(x: Tensor) -> bool:
    """CUDA tensors take Triton where it is installed, all others PyTorch.

    INFLLM_KERNELS=torch keeps to PyTorch. INFLLM_KERNELS=triton takes Triton on every device: on a
    CPU that needs TRITON_INTERPRET=1, set before the first kernel is loaded.
    """
    forced = os.environ.get("INFLLM_KERNELS")
    if forced is not None:
        return forced == "triton"
    return x.device.type == "cuda" and _installed()


@lru_cache
def has_fp8(device: torch.device) -> bool:
    """Whether kernels can be compiled for fp8 (e4m3) there: compute capability 8.9 and later."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 9)


@lru_cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None
