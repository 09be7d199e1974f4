"""Storage formats of keys and values: int8 and fp8 with one scale per vector."""

from __future__ import annotations

import torch
from torch import Tensor

import triton
import triton.language as tl
from infllm.kernels.quantize import SCALED


@triton.jit
def quantize_kernel(
    x, codes, scales, n_rows, LARGEST: tl.constexpr, WHOLE: tl.constexpr,
    DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_ROWS: tl.constexpr,
):  # fmt: skip
    """Program i: vectors from i * BLOCK_ROWS on; WHOLE rounds to whole numbers, half to even."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    d = tl.arange(0, BLOCK_DIM)
    place = row[:, None] * DIM + d[None, :]
    shown = (row < n_rows)[:, None] & (d < DIM)[None, :]
    value = tl.load(x + place, mask=shown, other=0.0).to(tl.float32)
    scale = tl.div_rn(tl.maximum(tl.max(tl.abs(value), 1), 1e-12), LARGEST + tl.zeros_like(row))
    code = tl.div_rn(value, scale[:, None] + tl.zeros_like(value))
    if WHOLE:
        magic = 12582912.0  # 1.5 * 2**23: float32 has no bits behind the point there
        code = (code + magic) - magic
    tl.store(codes + place, code.to(codes.dtype.element_ty), mask=shown)
    tl.store(scales + row, scale, mask=row < n_rows)


@triton.jit
def dequantize_kernel(
    codes, scales, out, n_rows,
    DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_ROWS: tl.constexpr,
):  # fmt: skip
    """Program i: vectors from i * BLOCK_ROWS on."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    d = tl.arange(0, BLOCK_DIM)
    place = row[:, None] * DIM + d[None, :]
    shown = (row < n_rows)[:, None] & (d < DIM)[None, :]
    code = tl.load(codes + place, mask=shown, other=0.0).to(tl.float32)
    scale = tl.load(scales + row, mask=row < n_rows, other=0.0)
    tl.store(out + place, (code * scale[:, None]).to(out.dtype.element_ty), mask=shown)


def quantize(x: Tensor, kv_dtype: str) -> tuple[Tensor, Tensor]:
    """The contract of `infllm.kernels.quantize.quantize` for int8 and fp8, on a GPU.

    Cards before compute capability 8.9 have no fp8 (e4m3) conversion: int8 there.
    """
    dtype, largest = SCALED[kv_dtype]
    x = x.contiguous()
    codes = torch.empty_like(x, dtype=dtype)
    scales = torch.empty(*x.shape[:-1], 1, dtype=torch.float32, device=x.device)
    grid, blocks = _launch(x)
    quantize_kernel[grid](x, codes, scales, scales.numel(), largest, dtype is torch.int8, *blocks)
    return codes, scales


def dequantize(codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The contract of `infllm.kernels.quantize.dequantize` for scaled codes, on a GPU."""
    codes, scale = codes.contiguous(), scale.contiguous()
    out = torch.empty_like(codes, dtype=dtype)
    grid, blocks = _launch(codes)
    dequantize_kernel[grid](codes, scale, out, scale.numel(), *blocks)
    return out


def _launch(x: Tensor) -> tuple[tuple[int], tuple[int, int, int]]:
    """Grid, and DIM, BLOCK_DIM, BLOCK_ROWS."""
    dim = x.shape[-1]
    block_dim = triton.next_power_of_2(dim)
    rows = max(1, 4096 // block_dim)
    return (triton.cdiv(x.numel() // dim, rows),), (dim, block_dim, rows)
