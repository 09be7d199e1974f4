"""Latent attention (MLA): what memories keep of it, and what its own cache would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

BYTES = 2  # of a value in bfloat16


@dataclass(frozen=True)
class Expanded:
    """Bytes a token in bfloat16, of all layers with latent attention."""

    kept: int  # keys and values of all heads
    latents: int  # what these are expanded from

    def __str__(self) -> str:
        return (
            f"latent attention (MLA): memories keep keys and values expanded, {self.kept:,} bytes "
            f"a token in bfloat16; its latents would be {self.latents:,}"
        )


def expanded(model: nn.Module) -> Expanded | None:
    """What memories keep of a model's latent attention; None where it has none."""
    layers: list[Any] = [m for m in model.modules() if getattr(m, "kv_lora_rank", None)]
    if not layers:
        return None
    kept = latents = 0
    for layer in layers:
        key = layer.qk_nope_head_dim + layer.qk_rope_head_dim
        kept += 2 * layer.num_heads * max(key, layer.v_head_dim)  # heads of one size, see HeadForm
        latents += layer.kv_lora_rank + layer.qk_rope_head_dim
    return Expanded(BYTES * kept, BYTES * latents)
