"""The long-context engine: `load` a model or `attach` one you hold, then read with sessions.

Importing this package imports neither torch nor transformers; using `load` or `attach` does.
"""

from typing import TYPE_CHECKING

from infllm.engine.lazy import lazily

if TYPE_CHECKING:
    from infllm.engine.engine import Engine, attach, load
    from infllm.engine.files.verification import Verification, verify
    from infllm.engine.files.writer import MemoryWriter
    from infllm.engine.session import Session, Token

__all__ = ["Engine", "MemoryWriter", "Session", "Token", "Verification", "attach", "load", "verify"]

__getattr__ = lazily(
    __name__,
    {
        "engine": ("Engine", "attach", "load"),
        "files.verification": ("Verification", "verify"),
        "files.writer": ("MemoryWriter",),
        "session": ("Session", "Token"),
    },
)
