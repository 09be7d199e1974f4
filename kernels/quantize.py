"""Storage formats of keys and values: plain floats, int8 and fp8 with one scale per vector."""

from __future__ import annotations

import torch
from torch import Tensor

from infllm.kernels.dispatch import has_fp8, triton_version

PLAIN = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SCALED = {"int8": (torch.int8, 127.0), "fp8": (torch.float8_e4m3fn, 448.0)}


def storage_dtype(kv_dtype: str) -> torch.dtype:
    """The torch dtype that holds `kv_dtype` values."""
    return PLAIN[kv_dtype] if kv_dtype in PLAIN else SCALED[kv_dtype][0]


def quantize(x: Tensor, kv_dtype: str) -> tuple[Tensor, Tensor | None]:
    """Codes of x [..., D] and, for int8 and fp8, the float32 scale [..., 1] of each vector."""
    if kv_dtype in PLAIN:
        return x.to(PLAIN[kv_dtype]), None
    version = triton_version("quantize", x)
    if version is not None and (kv_dtype != "fp8" or has_fp8(x.device)):
        return version(x, kv_dtype)
    dtype, largest = SCALED[kv_dtype]
    scale = x.float().abs().amax(dim=-1, keepdim=True).clamp_min_(1e-12) / largest
    codes = x.float() / scale
    return (codes.round_() if dtype is torch.int8 else codes).to(dtype), scale


def dequantize(codes: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Values [..., D] in `dtype`."""
    if scale is None:
        return codes.to(dtype)
    version = triton_version("dequantize", codes)
    if version is not None and (codes.dtype is torch.int8 or has_fp8(codes.device)):
        return version(codes, scale, dtype)
    return (codes.float() * scale).to(dtype)
