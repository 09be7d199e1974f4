"""Memory policies: which keys a block of queries attends, and what is kept afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infllm.engine.policies.base import Policy
from infllm.engine.policies.inf_llm import InfLLM
from infllm.engine.policies.origin import Origin
from infllm.engine.policies.run import run_policy
from infllm.engine.policies.window import InfiniteLM, StreamLM, Window

if TYPE_CHECKING:
    from infllm.engine.attachment import Layer
    from infllm.engine.config import ModelConfig

__all__ = ["InfLLM", "Policy", "make_policy", "run_policy"]


def make_policy(config: ModelConfig, layer: Layer) -> Policy:
    """The memory of one layer. Layers made for a sliding window keep just that window."""
    if layer.sliding_window is not None:
        return Window(config, layer, layer.sliding_window)
    match config.type:
        case "origin":
            return Origin(config, layer)
        case "window":
            return Window(config, layer, config.n_local)
        case "stream-lm":
            return StreamLM(config, layer, config.n_local, config.n_init)
        case "infinite-lm":
            return InfiniteLM(config, layer, config.n_local, config.n_init)
        case "inf-llm":
            return InfLLM(config, layer)
    raise ValueError(f"no policy {config.type!r}")
