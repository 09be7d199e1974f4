"""The long-context engine: `load` a model or `attach` one you hold, then read with sessions.

Importing this package imports neither torch nor transformers; using `load` or `attach` does.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infllm.engine.engine import Engine, attach
    from infllm.engine.loading import load
    from infllm.engine.memory_file import MemoryWriter
    from infllm.engine.results import Token
    from infllm.engine.session import Session
    from infllm.engine.verification import Verification, verify

__all__ = ["Engine", "MemoryWriter", "Session", "Token", "Verification", "attach", "load", "verify"]

_HOMES = {
    "Engine": "infllm.engine.engine",
    "attach": "infllm.engine.engine",
    "load": "infllm.engine.loading",
    "Verification": "infllm.engine.verification",
    "verify": "infllm.engine.verification",
    "MemoryWriter": "infllm.engine.memory_file",
    "Session": "infllm.engine.session",
    "Token": "infllm.engine.results",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
