"""Where models come from: GGUF files, Ollama, LM Studio, the hub; the cache of unpacked ones."""

from typing import TYPE_CHECKING

from infllm.engine.lazy import lazily

if TYPE_CHECKING:
    from infllm.engine.sources.gguf_file import GgufFile, is_gguf, read_gguf
    from infllm.engine.sources.hf_tokenizer import open_tokenizer

__all__ = ["GgufFile", "is_gguf", "open_tokenizer", "read_gguf"]

__getattr__ = lazily(
    __name__,
    {
        "gguf_file": ("GgufFile", "is_gguf", "read_gguf"),
        "hf_tokenizer": ("open_tokenizer",),
    },
)
