"""Latent attention (MLA): keys and values of all heads come of one short vector a token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from infllm.engine.attachment.layer import HeadForm

if TYPE_CHECKING:
    from infllm.engine.attachment.layer import Layer

BYTES = 2  # of a value in bfloat16
TRIED = 3  # tokens


class Latents:
    """Latents of one layer's tokens, [.., L]: what is rotated of all keys, then what keys and
    values are made of. Not rotated, as all that a memory keeps."""

    def __init__(self, module: Any, layer: Layer) -> None:
        self._expand = module.expand_kv  # as it is now: the attachment puts another in its place
        self._turned = int(module.qk_rope_head_dim)
        self._rank = int(module.kv_lora_rank)
        self.size = self._turned + self._rank
        key = module.qk_nope_head_dim + self._turned
        self._form = layer.form or HeadForm(0, key, layer.head_dim)
        self._device, self._dtype = layer.device, layer.dtype

    @torch.no_grad()
    def expand(self, x: Tensor) -> Tensor:
        """Keys and values [n, 2, H, T, D], as memories keep them, of latents [n, T, L].

        One product for each of the n: how many come at once changes no bit.
        """
        return torch.stack([self._pages(part[None, None]) for part in x])

    def _pages(self, x: Tensor) -> Tensor:
        turned, rest = x.split([self._turned, self._rank], dim=-1)
        k, v = self._expand(rest, turned)
        return torch.stack([self._form.key(k, None)[0], self._form.value(v)[0]])

    def query(self, q: Tensor) -> Tensor:
        """float32 [B, H, T, L], whose products with latents are those of queries [B, H, T, D], as
        memories take them, with the keys expanded from these."""
        q = q[..., : self._form.key_dim].float().roll(self._form.first, dims=-1)
        plain, turned = q.split([q.shape[-1] - self._turned, self._turned], dim=-1)
        return torch.cat([turned, torch.einsum("bhtn,hrn->bhtr", plain, self._key_rows)], dim=-1)

    @cached_property
    @torch.no_grad()
    def _key_rows(self) -> Tensor:
        """float32 [H, rank, D - rotated]: the part of keys that each value of the latents makes."""
        one = torch.eye(self._rank, device=self._device, dtype=self._dtype)[None, None]
        keys, _ = self._expand(one, one[..., :1].expand(-1, -1, -1, self._turned) * 0)
        return keys[0, ..., : keys.shape[-1] - self._turned].float()

    def holds(self, layer: Layer) -> bool:
        """Whether keys are made of latents, as queries take them, in this layer."""
        x, q = (
            torch.arange(n * TRIED * d, device=self._device).cos().view(1, n, TRIED, d)
            for n, d in ((1, self.size), (layer.n_heads, self._form.key_dim))
        )
        page = self.expand(x[0].to(self._dtype))
        if page.shape[2:] != (layer.n_heads, TRIED, layer.head_dim):
            return False
        q = self._form.query(q, 1.0)
        want = q @ page[:, 0].float().transpose(2, 3)
        error = (self.query(q) @ x.transpose(2, 3) - want).abs().max() / want.abs().max()
        return bool(error <= (1e-4 if self._dtype == torch.float32 else 5e-2))


def with_latents(model: nn.Module, layers: Sequence[Layer]) -> list[Layer]:
    """`layers`, with how keys and values are made of latents where a layer has such, and shows
    them."""
    found = {module.layer_idx: module for module in _modules(model) if hasattr(module, "expand_kv")}
    result = []
    for layer in layers:
        module = found.get(layer.index)
        if module is not None and layer.split is None and layer.n_heads == layer.n_kv_heads:
            latents = Latents(module, layer)
            layer = replace(layer, latents=latents if latents.holds(layer) else None)
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
