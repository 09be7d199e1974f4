"""A pruned model as a folder: plain safetensors, the tokenizer, and a card of what was removed."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from infllm.engine.errors import ModelFileError
from infllm.engine.prune.place import check_place
from infllm.engine.prune.shapes import KEY, config_for
from infllm.engine.sources import FROM_GGUF

CARD = "pruning.json"
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
# Of a model's folder, what goes with other weights too.
BESIDE = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja",
    "generation_config.json", FROM_GGUF, "LICENSE", "LICENSE.txt", "NOTICE",
)  # fmt: skip


def stored_dtype(path: str, config: Mapping[str, Any]) -> torch.dtype:
    """Of a model's weights where they lie, by its config.json, else by its files; float32 else."""
    told = str(config.get("dtype") or config.get("torch_dtype") or "").removeprefix("torch.")
    if told in DTYPES.values():
        return getattr(torch, told)
    counts: Counter[str] = Counter()
    for file in sorted(Path(path).glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            counts.update(tensors.get_slice(name).get_dtype() for name in tensors.keys())  # noqa: SIM118
    found = counts.most_common(1)
    return getattr(torch, DTYPES.get(found[0][0], "float32")) if found else torch.float32


def save_model(
    model: PreTrainedModel,
    folder: Path,
    card: Mapping[str, Any],
    *,
    source: Path | None = None,
    tokenizer: Any = None,
    dtype: torch.dtype | None = None,
) -> bool:
    """Write `model` to a new folder, whole or not at all; whether stock transformers loads it.

    Args:
        card: what to say in `pruning.json`.
        source: the folder that the model came from, whose tokenizer files and licence go along;
            None: `tokenizer`, of transformers, is saved.
        dtype: of the weights on disk, and of `model` afterwards; None: as they are.

    Raises:
        ConfigError: the folder is there already.
        ModelFileError: it could not be written.
    """
    check_place(folder)
    if dtype is not None:
        model.to(dtype)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(beside, ignore_errors=True)
        model.save_pretrained(beside)
        config = json.loads((beside / "config.json").read_text(encoding="utf-8"))
        config = config_for(model, config)
        _write(beside / "config.json", config)
        _write(beside / CARD, card)
        _bring_along(beside, source, tokenizer)
        if folder.is_dir():
            folder.rmdir()
        os.replace(beside, folder)
    except OSError as error:
        raise ModelFileError(
            f"cannot write {folder}: {error.strerror or error}",
            "free some room, or name another -o",
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return KEY not in config


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _bring_along(beside: Path, source: Path | None, tokenizer: Any) -> None:
    if source is None:
        if tokenizer is not None:
            tokenizer.save_pretrained(beside)
        return
    for name in BESIDE:
        if (source / name).is_file():
            shutil.copyfile(source / name, beside / name)
