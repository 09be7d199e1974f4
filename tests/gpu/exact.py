"""Attention in float64 on the CPU: what the kernels on a GPU must come close to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from infllm.kernels.partial_attention import Part, fold_mass, gather_keys
from infllm.kernels.rotate import Rope


def to_device(part: Part, device: torch.device | str) -> Part:
    """The part with all of its tensors there."""

    def move(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device)
        if isinstance(value, Rope):
            return replace(value, freq=value.freq.to(device))
        return value

    return replace(part, **{f.name: move(getattr(part, f.name)) for f in fields(part)})


def exact_attention(
    parts: Sequence[Part], scale: float, softcap: float | None = None, sink: Tensor | None = None
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """o [B, H, T, Dv] and lse [B, H, T] of one softmax over all parts, and each part's mass.

    A query without any key has o = 0 and lse = -inf.
    """
    logits, values = [], []
    for part in (to_device(part, "cpu") for part in parts):
        h = part.q.shape[1]
        q = part.q.double()
        wide = part if part.k_scale is not None else replace(
            part, k=part.k.double(), v=part.v.double()
        )  # fmt: skip
        k, v = (
            x.double().repeat_interleave(h // x.shape[1], dim=1)
            for x in gather_keys(replace(wide, q=q))
        )
        x = q @ k.transpose(2, 3) * scale
        if softcap is not None:
            x = softcap * torch.tanh(x / softcap)
        hidden = part.hidden()
        logits.append(x if hidden is None else x.masked_fill(hidden.cpu(), float("-inf")))
        values.append(v)
    every = torch.cat(logits, dim=-1)
    if sink is not None:
        lone = sink.double().cpu()[None, :, None, None].expand(*every.shape[:3], 1)
        every = torch.cat([every, lone], dim=-1)
    lse = torch.logsumexp(every, dim=-1)
    weights = [torch.exp(x - lse.masked_fill(lse.isneginf(), 0.0)[..., None]) for x in logits]
    o = sum(w @ v for w, v in zip(weights, values, strict=True))
    assert isinstance(o, Tensor)
    masses = [fold_mass(part, w.sum(dim=2)) for part, w in zip(parts, weights, strict=True)]
    return o, lse, masses
