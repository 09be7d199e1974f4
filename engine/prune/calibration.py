"""Text that importance is measured on, as sequences of one length."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from infllm.engine.errors import ConfigError

EXAMPLES, LENGTH = 10, 64  # published, of BookCorpus


def calibration_sequences(ids: Sequence[int], n: int = EXAMPLES, length: int = LENGTH) -> Tensor:
    """int64 [n, length]: parts of the text that do not overlap, spread evenly over it.

    Raises ConfigError for a text that is too short.
    """
    if n < 1 or length < 2:
        raise ConfigError(f"{n} sequences of {length} tokens give no loss to take gradients of")
    if len(ids) < n * length:
        raise ConfigError(
            f"{n} sequences of {length} tokens take {n * length:,} tokens of text, and there are "
            f"{len(ids):,}",
            "give a longer text with --calibrate, or lower --examples or --length",
        )
    last = len(ids) - length
    starts = [round(i * last / max(1, n - 1)) for i in range(n)]
    return torch.tensor([list(ids[start : start + length]) for start in starts])
