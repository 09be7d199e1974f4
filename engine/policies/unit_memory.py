"""What the inf-llm policy keeps of a layer: initial tokens, units, a remainder; how they grow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from infllm.engine.errors import ConfigError
from infllm.engine.policies.off_device import OffDevice
from infllm.engine.policies.representatives import Cut, ReprScores, represent
from infllm.engine.units import FaissIndex, Run, UnitStore, keeps_latents

if TYPE_CHECKING:
    from infllm.engine.attachment import Call, Layer
    from infllm.engine.config import ModelConfig
    from infllm.engine.decode import StepTokens
    from infllm.engine.policies.call_tokens import CallTokens
    from infllm.engine.policies.lookup_scores import Lookup


class UnitMemory(OffDevice):
    """State of a layer, by position from the session's start:

    init (first n_init tokens that left the window) | units of block_size tokens | remainder.
    The remainder holds the window and what waits behind it to become a unit.
    """

    KEPT = (
        "count", "init_k", "init_v", "rest_k", "rest_v", "rest_latents", "account", "held",
        "likely", "visible",
    )  # fmt: skip

    def __init__(self, config: ModelConfig, layer: Layer) -> None:
        super().__init__(config, layer)
        if config.faiss and config.perhead:
            raise ConfigError("model.faiss and model.perhead exclude each other", "choose one")
        if config.faiss and config.keep_units:
            raise ConfigError("model.faiss and model.keep_units exclude each other", "choose one")
        if config.faiss and config.unit_score != "representatives":
            raise ConfigError(
                f"model.faiss and model.unit_score {config.unit_score} exclude each other",
                "choose one",
            )
        self.faiss: FaissIndex | None = None
        self.init_k: Tensor | None = None  # [B, Hkv, <= n_init, D], as stored: not rotated
        self.init_v: Tensor | None = None
        self.rest_k: Tensor | None = None  # [B, Hkv, R, D], not rotated
        self.rest_v: Tensor | None = None
        self.rest_latents: Tensor | None = None  # [B, 1, R, L], where units are made of these
        # What scores of the remainder's tokens go on from: float32, for mass [B, H, R], for dot
        # [B, H, R + 1, D]
        self.account: Tensor | None = None
        self.held: Tensor | None = None  # units of the last lookup by more than one token
        self.likely: Tensor | None = None  # those of most mass in it, if it ranked them by moments
        self.visible = 0  # units that lookups of this group may choose (chunk_topk_calc)
        self.record: list[Lookup | Cut] | None = None
        # Of the call under way.
        self.tokens: CallTokens | StepTokens
        self.repr_scores: ReprScores
        self.latents: Tensor | None = None  # [B, 1, R + T, L], as the tokens' keys

    @property
    def n_init(self) -> int:
        """Tokens that have moved to the init part so far."""
        return 0 if self.init_k is None else self.init_k.shape[2]

    @property
    def unit_size(self) -> int:
        return self.config.block_size

    def open_store(self, batch: int) -> UnitStore:
        self.units = UnitStore(self.config, self.layer, batch)
        if self.config.faiss:
            self.faiss = FaissIndex(batch, self.units.n_repr_heads * self.layer.head_dim)
        return self.units

    def open(self, k: Tensor, v: Tensor) -> tuple[UnitStore, tuple[Tensor, Tensor]]:
        """The units, and k, v [B, Hkv, R, D] of the remainder, for a call that brings k and v."""
        if self.units is None:
            self.open_store(k.shape[0])
            self.rest_k, self.rest_v = k[:, :, :0], v[:, :, :0]
        assert self.units is not None
        assert self.rest_k is not None
        assert self.rest_v is not None
        return self.units, (self.rest_k, self.rest_v)

    def unit_start(self, units: Tensor) -> Tensor:
        """Position from the session's start of each unit's first token."""
        return units * self.config.block_size + self.config.n_init

    def held_units(self) -> Tensor | None:
        """Units that decode steps attend besides their own."""
        return self.held if self.config.keep_units else None

    def position(self, index: int) -> int:
        """Position from the session's start of the token at `index` of the call's keys."""
        return self.count - self.tokens.past + index

    def grow_init(self, n: int) -> None:
        """Make the remainder's first n tokens initial ones."""
        tokens = self.tokens
        moved = slice(tokens.rest, tokens.rest + n)
        k, v = tokens.k[:, :, moved], tokens.v[:, :, moved]
        self.init_k = k.clone() if self.init_k is None else torch.cat([self.init_k, k], dim=2)
        self.init_v = v.clone() if self.init_v is None else torch.cat([self.init_v, v], dim=2)
        tokens.rest += n

    def cut(self, n: int) -> None:
        """Make the remainder's first n * block_size tokens units."""
        assert self.units is not None
        tokens = self.tokens
        a, z = tokens.rest, tokens.rest + n * self.config.block_size
        k_far = tokens.k_far[:, :, a:z]
        score = self.repr_scores.of(a, z, k_far)
        cut = represent(self.config, self.position(a), score, k_far)
        k, v = (x[:, :, a:z].unflatten(2, (n, -1)) for x in (tokens.k, tokens.v))
        made_of = self.latents
        if made_of is not None:
            made_of = made_of[:, :, a:z].unflatten(2, (n, -1))
        self.units.append(k, v, cut.vector, made_of)
        if self.faiss is not None:
            self.faiss.add(cut.vector)
        if self.record is not None:
            self.record.append(cut)
        tokens.rest = z

    def keep(self) -> None:
        """Close a call that was no step: keep what the next one needs."""
        self.count += self.tokens.n_new
        self.rest_k, self.rest_v = self.tokens.remainder()
        self.account = self.repr_scores.rest(self.tokens.rest)
        self.keep_latents(self.tokens.rest)

    def take_latents(self, call: Call) -> None:
        """Those of a call's tokens, behind those that are kept."""
        new = call.latents.pop(self.layer.index, None)
        if new is not None and keeps_latents(self.config, self.layer):
            old = self.rest_latents
            self.latents = new if old is None else torch.cat([old, new], dim=2)

    def keep_latents(self, first: int) -> None:
        """Keep those of the call's keys `first` on."""
        if self.latents is not None:
            kept = self.latents[:, :, first:]
            self.rest_latents = kept.clone() if first else kept
            self.latents = None

    def in_sight(self) -> list[tuple[int, int]]:
        rest = 0 if self.rest_k is None else self.rest_k.shape[2]
        return [(0, self.n_init), (self.count - rest, self.count)]

    def fork(self) -> Self:
        other = super().fork()
        if self.faiss is not None:
            other.faiss = self.faiss.fork()
        if self.record is not None:
            other.record = list(self.record)
        return other

    def adopt(self, capacity: int, index: list[Tensor], runs: list[Run], *, growing: bool) -> None:
        super().adopt(capacity, index, runs, growing=growing)
        if self.faiss is not None:
            self.faiss.add(torch.cat(index).permute(1, 2, 0, 3))
