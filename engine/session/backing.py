"""What a session is given by who opens it; it knows nothing else of the engine, and no files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from infllm.engine.attachment import Attachment
    from infllm.engine.config import ModelConfig
    from infllm.engine.decode import Recorder


@dataclass(frozen=True)
class Backing:
    """The model that a session reads with, and what only the engine knows."""

    attachment: Attachment
    recorder: Recorder
    eos_ids: frozenset[int]
    # What a memory depends on, of a configuration and a chunk size: see `Session.key`.
    key: Callable[[ModelConfig, int], dict[str, Any]]
    save: Callable[..., None]  # a session to a folder, see `Session.save`
    # What is added to the embeddings of tokens that are read, [1, T, M]; None: nothing.
    guide: Callable[[Sequence[int]], Tensor] | None = None
    # Whether a single row is multiplied otherwise than rows together are, as with packed weights.
    rounds_rows: bool = False
