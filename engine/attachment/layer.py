"""What the engine knows of one attention layer, and what it is told at each call."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from infllm.engine.attachment.devices import Split
from infllm.engine.attachment.heads import HeadForm
from infllm.engine.attachment.latents import Latents
from infllm.kernels.rotate import Rope, rotate


@dataclass(frozen=True, eq=False)
class Layer:
    """One attention layer of the attached model, as the probe found it."""

    index: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    device: torch.device
    dtype: torch.dtype
    rotary: Rotary
    sliding_window: int | None = None  # tokens that a layer made for a window may see
    chunk: int | None = None  # tokens of the chunks that a layer made for those sees one of
    form: HeadForm | None = None  # how heads come, where that is not as memories keep them
    split: Split | None = None  # processes that have the layer's other heads
    latents: Latents | None = None  # what its keys and values are made of, where it shows that


class Rotary:
    """Rotation of one layer's queries and keys, with its tables for small positions kept."""

    def __init__(self, rope: Rope) -> None:
        self.rope = rope
        self._cos, self._sin = rope.cos_sin(torch.arange(0, device=rope.freq.device))
        self._outgrown: list[Tensor] = []  # which recorded steps may still read

    def run(self, x: Tensor, start: int) -> Tensor:
        """Rotate x [B, heads, T, D] at positions `start` to `start + T - 1` (start >= 0)."""
        stop = start + x.shape[2]
        cos, sin = self.tables(stop)
        return rotate(x, cos[start:stop], sin[start:stop], self.rope.layout)

    def tables(self, stop: int) -> tuple[Tensor, Tensor]:
        """cos and sin [n, R/2] of positions 0 to n - 1, n at least `stop`."""
        if stop > self._cos.shape[0]:
            self._outgrown += [self._cos, self._sin]
            grown = torch.arange(max(1024, 2 * stop), device=self.rope.freq.device)
            self._cos, self._sin = self.rope.cos_sin(grown)
        return self._cos, self._sin

    def at(self, x: Tensor, position: int) -> Tensor:
        """Rotate every token of x [B, heads, T, D] to one position."""
        if position == 0 and self.rope.scale == 1.0:
            return x
        cos, sin = self.tables(position + 1)
        return rotate(x, cos[position], sin[position], self.rope.layout)


@dataclass(frozen=True, eq=False)
class Softmax:
    """How one layer turns products q.k into weights; the arguments of `attend`."""

    scale: float
    softcap: float | None = None
    sink: Tensor | None = None  # [H]


@dataclass
class UnitUse:
    """Attention mass that the units of one layer received in one block of queries."""

    layer: int
    start: Tensor  # int64 [B, G, n], absolute position of each unit's first token
    mass: Tensor  # float32 [B, H, n], summed over the block's queries


@dataclass
class Call:
    """One forward pass of the model, as all layers see it."""

    offset: int  # tokens of this segment before the call
    position: int  # absolute position of the call's first token
    watch_units: bool = False  # collect `unit_uses`
    closes: bool = True  # the segment ends with the call
    stays: Tensor | None = None  # int64 [S'], kept tokens that are kept on; None: all
    unit_uses: list[UnitUse] = field(default_factory=list)
    latents: dict[int, Tensor] = field(default_factory=dict)  # of a layer's tokens, [B, 1, T, L]
    # A step that is being recorded: it tells the host nothing and asks it for nothing; who replays
    # it brings the units and calls `Policy.advance`.
    recorded: bool = False
