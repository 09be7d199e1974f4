"""What the kernels over a part's keys are launched with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from infllm.kernels.dispatch import has_fp8
from infllm.kernels.partial_attention import Part


@dataclass(frozen=True, eq=False)
class KeyArguments:
    """A `Part`, told in tensors, strides and constants."""

    q: Tensor  # [B, H, T, D], the last stride 1
    tensors: tuple[Tensor | None, ...]  # table, scales of k and v, cos and sin of pages and places
    band: tuple[Tensor | None, int, int, int]  # shift, offset, low, high
    key_strides: tuple[int, ...]  # page or batch, head and row of k, v and their scales
    table_strides: tuple[int, int]  # batch and group
    group: int  # query heads that share a program
    page: int  # keys of a page, 0 for dense keys
    rotary: int  # dimensions that are rotated on load
    interleaved: bool


def arguments_of(part: Part) -> KeyArguments:
    """Raises ValueError where vectors are not contiguous (a launch never copies keys) or where the
    card has no fp8."""
    for name, x in (("k", part.k), ("v", part.v)):
        if x.stride(-1) != 1:
            raise ValueError(f"{name}: the stride of its last dimension is {x.stride(-1)}, not 1")
        if x.dtype is torch.float8_e4m3fn and not has_fp8(x.device):
            raise ValueError(f"{name}: fp8 needs compute capability 8.9; store int8")
    table = None if part.table is None else part.table.contiguous()
    scales = (part.k_scale, part.v_scale)
    strides = [
        s for x in (part.k, part.v, *scales) for s in ((0, 0, 0) if x is None else x.stride()[:3])
    ]
    band = part.band
    return KeyArguments(
        part.q if part.q.stride(-1) == 1 else part.q.contiguous(),
        (table, *scales, *_rope_tables(part)),
        (None, 0, 0, 0) if band is None else (part.shift, band.offset, band.low, band.high or 0),
        tuple(strides),
        (0, 0)
        if table is None
        else (table.stride(0), 0 if table.shape[1] == 1 else table.stride(1)),
        group_of(part),
        0 if table is None else part.k.shape[2],
        rotary_dim(part),
        part.rope is not None and part.rope.layout == "interleaved",
    )


def group_of(part: Part) -> int:
    """Query heads that attend the same keys: a KV group, or 1 where each has its own pages."""
    if part.table is not None and part.table.shape[1] != 1:
        return 1
    return part.q.shape[1] // part.k.shape[1]


def rotary_dim(part: Part) -> int:
    """Dimensions that are rotated on load; as in the reference, pages without `first` are not."""
    if part.rope is None or (part.table is not None and part.first is None):
        return 0
    return 2 * part.rope.freq.shape[0]


def _rope_tables(part: Part) -> tuple[Tensor | None, ...]:
    """cos and sin of each page's first key, [B, G, n, R/2], and of the places in a page.

    The rotation's scale is in the pages' table alone: the product of both has it once.
    """
    if part.rope is None or rotary_dim(part) == 0:
        return None, None, None, None
    device = part.q.device
    first = part.first
    if first is None:
        first = torch.zeros((), dtype=torch.int64, device=device)
    cos, sin = part.rope.cos_sin(first.to(device))
    angle = torch.arange(part.k.shape[2], device=device).double()[:, None] * part.rope.freq
    return cos.contiguous(), sin.contiguous(), angle.cos().float(), angle.sin().float()


def shares(programs: int, device: torch.device, most: int) -> int:
    """Programs among which the keys of one are spread, `most` at most: so many that the device's
    processors have two each, where there are fewer programs than half of the processors.

    A state of its own for each costs more than a processor that is idle for a while. How many
    there are decides how sums are rounded: a chunk's blocks together and one by one may differ in
    a result's last bits.
    """
    have = processors(device)
    return 1 if 2 * programs > have else max(1, min(most, 2 * have // programs))


@lru_cache
def processors(device: torch.device) -> int:
    """Streaming multiprocessors of a device; 1 for a CPU, where kernels are interpreted."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count
