"""What tokens at each distance weigh of themselves, to be taken off a token's significance.

HOMER (arXiv 2404.10308, 3.3): without it, what is near the end of a chunk seems to matter more.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from infllm.engine.attachment import Attachment, Call, OnePass
from infllm.engine.errors import ConfigError
from infllm.engine.policies import make_policy, run_policy
from infllm.engine.prune import BUILTIN_TEXT
from infllm.engine.readers.merged_pass import largest_products
from infllm.engine.sources import make_folder, models_folder

if TYPE_CHECKING:
    from infllm.engine.config import ModelConfig

ROWS = 64  # of a text's tokens, the last ones, that ask for the others
BIAS, ABOUT = "bias", "about"  # in the file: the table, and what it was made of


def sample_text(words: int, seed: int) -> str:
    """Text that goes on and on: each word follows its predecessor somewhere in a built-in text."""
    known = BUILTIN_TEXT.split()
    following: dict[str, list[str]] = {}
    for word, after in pairwise([*known, known[0]]):
        following.setdefault(word, []).append(after)
    chance = random.Random(seed)
    told = [chance.choice(known)]
    for _ in range(words - 1):
        told.append(chance.choice(following[told[-1]]))
    return " ".join(told)


class _Weighing(OnePass):
    """A pass of the plain model that looks at products of its last tokens."""

    def __init__(self, attachment: Attachment, config: ModelConfig, tokens: int) -> None:
        super().__init__(attachment)
        layers = attachment.layers
        self._layers = {layer.index: layer for layer in layers}
        self._policies = {layer.index: make_policy(config, layer) for layer in layers}
        rows = torch.arange(max(0, tokens - ROWS), tokens)  # [R]
        self._keys = rows[:, None] - torch.arange(tokens)  # [R, N]: key of a row and distance
        self.counts = (self._keys >= 0).sum(0)  # [N]
        self.sums: dict[int, Tensor] = {}  # by layer: float64 [N], over rows, of each distance

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, call: Call, scale: float,
        softcap: float | None, sink: Tensor | None,
    ) -> Tensor:  # fmt: skip
        rotary, first = self._layers[layer].rotary, q.shape[2] - len(self._keys)
        rows, keys = rotary.run(q[:, :, first:], first)[0], rotary.run(k, 0)[0]
        products = largest_products(rows, keys, scale).cpu()  # [R, N]
        of_distance = products.gather(1, self._keys.clamp_min(0))
        self.sums[layer] = of_distance.double().masked_fill(self._keys < 0, 0.0).sum(0)
        return run_policy(self._policies[layer], q, k, v, call, scale, softcap, sink)


def bias_of(attachment: Attachment, config: ModelConfig, texts: Iterable[Sequence[int]]) -> Tensor:
    """float32 [layers, N]: of each layer and distance, the mean over `texts` of N ids each of what
    `Homer` calls significance, in the plain model. `config`: any; its policy does not count."""
    origin = config.model_copy(update={"type": "origin"})
    means: list[Tensor] = []
    for ids in texts:
        weighing = _Weighing(attachment, origin, len(ids))
        tokens = torch.tensor([ids], device=attachment.device)
        positions = torch.arange(len(ids), device=attachment.device)[None]
        attachment.forward(tokens, positions, weighing)
        sums = torch.stack([weighing.sums[layer.index] for layer in attachment.layers])
        means.append(sums / weighing.counts)
    return torch.stack(means).mean(0).float()


def default_place(model: str, config: ModelConfig) -> Path:
    """Where the table of a model, told by its digest, is kept for this user. It need not exist."""
    key = json.dumps([model, config.base, config.distance_scale])
    name = hashlib.sha256(key.encode()).hexdigest()[:24]
    return models_folder().parent / "calibrations" / f"{name}.safetensors"


def save_bias(bias: Tensor, path: Path, about: dict[str, Any]) -> None:
    """Write a table, whole or not at all. Raises OSError."""
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.tmp")
    save_file({BIAS: bias.contiguous()}, temporary, {ABOUT: json.dumps(about, sort_keys=True)})
    temporary.replace(path)


def load_bias(path: Path) -> Tensor:
    """float32 [layers, distances]. Raises ConfigError for a file that is missing or no table."""
    hint = "make one with: infllm calibrate MODEL -o FILE"
    if not path.is_file():
        raise ConfigError(f"there is no calibration {path}", hint)
    try:
        with safe_open(path, "pt") as file:
            bias: Tensor = file.get_tensor(BIAS)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path} is no calibration: {error}", hint) from error
    if bias.dim() != 2:
        raise ConfigError(f"{path} is no calibration: its table has {bias.dim()} dimensions", hint)
    return bias.float()
