"""A pass over tokens at any positions, as a node of merged chunks has them."""

from __future__ import annotations

import torch
from torch import Tensor

from infllm.engine.attachment import Attachment, Call, OnePass
from infllm.kernels.attend import attend
from infllm.kernels.partial_attention import Band, Part
from infllm.kernels.rotate import rotate

BLOCK = 512  # queries that are attended together


class MergedPass(OnePass):
    """A pass in which each token attends those before it in the list, wherever they stand.

    `kv`: what the layers that ran made, by layer: k and v [Hkv, N, D], not rotated. `products`, of
    the layer `watched`: float32 [N], see `largest_products`, of the last token. `logits` are good
    where the last layer ran.
    """

    def __init__(self, attachment: Attachment, positions: Tensor, watched: int) -> None:
        """`positions`: int64 [N]."""
        super().__init__(attachment)
        self.kv: dict[int, tuple[Tensor, Tensor]] = {}
        self.products = torch.empty(0)
        self._layers = {layer.index: layer for layer in attachment.layers}
        self._positions = positions
        self._watched = watched

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, call: Call, scale: float,
        softcap: float | None, sink: Tensor | None,
    ) -> Tensor:  # fmt: skip
        self.kv[layer] = k[0], v[0]
        rope = self._layers[layer].rotary.rope
        cos, sin = rope.cos_sin(self._positions.to(rope.freq.device))
        q, k = rotate(q, cos, sin, rope.layout), rotate(k, cos, sin, rope.layout)
        if layer == self._watched:
            self.products = largest_products(q[0, :, -1:], k[0], scale)[0]
        tokens = q.shape[2]
        out = q.new_empty(1, tokens, q.shape[1], v.shape[-1])
        for start in range(0, tokens, BLOCK):
            stop = min(start + BLOCK, tokens)
            rows = q[:, :, start:stop]
            parts = [Part(rows, k[:, :, start:stop], v[:, :, start:stop], band=Band(0, 0))]
            if start:
                parts.insert(0, Part(rows, k[:, :, :start], v[:, :, :start]))
            o, _ = attend(parts, scale, softcap, sink)
            out[:, start:stop] = o.transpose(1, 2)
        return out


def largest_products(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """float32 [R, N]: of rows q [H, R, D] and keys k [Hkv, N, D], both rotated, the largest scaled
    product over query heads, of which each KV head serves H / Hkv."""
    grouped = q.float().unflatten(0, (k.shape[0], -1))  # [Hkv, H / Hkv, R, D]
    products = grouped @ k.float()[:, None].transpose(-1, -2)
    return products.flatten(0, 1).amax(0) * scale
