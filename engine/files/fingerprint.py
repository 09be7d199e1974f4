"""What a memory depends on: the model, the tokenizer, and every setting that changes a number."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from infllm.engine.attachment import weights_of
from infllm.engine.config import OF_POLICY
from infllm.engine.errors import MemoryFileError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from infllm.engine.config import ModelConfig
    from infllm.engine.text import Tokenizer

# Which model, which is told by its weights, and what changes speed or memory but no number.
WITHOUT_NUMBERS = frozenset({
    "path", "tokenizer_path", "encoder_path", "revision", "device", "max_cached_block",
    "cache_strategy", "score_decay", "cuda_graphs", "weights", "fattn", "async_global_stream",
    "pin_memory",
})  # fmt: skip
# Keys of a model's config.json that say nothing of what it computes.
VOLATILE = frozenset({
    "transformers_version", "architectures", "dtype", "torch_dtype", "use_cache", "id2label",
    "label2id", "output_attentions", "output_hidden_states", "return_dict",
})  # fmt: skip
HASHED_WHOLE = 64 * 2**20  # bytes: a smaller model is hashed in full
SAMPLES = 4096  # values of each tensor of a larger one


def settings_key(config: ModelConfig, chunk_size: int, dtype: torch.dtype) -> dict[str, Any]:
    """Every setting that changes a number, by its dotted name."""
    values = {f"model.{k}": v for k, v in config if k not in WITHOUT_NUMBERS}
    values["model.dtype"] = str(dtype).removeprefix("torch.")
    values["chunk_size"] = chunk_size
    return values


def memory_key(config: ModelConfig, chunk_size: int, dtype: torch.dtype) -> dict[str, Any]:
    """`settings_key` without what only other policies know."""
    other = {name for policy, names in OF_POLICY.items() if policy != config.type for name in names}
    values = settings_key(config, chunk_size, dtype)
    if config.far_position != "within":
        other.add("far_limit")
    return {key: x for key, x in values.items() if key.removeprefix("model.") not in other}


def model_digest(model: PreTrainedModel) -> str:
    """SHA-256 of the model's config and weights as they are in memory.

    So a merged adapter or a quantised copy is another model, and one held in memory needs no
    files. Of a model above 64 MiB, 4096 values spread over each tensor are hashed: training
    changes nearly all values, and hashing 16 GB would take longer than reading many a document.
    """
    digest = hashlib.sha256()
    digest.update(
        json.dumps(_lasting(model.config.to_dict()), sort_keys=True, default=str).encode()
    )
    held = (x for x in model.state_dict().values() if isinstance(x, Tensor))
    whole = sum(x.nbytes for x in held) <= HASHED_WHOLE
    for name, x in weights_of(model):
        digest.update(f"{name} {tuple(x.shape)} {x.dtype}".encode())
        digest.update(_values(x, whole))
    return digest.hexdigest()


def _values(x: Tensor, whole: bool) -> bytes:
    flat = x.reshape(-1)
    if not whole and flat.numel() > SAMPLES:
        spread = torch.arange(SAMPLES, device=x.device) * (flat.numel() - 1) // (SAMPLES - 1)
        flat = flat[spread]
    return flat.cpu().contiguous().view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def _lasting(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _lasting(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in VOLATILE and not str(key).startswith("_")
    }


def tokenizer_digest(tokenizer: Tokenizer | None) -> str | None:
    """SHA-256 of the tokenizer's rules and vocabulary, None where there is none."""
    if tokenizer is None:
        return None
    rules = json.loads(tokenizer.hf.backend_tokenizer.to_str())
    # Of whoever called it last, not of the tokenizer.
    lasting = {k: v for k, v in rules.items() if k not in ("truncation", "padding")}
    return hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()


def refuse_other(folder: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises MemoryFileError where a memory's key is not that of who wants to use it.

    `model`, `tokenizer` (unless either has none), or `settings`, with the names of those that
    differ.
    """
    old, new = then["settings"], now["settings"]
    same_dtype = old.get("model.dtype") == new.get("model.dtype")
    if same_dtype and then["model"] != now["model"]:  # in another dtype any model is another
        raise MemoryFileError(
            f"{folder} was read by another model",
            "use the model that read it, or read the document again",
            reason="model",
        )
    if then.get("guide") != now.get("guide"):
        raise MemoryFileError(
            f"{folder} was read with another encoder beside the model, or with none",
            "use the folder that read it, or read the document again",
            reason="model",
        )
    known = then["tokenizer"] is not None and now["tokenizer"] is not None
    if known and then["tokenizer"] != now["tokenizer"]:
        raise MemoryFileError(
            f"{folder} was read with another tokenizer",
            "use the tokenizer that read it, or read the document again",
            reason="tokenizer",
        )
    changed = [
        f"{key} {old.get(key)} (now {new.get(key)})"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]
    if changed:
        raise MemoryFileError(
            f"{folder} was read with other settings: {', '.join(changed)}",
            "set them as they were, or read the document again",
            reason="settings",
        )
