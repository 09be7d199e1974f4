"""Device and dtype of a run, by name.

torch decides where it is imported already. Else it is imported only where the machine itself does
not tell what torch would say: that takes seconds, and a prediction wants nothing else of torch.
"""

import ctypes
import sys
from pathlib import Path

from infllm.engine.errors import ConfigError


def device_name(name: str) -> str:
    """`name` with `auto` decided: `cpu`, `cuda` or `cuda:N`.

    Raises:
        ConfigError: a CUDA device is wanted and there is none.
    """
    if name == "auto":
        return "cuda" if has_cuda() else "cpu"
    if name.startswith("cuda") and not has_cuda():
        raise ConfigError(f"device {name}: this torch sees no CUDA device", "use --device cpu")
    return name


def dtype_name(name: str, device: str) -> str:
    """`name` with `auto` decided for a device of the type `device`: `cpu` or `cuda`.

    `auto` is bfloat16 where the device multiplies it natively, else float16 or float32: a CPU
    without it would emulate bfloat16, slower than float32.
    """
    if name != "auto":
        return name
    if device == "cpu":
        return "bfloat16" if cpu_has_bfloat16() else "float32"
    import torch

    return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"


def has_cuda() -> bool:
    """What `torch.cuda.is_available()` says."""
    if "torch" not in sys.modules and not _may_have_gpu_driver():
        return False
    import torch

    return torch.cuda.is_available()


def _may_have_gpu_driver() -> bool:
    """False where torch can see no device: neither CUDA's driver library nor ROCm's device file."""
    if sys.platform != "linux" or Path("/dev/kfd").exists():
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 natively (AVX-512), as torch would use it."""
    if "torch" not in sys.modules and sys.platform == "linux":
        return _cpu_has_flag("avx512_bf16")
    import torch

    has = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return has is not None and bool(has())


def _cpu_has_flag(flag: str) -> bool:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        return any(line.startswith("flags") and flag in line.split() for line in file)
