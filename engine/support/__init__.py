"""Which models are served: found by serving a tiny one of the same architecture."""

from typing import TYPE_CHECKING

from infllm.engine.lazy import lazily

if TYPE_CHECKING:
    from infllm.engine.support.examination import NotServed, Support, examine, examine_config
    from infllm.engine.support.tiny import build, tiny_config

__all__ = ["NotServed", "Support", "build", "examine", "examine_config", "tiny_config"]

__getattr__ = lazily(
    __name__,
    {
        "examination": ("NotServed", "Support", "examine", "examine_config"),
        "tiny": ("build", "tiny_config"),
    },
)
