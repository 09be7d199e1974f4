"""Which policy the memory of a layer follows, by its name in the configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from infllm.engine.errors import ConfigError
from infllm.engine.policies.base import Policy
from infllm.engine.policies.chunk import Chunk
from infllm.engine.policies.fast_inf_llm import FastInfLLM
from infllm.engine.policies.infinite_hip import InfiniteHiP
from infllm.engine.policies.middle_lm import infinite_lm
from infllm.engine.policies.origin import Origin
from infllm.engine.policies.sirllm import SirLLM
from infllm.engine.policies.window import StreamLM, Window

if TYPE_CHECKING:
    from infllm.engine.attachment import Layer
    from infllm.engine.config import ModelConfig

# A name of `infllm.engine.config.PolicyName` -> what makes the memory of one layer.
POLICIES: dict[str, Callable[[ModelConfig, Layer], Policy]] = {
    "inf-llm": FastInfLLM,
    "infinite-lm": infinite_lm,
    "infinitehip": InfiniteHiP,
    "sirllm": SirLLM,
    "stream-lm": StreamLM,
    "window": Window,
    "origin": Origin,
}


def make_policy(config: ModelConfig, layer: Layer) -> Policy:
    """The memory of one layer. Layers made for a window or for chunks keep just that.

    Raises ConfigError.
    """
    if layer.chunk is not None:
        return Chunk(config, layer, layer.chunk)
    if layer.sliding_window is not None:
        return Window(config, layer, layer.sliding_window)
    if layer.split is not None and (config.type == "infinitehip" or config.faiss):
        what = "faiss" if config.faiss else config.type
        raise ConfigError(
            f"{what} cannot choose tokens for heads that are split over processes",
            "use inf-llm without faiss, or a device map",
        )
    return POLICIES[config.type](config, layer)
