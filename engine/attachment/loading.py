"""From settings to a model: weights, tokenizer, device and dtype."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils import is_accelerate_available

from infllm.engine.attachment.packed_weights import refuse_packed, shrink
from infllm.engine.attachment.refusals import refuse_config
from infllm.engine.config import ModelConfig, device_name, dtype_name
from infllm.engine.errors import ConfigError, EngineError, ModelNotFound, UnsupportedModel
from infllm.engine.prune import load_shaped, told_shape
from infllm.engine.sources import local_folder, local_tokenizer, open_tokenizer
from infllm.engine.text import Tokenizer

FULL = 0.8  # of a GPU's free memory, by weights: the rest is for what is read
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def load_parts(settings: ModelConfig) -> tuple[PreTrainedModel, Tokenizer]:
    """The model and the tokenizer that `settings` name, on the device that they name.

    Raises:
        ConfigError, ModelNotFound (not here and offline, or not there at all), UnsupportedModel.
    """
    where = torch.device(device_name(settings.device))
    dtype = DTYPES[dtype_name(settings.dtype, where.type)]
    tokenizer = _load_tokenizer(settings)
    return _load_model(settings, where, dtype), Tokenizer(tokenizer)


def _load_tokenizer(settings: ModelConfig) -> Any:
    path = local_tokenizer(settings.tokenizer_path or settings.path)
    try:
        return open_tokenizer(path, settings.revision)
    except (OSError, ValueError) as error:
        raise _not_found(path, error) from error


def auto_class(config: PretrainedConfig) -> Any:
    """What makes a model of a config: for text, or for text and pictures, of which text is read.

    None where transformers has none of either.
    """
    kinds = (
        (MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM),
        (MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoModelForImageTextToText),
    )
    return next((auto for mapping, auto in kinds if type(config) in mapping), None)


def text_config(config: PretrainedConfig) -> PretrainedConfig | None:
    """The config of the model that reads text in one that sees or hears too, where transformers
    has it by itself; None otherwise."""
    text = config.get_text_config(decoder=True)
    return text if text is not config and type(text) in MODEL_FOR_CAUSAL_LM_MAPPING else None


def _load_model(settings: ModelConfig, device: torch.device, dtype: torch.dtype) -> Any:
    path = local_folder(settings.path)
    try:
        model = _from_pretrained(
            path,
            revision=settings.revision,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            **_places(settings, device, dtype),
        )
    except ValueError as error:
        if "trust_remote_code" in str(error) or "Unrecognized configuration" in str(error):
            raise UnsupportedModel(f"{settings.path}: {_first_line(error)}") from error
        raise _not_found(settings.path, error) from error
    except OSError as error:
        raise _not_found(settings.path, error) from error
    model.requires_grad_(False)
    if getattr(model, "hf_device_map", None) is None:
        model = model.to(device)
    if settings.weights in ("int8", "int4"):
        refuse_packed(settings.weights, device)
        shrink(model, settings.weights)
    return model


def _from_pretrained(path: str, revision: str | None, **arguments: Any) -> Any:
    """As transformers loads it; of a pruned model also one whose layers differ."""
    told, _ = PretrainedConfig.get_config_dict(path, revision=revision)
    shape = told_shape(told, path)
    config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
    refuse_config(config, config.model_type)
    if shape is None:
        # One that has none of its own kind is told so by transformers.
        auto = auto_class(config) or AutoModelForCausalLM
        try:
            return auto.from_pretrained(path, revision=revision, **arguments)
        except ImportError as error:  # its eyes or ears want a library that is not here
            if (text := text_config(config)) is None:
                raise UnsupportedModel(f"{path}: {_first_line(error)}") from error
            arguments["config"] = text
            return AutoModelForCausalLM.from_pretrained(path, revision=revision, **arguments)
    return load_shaped(path, config, shape, revision=revision, **arguments)


def _places(settings: ModelConfig, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Arguments of from_pretrained that say where weights go, and in which form."""
    if settings.quantization:
        return _quantization(settings.quantization, device)
    if settings.device != "auto" or torch.cuda.device_count() < 2:
        return {}
    # One that fits a GPU stays on it: steps can be recorded, and nothing travels between layers.
    free, _ = torch.cuda.mem_get_info(device)
    spread = is_accelerate_available() and _weight_bytes(settings, dtype) > FULL * free
    return {"device_map": "auto"} if spread else {}


def _weight_bytes(settings: ModelConfig, dtype: torch.dtype) -> int:
    """Bytes of a model's weights in `dtype`, by its config."""
    config = AutoConfig.from_pretrained(
        local_folder(settings.path), revision=settings.revision, trust_remote_code=False
    )
    with torch.device("meta"):
        model = (auto_class(config) or AutoModelForCausalLM).from_config(config)
    return sum(p.numel() for p in model.parameters()) * dtype.itemsize


def _quantization(name: str, device: torch.device) -> dict[str, Any]:
    """Arguments of from_pretrained for `quantization`: 4bit or 8bit, by bitsandbytes."""
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
