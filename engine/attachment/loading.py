"""From a preset's name or a folder to an engine: weights, tokenizer, device and dtype."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from infllm.engine.config import Config, ModelConfig, device_name, dtype_name, load_config
from infllm.engine.engine import Engine
from infllm.engine.errors import ConfigError, EngineError, ModelNotFound, UnsupportedModel
from infllm.engine.sources import local_folder, local_tokenizer, open_tokenizer
from infllm.engine.text import Tokenizer

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def load(
    source: str | Path | Mapping[str, Any] | Config | None = None,
    *,
    device: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    check: bool = True,
) -> Engine:
    """An engine with its own model.

    Args:
        source: a preset's name, a YAML file, a model folder, a hub id, a GGUF file (also as
            `ollama:NAME`, `lmstudio:PUBLISHER/REPO`, `hf:ORG/REPO:FILE.gguf`; it is unpacked into
            the user's cache, once), a mapping or a Config; None: what environment, project or
            user file name, else the built-in model.
        device: `auto`, `cpu`, `cuda`, `cuda:N`; overrides `model.device`.
        overrides: configuration keys, e.g. `{"model.topk": 32}`.
        check: compare a few logits with the model's own before the first use.

    Raises:
        ConfigError, ModelNotFound (not here and offline, or not there at all), UnsupportedModel.
    """
    changes = dict(overrides or {})
    if device is not None:
        changes["model.device"] = device
    if isinstance(source, Config):
        config = source.with_overrides(changes) if changes else source
    else:
        config = load_config(source, changes)
    settings = config.model
    where = torch.device(device_name(settings.device))
    dtype = DTYPES[dtype_name(settings.dtype, where.type)]
    tokenizer = _load_tokenizer(settings)
    model = _load_model(settings, where, dtype)
    return Engine(model, Tokenizer(tokenizer), config, check=check)


def _load_tokenizer(settings: ModelConfig) -> Any:
    path = local_tokenizer(settings.tokenizer_path or settings.path)
    try:
        return open_tokenizer(path, settings.revision)
    except (OSError, ValueError) as error:
        raise _not_found(path, error) from error


def _load_model(settings: ModelConfig, device: torch.device, dtype: torch.dtype) -> Any:
    path = local_folder(settings.path)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path,
            revision=settings.revision,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            **_quantization(settings.quantization, device),
        )
    except ValueError as error:
        if "trust_remote_code" in str(error) or "Unrecognized configuration" in str(error):
            raise UnsupportedModel(f"{settings.path}: {_first_line(error)}") from error
        raise _not_found(settings.path, error) from error
    except OSError as error:
        raise _not_found(settings.path, error) from error
    model.requires_grad_(False)
    return model if settings.quantization else model.to(device)


def _quantization(name: str | None, device: torch.device) -> dict[str, Any]:
    """Arguments of from_pretrained for `quantization`: 4bit or 8bit, by bitsandbytes."""
    if name is None:
        return {}
    if name not in ("4bit", "8bit"):
        raise ConfigError(f"quantization {name!r} is unknown", "use 4bit or 8bit")
    from transformers import BitsAndBytesConfig
    from transformers.utils import is_bitsandbytes_available

    if not is_bitsandbytes_available():
        raise ConfigError(f"quantization {name} needs bitsandbytes", "pip install bitsandbytes")
    bits = {"load_in_4bit": True} if name == "4bit" else {"load_in_8bit": True}
    return {"quantization_config": BitsAndBytesConfig(**bits), "device_map": {"": device}}


def _not_found(path: str, error: Exception) -> EngineError:
    if Path(path).is_dir():
        return ModelNotFound(
            f"{path} cannot be loaded: {_first_line(error)}",
            "the folder needs config.json, tokenizer.json and *.safetensors",
        )
    offline = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE")
    reason = "not in the local cache, and the hub is offline" if offline else _first_line(error)
    return ModelNotFound(
        f"model {path} not found: {reason}",
        "download it once while online, or name a local folder with --model",
    )


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
