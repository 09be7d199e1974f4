"""The large model of LLM-to-SLM: it reads a prompt once, and its states are taken from a layer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from infllm.engine.errors import ConfigError, UnsupportedModel
from infllm.engine.text import Tokenizer

SAMPLES = 4096  # values of each tensor that tell one encoder from another


class Encoder:
    """The first `layer` layers of a decoder-only model, frozen; `model` is cut to them.

    The last layers predict the next token rather than tell of this one: which layer is a setting of
    the method (arXiv 2402.16844, section 3). States are divided by their root mean square, since
    single channels of a residual stream may be a thousand times larger than the rest.

    Raises ConfigError for a layer that is not there, UnsupportedModel for a model without layers.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer, layer: int) -> None:
        decoder = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
        layers = getattr(decoder, "layers", None)
        if not isinstance(layers, nn.ModuleList) or not isinstance(
            getattr(decoder, "norm", None), nn.Module
        ):
            raise UnsupportedModel(
                f"{type(model).__name__} has no layers of Llama's form to take states from"
            )
        if not 1 <= layer <= len(layers):
            raise ConfigError(f"the encoder has no layer {layer}: it has 1 to {len(layers)}")
        decoder.layers = layers[:layer]
        decoder.norm = nn.Identity()
        self.decoder = decoder.eval().requires_grad_(False)
        self.tokenizer, self.layer = tokenizer, layer
        self.longest = int(getattr(model.config, "max_position_embeddings", 0) or 2048)

    @property
    def size(self) -> int:
        """Of a state."""
        return int(self.decoder.get_input_embeddings().weight.shape[1])

    @torch.no_grad()
    def states(self, ids: Sequence[int]) -> Tensor:
        """float32 [T, size] of a text; of more than the model was trained on, part by part."""
        device = self.decoder.get_input_embeddings().weight.device
        parts = []
        for start in range(0, len(ids), self.longest):
            part = torch.tensor([list(ids[start : start + self.longest])], device=device)
            parts.append(self.decoder(input_ids=part, use_cache=False).last_hidden_state[0].float())
        if not parts:
            return torch.zeros(0, self.size, device=device)
        states = torch.cat(parts)
        return states / states.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-6)

    def digest(self) -> str:
        """SHA-256 of the layers, as bfloat16: the same whatever dtype they were loaded in."""
        digest = hashlib.sha256(f"{self.layer}".encode())
        for name, x in sorted(self.decoder.state_dict().items()):
            digest.update(f"{name} {tuple(x.shape)}".encode())
            flat = x.detach().reshape(-1)
            if flat.numel() > SAMPLES:
                spread = torch.arange(SAMPLES, device=x.device) * (flat.numel() - 1)
                flat = flat[spread // (SAMPLES - 1)]
            digest.update(flat.bfloat16().cpu().view(torch.int16).numpy().tobytes())
        return digest.hexdigest()
