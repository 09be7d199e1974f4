"""Where models come from: GGUF files, Ollama, LM Studio, the hub; the cache of unpacked ones."""

from typing import TYPE_CHECKING

from infllm.engine.lazy import lazily

if TYPE_CHECKING:
    from infllm.engine.sources.architectures import model_config
    from infllm.engine.sources.cache import (
        FROM_GGUF,
        Copy,
        copies,
        folder_of,
        make_folder,
        models_folder,
        read_object,
        remove,
        sha256_of,
        write_json,
    )
    from infllm.engine.sources.gguf_file import GgufFile, read_gguf
    from infllm.engine.sources.hf_tokenizer import open_tokenizer
    from infllm.engine.sources.hub import (
        first_line,
        is_offline,
        models_of_hub,
        network_errors,
        parts_of_name,
    )
    from infllm.engine.sources.lmstudio import models_of_lmstudio
    from infllm.engine.sources.ollama import models_of_ollama
    from infllm.engine.sources.places import (
        find_gguf,
        local_folder,
        local_tokenizer,
        names_gguf,
    )

HOMES = {
    "architectures": ("model_config",),
    "cache": (
        "FROM_GGUF", "Copy", "copies", "folder_of", "make_folder", "models_folder", "read_object",
        "remove", "sha256_of", "write_json",
    ),
    "gguf_file": ("GgufFile", "read_gguf"),
    "hf_tokenizer": ("open_tokenizer",),
    "hub": ("first_line", "is_offline", "models_of_hub", "network_errors", "parts_of_name"),
    "lmstudio": ("models_of_lmstudio",),
    "ollama": ("models_of_ollama",),
    "places": ("find_gguf", "local_folder", "local_tokenizer", "names_gguf"),
}  # fmt: skip
__all__ = [
    "FROM_GGUF",
    "Copy",
    "GgufFile",
    "copies",
    "find_gguf",
    "first_line",
    "folder_of",
    "is_offline",
    "local_folder",
    "local_tokenizer",
    "make_folder",
    "model_config",
    "models_folder",
    "models_of_hub",
    "models_of_lmstudio",
    "models_of_ollama",
    "names_gguf",
    "network_errors",
    "open_tokenizer",
    "parts_of_name",
    "read_gguf",
    "read_object",
    "remove",
    "sha256_of",
    "write_json",
]

__getattr__ = lazily(__name__, HOMES)
