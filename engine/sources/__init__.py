"""Where models come from: GGUF files, Ollama, LM Studio, the hub; the cache of unpacked ones."""

from typing import TYPE_CHECKING

from infllm.engine.lazy import lazily

if TYPE_CHECKING:
    from infllm.engine.sources.gguf_file import GgufFile, read_gguf
    from infllm.engine.sources.hf_tokenizer import open_tokenizer
    from infllm.engine.sources.places import (
        find_gguf,
        local_folder,
        local_tokenizer,
    )

__all__ = [
    "GgufFile",
    "find_gguf",
    "local_folder",
    "local_tokenizer",
    "open_tokenizer",
    "read_gguf",
]

__getattr__ = lazily(
    __name__,
    {
        "gguf_file": ("GgufFile", "read_gguf"),
        "hf_tokenizer": ("open_tokenizer",),
        "places": ("find_gguf", "local_folder", "local_tokenizer"),
    },
)
