"""Joint attention over several parts on a GPU: in one launch where they are of the kinds that
`joint_attention` knows, else in one for each part and one for their merge."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from infllm.kernels.partial_attention import Part, State
from infllm.kernels.triton.joint_attention import joint_attention, plan_of
from infllm.kernels.triton.merge_state import merge_states
from infllm.kernels.triton.part_mass import part_mass
from infllm.kernels.triton.partial_attention import n_states, partial_states
from infllm.kernels.triton.turn_keys import turned


def attend(
    parts: Sequence[Part],
    scale: float,
    softcap: float | None = None,
    sink: Tensor | None = None,
    before: State | None = None,
) -> tuple[Tensor, list[Tensor | None]]:
    """The contract of `infllm.kernels.attend.attend`, without a host sync."""
    parts = [turned(part) for part in parts]
    plan = plan_of(parts, scale)
    if plan is None:
        out, joint = _part_by_part(parts, scale, softcap, sink, before, parts[0].q.dtype)
    else:
        out, joint = joint_attention(plan, scale, softcap, sink, before)
    masses = [part_mass(part, joint, scale, softcap) if part.mass else None for part in parts]
    return out, masses


def attend_state(parts: Sequence[Part], scale: float, softcap: float | None = None) -> State:
    """The contract of `infllm.kernels.attend.attend_state`."""
    plan = plan_of(parts, scale)
    if plan is None:
        o, lse = _part_by_part(parts, scale, softcap, None, None, torch.float32)
    else:
        o, lse = joint_attention(plan, scale, softcap, keep=True)
    return State(o, lse)


def _part_by_part(
    parts: Sequence[Part],
    scale: float,
    softcap: float | None,
    sink: Tensor | None,
    before: State | None,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    q = parts[0].q
    b, h, t, _ = q.shape
    counts = [n_states(part) for part in parts]
    n = sum(counts) + (before is not None)
    o = q.new_empty(n, b, h, t, parts[0].v.shape[-1], dtype=torch.float32)
    lse = q.new_empty(n, b, h, t, dtype=torch.float32)
    for part, some_o, some_lse in zip(
        parts, o[: sum(counts)].split(counts), lse[: sum(counts)].split(counts), strict=True
    ):
        partial_states(part, scale, softcap, some_o, some_lse)
    if before is not None:
        o[-1], lse[-1] = before.o, before.lse
    return merge_states(o, lse, sink, dtype)
