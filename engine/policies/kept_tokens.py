"""Which tokens a SirLLM memory keeps: one list, by surprise, for all layers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from infllm.engine.errors import ConfigError

if TYPE_CHECKING:
    from infllm.engine.config import ModelConfig


@dataclass(frozen=True, eq=False)
class KeptTokens:
    """Tokens kept and their surprise, oldest first; on the host. Never written in place."""

    number: Tensor  # int64 [S], from the session's start
    surprise: Tensor  # float32 [S], decayed

    @classmethod
    def none(cls) -> KeptTokens:
        """What a session begins with."""
        return cls(torch.empty(0, dtype=torch.int64), torch.empty(0))

    def make_room(
        self, config: ModelConfig, tokens: int, *, decays: bool = True
    ) -> tuple[KeptTokens, Tensor | None]:
        """What stays when a turn of `tokens` tokens enters, and its places int64 [S'] in the list;
        None where all of it stays. `decays`: the turn is a new one, and not a token of an answer.

        Raises ConfigError as `refuse_turns`.
        """
        refuse_turns(config, tokens)
        places = self._places(config, tokens)
        kept = self if places is None else KeptTokens(self.number[places], self.surprise[places])
        if decays:
            kept = replace(kept, surprise=kept.surprise * config.decay)
        return kept, places

    def _places(self, config: ModelConfig, tokens: int) -> Tensor | None:
        """Initial tokens, those of the highest surprise, and the newest of the others.

        The arriving turn is paid from the share of the surprising ones.
        """
        left = config.n_init + config.n_entropy + config.n_recent - tokens
        n = len(self.number)
        if n <= left:
            return None
        stays = torch.arange(n) < config.n_init
        surprising = max(0, config.n_entropy - tokens)
        stays[self.surprise.argsort(descending=True, stable=True)[:surprising]] = True
        others = (~stays).nonzero()[:, 0]
        stays[others[len(others) - (left - int(stays.sum())) :]] = True
        return stays.nonzero()[:, 0]

    def append(self, first: int, surprise: Tensor) -> KeptTokens:
        """With a turn's tokens, numbered from `first` on: surprise float32 [m]."""
        number = torch.arange(first, first + len(surprise))
        return KeptTokens(
            torch.cat([self.number, number]), torch.cat([self.surprise, surprise.cpu()])
        )

    def ranges(self) -> list[tuple[int, int]]:
        """Neighbouring tokens that are kept, as (start, stop) from the session's start."""
        found: list[tuple[int, int]] = []
        for number in self.number.tolist():
            if found and found[-1][1] == number:
                found[-1] = (found[-1][0], number + 1)
            else:
                found.append((number, number + 1))
        return found


def refuse_turns(config: ModelConfig, tokens: int) -> None:
    """Raises ConfigError where there is no room for turns of `tokens` tokens beside the initial
    ones."""
    room = config.n_entropy + config.n_recent
    if tokens > room:
        raise ConfigError(
            f"sirllm has room for {room} tokens beside the initial ones, too few for turns of "
            f"{tokens}",
            "lower chunk_size, or raise n_entropy or n_recent",
        )


def random_scores(seed: int, first: int, n: int) -> Tensor:
    """float32 [n], uniform in [0, 1): of the tokens numbered from `first` on, always the same."""
    source = np.random.Philox(key=seed)
    source.advance(first // 4)  # it makes four numbers at a time
    drawn = np.random.Generator(source).random(n + first % 4)
    return torch.from_numpy(drawn[first % 4 :].astype(np.float32))
