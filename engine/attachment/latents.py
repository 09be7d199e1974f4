"""Latent attention (MLA): keys and values of all heads come of one short vector a token."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from infllm.engine.attachment.heads import HeadForm

TRIED = 3  # tokens


class Latents:
    """Latents of one layer's tokens, [.., L]: what is rotated of all keys, then what keys and
    values are made of. Not rotated, as all that a memory keeps."""

    def __init__(
        self, module: Any, form: HeadForm, device: torch.device, dtype: torch.dtype
    ) -> None:
        """`form`: in which memories keep its heads."""
        self._expand = module.expand_kv  # as it is now: the attachment puts another in its place
        self._turned = int(module.qk_rope_head_dim)
        self._rank = int(module.kv_lora_rank)
        self.size = self._turned + self._rank
        self._form, self._device, self._dtype = form, device, dtype

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

    def holds(self, n_heads: int) -> bool:
        """Whether keys are made of latents, as queries take them."""
        x, q = (
            torch.arange(n * TRIED * d, device=self._device).cos().view(1, n, TRIED, d)
            for n, d in ((1, self.size), (n_heads, self._form.key_dim))
        )
        page = self.expand(x[0].to(self._dtype))
        if page.shape[2:] != (n_heads, TRIED, self._form.head_dim):
            return False
        q = self._form.query(q, 1.0)
        want = q @ page[:, 0].float().transpose(2, 3)
        error = (self.query(q) @ x.transpose(2, 3) - want).abs().max() / want.abs().max()
        del self._key_rows  # which only lookups by keys need
        return bool(error <= (1e-4 if self._dtype == torch.float32 else 5e-2))
