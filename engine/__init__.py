"""The long-context engine: `load` a model or `attach` one you hold, then read with sessions.

Importing this package imports neither torch nor transformers; using `load` or `attach` does.
"""

from typing import TYPE_CHECKING

from infllm.engine.lazy import lazily

if TYPE_CHECKING:
    from infllm.engine.attachment.loading import load
    from infllm.engine.engine import Engine, attach
    from infllm.engine.files import MemoryWriter, Verification, verify
    from infllm.engine.results import Token
    from infllm.engine.session import Session

__all__ = ["Engine", "MemoryWriter", "Session", "Token", "Verification", "attach", "load", "verify"]

__getattr__ = lazily(
    __name__,
    {
        "attachment.loading": ("load",),
        "engine": ("Engine", "attach"),
        "files.verification": ("Verification", "verify"),
        "files.writer": ("MemoryWriter",),
        "results": ("Token",),
        "session": ("Session",),
    },
)
