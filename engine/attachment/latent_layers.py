"""Layers with latent attention (MLA): what they hand over, and what memories take of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from infllm.engine.attachment.heads import HeadForm
from infllm.engine.attachment.latents import Latents
from infllm.engine.attachment.layer import Layer

BYTES = 2  # of a value in bfloat16


def with_latents(model: nn.Module, layers: Sequence[Layer]) -> list[Layer]:
    """`layers`, with how keys and values are made of latents where a layer has such, and shows
    them."""
    found = {module.layer_idx: module for module in _modules(model) if hasattr(module, "expand_kv")}
    result = []
    for layer in layers:
        module = found.get(layer.index)
        if module is not None and layer.split is None and layer.n_heads == layer.n_kv_heads:
            key = module.qk_nope_head_dim + module.qk_rope_head_dim
            form = layer.form or HeadForm(0, key, layer.head_dim)
            latents = Latents(module, form, layer.device, layer.dtype)
            layer = replace(layer, latents=latents if latents.holds(layer.n_heads) else None)
        result.append(layer)
    return result


@contextmanager
def handing_over(
    model: nn.Module, layers: Sequence[Layer], take: Callable[[int, Tensor], None]
) -> Iterator[None]:
    """Let `take` have the number of a layer with latents and those of each call, [B, 1, T, L]."""
    numbers = {layer.index for layer in layers if layer.latents is not None}
    modules = [m for m in _modules(model) if getattr(m, "layer_idx", None) in numbers]

    def telling(module: Any) -> Callable[[Tensor, Tensor], Any]:
        expand = module.expand_kv

        def tell(rest: Tensor, turned: Tensor) -> Any:
            take(module.layer_idx, torch.cat([turned, rest], dim=-1))
            return expand(rest, turned)

        return tell

    for module in modules:
        module.expand_kv = telling(module)
    try:
        yield
    finally:
        for module in modules:
            del module.expand_kv


def _modules(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if getattr(module, "kv_lora_rank", None)]


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
    """What memories take of a model's latent attention; None where it has none."""
    kept = latents = 0
    for layer in _modules(model):
        key = layer.qk_nope_head_dim + layer.qk_rope_head_dim
        kept += 2 * layer.num_heads * max(key, layer.v_head_dim)  # heads of one size, see HeadForm
        latents += layer.kv_lora_rank + layer.qk_rope_head_dim
    return Expanded(BYTES * kept, BYTES * latents) if kept else None
