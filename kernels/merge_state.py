"""Joining of partial attention states (FlashInfer, arXiv 2501.01005, section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from infllm.kernels.dispatch import triton_version


def merge_state(states: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Join states (o [B, H, T, D], lse [B, H, T]) into the state of one softmax over all keys.

    An attention-sink logit s enters as the state (o=0, lse=s). float32 in, float32 out; a query
    that sees nothing in any state keeps o = 0, lse = -inf.
    """
    if len(states) == 1:
        return states[0]
    if version := triton_version("merge_state", states[0][0]):
        return version(states)
    lses = torch.stack([lse for _, lse in states])  # [N, B, H, T]
    joint = torch.logsumexp(lses, dim=0)
    weight = torch.exp(lses - joint.masked_fill(joint.isneginf(), 0.0))
    o = torch.zeros_like(states[0][0])
    for w, (part, _) in zip(weight, states, strict=True):
        o.addcmul_(part, w[..., None])
    return o, joint
