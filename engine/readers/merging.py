"""A prompt read by merging its chunks, with what the model and nobody else knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from infllm.engine.attachment import Attachment, LayerRanges
from infllm.engine.errors import ConfigError
from infllm.engine.readers.calibration import bias_of, default_place, load_bias, sample_text
from infllm.engine.readers.homer import Homer, go_on_from
from infllm.engine.readers.merge_plan import MergePlan, plan_merges

if TYPE_CHECKING:
    from infllm.engine.config import HomerSettings, ModelConfig
    from infllm.engine.session import Session
    from infllm.engine.text import Tokenizer

LONGEST = 4096  # tokens of a node where nothing else is said: models of today may hold 100,000
PUBLISHED_WARMUP = 12  # layers


@dataclass(frozen=True)
class Merged:
    """What is left of a prompt. `session` goes on behind it; `kept`: tokens of the document, by
    their number in it, ascending; `read`: tokens that went through the model."""

    session: Session
    kept: list[int]
    read: int


class Merging:
    """The merging of one model: settings, its layers a few at a time, and its calibration."""

    def __init__(
        self, attachment: Attachment, ranges: Callable[[], LayerRanges], settings: HomerSettings,
        config: ModelConfig, digest: str,
    ) -> None:  # fmt: skip
        """`ranges`: of the model, asked for when something is read. `digest`: of it, by which its
        calibration is found."""
        self._attachment = attachment
        self._settings = settings
        self._config = config
        self._ranges = ranges
        self.place = default_place(digest, config)

    @property
    def longest(self) -> int:
        """Tokens of the longest node: half of what the model can hold, as published."""
        text = self._attachment.model.config.get_text_config(decoder=True)
        held = getattr(text, "max_position_embeddings", None) or 2 * LONGEST
        return self._settings.chunk or min(LONGEST, held // 2)

    @property
    def warmup(self) -> int:
        """Layers that chunks run before any merging: 12 as published, at most half of them. With
        9 of 24, Qwen2.5-0.5B drops by layers that do not know yet what is asked."""
        n = len(self._attachment.layers)
        own = self._settings.warmup
        return min(PUBLISHED_WARMUP, n // 2) if own is None else own

    def check_layers(self) -> None:
        """Raises UnsupportedModel, by name, where some of the model's layers cannot run alone."""
        self._ranges()

    @cached_property
    def bias(self) -> Tensor | None:
        """The calibration, float32 [layers, distances]; None where none was made.

        Raises ConfigError for one that is named and cannot be read.
        """
        if self._settings.calibration is not None:
            return load_bias(Path(self._settings.calibration).expanduser())
        return load_bias(self.place) if self.place.is_file() else None

    def plan(self, prefix: int, context: int, suffix: int) -> MergePlan:
        """The tree for a prompt of so many tokens. Raises ConfigError, see `plan_merges`."""
        longest = self.longest
        return plan_merges(
            prefix, context, suffix, longest=longest, target=self._settings.target or longest,
            n_layers=len(self._attachment.layers), warmup=self.warmup,
        )  # fmt: skip

    def read(
        self, prefix: Sequence[int], context: Sequence[int], suffix: Sequence[int],
        session: Session, told: Callable[[int], None] = lambda tokens: None,
    ) -> Merged:  # fmt: skip
        """The three parts of a prompt, read into `session`, a fresh one under full attention.

        `told` hears of the context's tokens as chunks are done.

        Raises:
            UnsupportedModel: some of the model's layers cannot run alone.
            ConfigError: no suffix, ids outside of the vocabulary, no room, or a calibration that
                does not fit.
        """
        ranges = self._ranges()
        if not suffix:
            raise ConfigError("merging asks with what stands behind the document: nothing does")
        ids = [*prefix, *context, *suffix]
        self._attachment.check_ids(ids)
        plan = self.plan(len(prefix), len(context), len(suffix))
        root = Homer(self._attachment, ranges, plan, self.bias).read(ids, told)
        go_on_from(session, root, plan)
        last = len(root) - len(suffix)
        kept = [token - len(prefix) for token in root.tokens[len(prefix) : last].tolist()]
        return Merged(session, kept, plan.read)

    def calibrate(
        self, tokenizer: Tokenizer, length: int | None = None, samples: int = 8, seed: int = 0,
        told: Callable[[int], None] = lambda tokens: None,
    ) -> Tensor:  # fmt: skip
        """A calibration of `samples` generated texts of `length` tokens, by default as many as a
        node has: float32 [layers, length]. `told` hears of the tokens of each text."""
        length = length or self.longest
        total: Tensor | None = None
        for number in range(samples):
            ids = tokenizer.encode(sample_text(length, seed * samples + number))[:length]
            bias = bias_of(self._attachment, self._config, [ids])
            total = bias if total is None else total + bias
            told(length)
        assert total is not None
        return total / samples
