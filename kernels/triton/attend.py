"""Joint attention over several parts on a GPU: a launch for each part, one for their merge."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from infllm.kernels.partial_attention import Part
from infllm.kernels.triton.merge_state import merge_states
from infllm.kernels.triton.part_mass import part_mass
from infllm.kernels.triton.partial_attention import n_states, partial_states


def attend(
    parts: Sequence[Part],
    scale: float,
    softcap: float | None = None,
    sink: Tensor | None = None,
) -> tuple[Tensor, list[Tensor | None]]:
    """The contract of `infllm.kernels.attend.attend`, without a host sync."""
    q = parts[0].q
    b, h, t, _ = q.shape
    counts = [n_states(part) for part in parts]
    n = sum(counts)
    o = q.new_empty(n, b, h, t, parts[0].v.shape[-1], dtype=torch.float32)
    lse = q.new_empty(n, b, h, t, dtype=torch.float32)
    for part, some_o, some_lse in zip(parts, o.split(counts), lse.split(counts), strict=True):
        partial_states(part, scale, softcap, some_o, some_lse)
    out, joint = merge_states(o, lse, sink, q.dtype)
    masses = [part_mass(part, joint, scale, softcap) if part.mass else None for part in parts]
    return out, masses
