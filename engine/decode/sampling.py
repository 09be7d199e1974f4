"""The choice of the next token, by transformers' own logits processors."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.generation import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from infllm.engine.errors import ConfigError


class Sampler:
    """Greedy at temperature 0, else a seeded draw; remembers what it chose."""

    def __init__(
        self,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
    ) -> None:
        if temperature < 0:
            raise ConfigError(f"temperature must not be negative, got {temperature}")
        if not 0 < top_p <= 1:
            raise ConfigError(f"top_p must be above 0 and at most 1, got {top_p}")
        if top_k < 0:
            raise ConfigError(f"top_k must not be negative, got {top_k}")
        if repetition_penalty <= 0:
            raise ConfigError(f"repetition_penalty must be positive, got {repetition_penalty}")
        self._processors = LogitsProcessorList()
        if repetition_penalty != 1.0:
            self._processors.append(RepetitionPenaltyLogitsProcessor(repetition_penalty))
        self._greedy = temperature == 0.0
        if not self._greedy:
            self._processors.append(TemperatureLogitsWarper(float(temperature)))
            if top_k > 0:
                self._processors.append(TopKLogitsWarper(top_k))
            if top_p < 1.0:
                self._processors.append(TopPLogitsWarper(float(top_p)))
        self._seed = seed
        self._generator: torch.Generator | None = None
        self._chosen: list[int] = []

    def choose(self, logits: Tensor) -> int:
        """A token id from logits float32 [vocab]."""
        before = torch.tensor([self._chosen], dtype=torch.long, device=logits.device)
        scores = self._processors(before, logits[None].clone())
        if self._greedy:
            token = int(scores.argmax())
        else:
            token = int(torch.multinomial(scores.softmax(-1)[0], 1, generator=self._rng(logits)))
        self._chosen.append(token)
        return token

    def _rng(self, logits: Tensor) -> torch.Generator:
        if self._generator is None:
            self._generator = torch.Generator(logits.device)
            if self._seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(self._seed)
        return self._generator
