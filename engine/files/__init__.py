"""Memory files: a session on disk, written while it reads, and opened without reading again."""

from typing import TYPE_CHECKING

from infllm.engine.lazy import lazily

if TYPE_CHECKING:
    from infllm.engine.files.fingerprint import (
        memory_key,
        model_digest,
        settings_key,
        tokenizer_digest,
    )
    from infllm.engine.files.manifest import (
        LOCK,
        MANIFEST,
        OURS,
        Manifest,
        read_extra,
        read_manifest,
    )
    from infllm.engine.files.reader import open_memory
    from infllm.engine.files.verification import CHECKED_WHOLE, Verification, verify
    from infllm.engine.files.writer import MemoryWriter, save

__all__ = [
    "CHECKED_WHOLE", "LOCK", "MANIFEST", "OURS", "Manifest", "MemoryWriter", "Verification",
    "memory_key", "model_digest", "open_memory", "read_extra", "read_manifest", "save",
    "settings_key", "tokenizer_digest", "verify",
]  # fmt: skip

__getattr__ = lazily(
    __name__,
    {
        "fingerprint": ("memory_key", "model_digest", "settings_key", "tokenizer_digest"),
        "manifest": ("LOCK", "MANIFEST", "Manifest", "OURS", "read_extra", "read_manifest"),
        "reader": ("open_memory",),
        "verification": ("CHECKED_WHOLE", "Verification", "verify"),
        "writer": ("MemoryWriter", "save"),
    },
)
