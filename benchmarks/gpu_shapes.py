"""The shapes of model, and settings of the memory, that the GPU benchmark measures."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Shape:
    """A model's shape and the memory's settings; sizes as the models' makers publish them."""

    kind: str  # transformers' model type
    model: dict[str, Any]
    settings: dict[str, Any]
    chunk_size: int
    lengths: str
    dense_to: str  # longest length that the whole model reads with full attention
    decode_steps: int = 64


# As published, but for twice the slots (32), which change no number: decode steps fill them.
MEMORY = {
    "n_init": 128, "n_local": 4096, "block_size": 128, "topk": 16, "repr_topk": 4,
    "max_cached_block": 64, "exc_block_size": 512, "kv_dtype": "int8",
    "unit_score": "representatives",  # else a step scores keys on the host, and none is recorded
}  # fmt: skip
LONG = {"chunk_size": 8192, "lengths": "32K,128K,512K,1M", "dense_to": "128K"}
SHAPES = {
    "llama-3-8b": Shape(
        "llama",
        {
            "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "head_dim": 128, "tie_word_embeddings": False,
        },
        MEMORY, **LONG,
    ),
    "qwen3-4b": Shape(
        "qwen3",
        {
            "vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728,
            "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8,
            "head_dim": 128, "tie_word_embeddings": True,
        },
        MEMORY, **LONG,
    ),
    "1b": Shape(
        "llama",
        {
            "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192,
            "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
            "head_dim": 64, "tie_word_embeddings": True,
        },
        MEMORY, **LONG,
    ),
    "toy": Shape(
        "llama",
        {
            "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
            "tie_word_embeddings": False,
        },
        MEMORY | {
            "n_init": 8, "n_local": 32, "block_size": 8, "topk": 2, "repr_topk": 2,
            "max_cached_block": 4, "exc_block_size": 32,
        },
        chunk_size=64, lengths="64,128", dense_to="64", decode_steps=1,
    ),
}  # fmt: skip
