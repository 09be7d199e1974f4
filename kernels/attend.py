"""Joint attention over several parts: the operation a layer calls, and its dispatch by device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from infllm.kernels.attend_cpu import attend_cpu
from infllm.kernels.dispatch import triton_version
from infllm.kernels.merge_state import merge_state
from infllm.kernels.partial_attention import Part, State, part_mass, partial_attention


def attend(
    parts: Sequence[Part],
    scale: float,
    softcap: float | None = None,
    sink: Tensor | None = None,
    before: State | None = None,
) -> tuple[Tensor, list[Tensor | None]]:
    """One softmax over the keys of all `parts`.

    Args:
        parts: at least one; all with queries [B, H, T, D] of the same shape, rotated each its way.
        scale: multiplies q.k.
        softcap: logits become `softcap * tanh(logits / softcap)` (Gemma 2).
        sink: float [H], a logit per head that takes weight and gives no value (gpt-oss).
        before: what the queries attended already, beside the parts; no masses are of it.

    Returns:
        o [B, H, T, Dv] in the queries' dtype, and for each part its mass (`Part.mass`) or None.
    """
    if version := triton_version("attend", parts[0].q):
        return version(parts, scale, softcap, sink, before)
    if parts[0].q.device.type != "cpu" or before is not None:
        return attend_reference(parts, scale, softcap, sink, before)
    return attend_cpu(parts, scale, softcap, sink)


def attend_state(parts: Sequence[Part], scale: float, softcap: float | None = None) -> State:
    """The state of one softmax over the keys of all `parts`, to go on from; see `attend`."""
    if version := triton_version("attend_state", parts[0].q):
        return version(parts, scale, softcap)
    o, lse = merge_state([partial_attention(part, scale, softcap) for part in parts])
    return State(o.contiguous(), lse)


def attend_reference(
    parts: Sequence[Part],
    scale: float,
    softcap: float | None = None,
    sink: Tensor | None = None,
    before: State | None = None,
) -> tuple[Tensor, list[Tensor | None]]:
    """The definition of `attend`: partial states, merged; masses from the joint logsumexp."""
    states = [partial_attention(part, scale, softcap) for part in parts]
    if before is not None:
        states.append((before.o, before.lse))
    o, lse = merge_state([*states, *_sink_states(states[0], sink)])
    masses = [part_mass(part, lse, scale, softcap) if part.mass else None for part in parts]
    return o.to(parts[0].q.dtype), masses


def _sink_states(like: tuple[Tensor, Tensor], sink: Tensor | None) -> list[tuple[Tensor, Tensor]]:
    if sink is None:
        return []
    o, lse = like
    return [(torch.zeros_like(o), sink.float()[None, :, None].expand_as(lse))]
