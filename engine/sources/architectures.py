"""The architectures whose GGUF files are read: settings, tensor names, and what was changed.

llama.cpp stores a model under its own names and, of some, other values than transformers wants:
rows of queries and keys in another order (its rotation works on neighbours), norms with one added.
One `Architecture` each, as data. Free of torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from infllm.engine.errors import ModelFileError, UnsupportedModel
from infllm.engine.sources.gguf_file import GgufFile
from infllm.engine.sources.rope import rope_parameters, short_float

Settings = dict[str, Any]

# `{}` stands for the number of a layer.
OUTER = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
ATTENTION = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
QK_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
GATED = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
PRE_NORMS = {"ffn_norm": "post_attention_layernorm"}
SANDWICH = {  # a norm on each side of attention and of the feed-forward
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
WITHOUT_INPUT_NORM = {name: ours for name, ours in ATTENTION.items() if name != "attn_norm"}
POST_NORMS = {
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
DENSE = {**ATTENTION, **PRE_NORMS, **GATED}


@dataclass(frozen=True)
class Architecture:
    """How a GGUF architecture is spelled in transformers.

    `layer`: names within a layer. `permuted`: queries and keys are to be reordered. `norm_offset`
    was added to norms. `more`: settings beyond the common ones.
    """

    model_type: str
    model_class: str
    layer: Mapping[str, str] = field(default_factory=lambda: DENSE)
    permuted: bool = False
    norm_offset: float = 0.0
    more: Callable[[GgufFile], Settings] = lambda file: {}


def _eps(file: GgufFile, key: str) -> float:
    return short_float(file.get(f"attention.{key}", 1e-5))


def _llama(file: GgufFile) -> Settings:
    return {"rms_norm_eps": _eps(file, "layer_norm_rms_epsilon"), "attention_bias": _bias(file)}


def _bias(file: GgufFile) -> bool:
    return "blk.0.attn_q.bias" in file.tensors


def _rms(file: GgufFile) -> Settings:
    return {"rms_norm_eps": _eps(file, "layer_norm_rms_epsilon")}


def _granite(file: GgufFile) -> Settings:
    scale = file.get("attention.scale")
    return {
        **_llama(file),
        "embedding_multiplier": short_float(file.get("embedding_scale", 1.0)),
        "residual_multiplier": short_float(file.get("residual_scale", 1.0)),
        "logits_scaling": short_float(file.get("logit_scale", 1.0)),
        "attention_multiplier": short_float(scale) if scale else head_dim(file) ** -0.5,
    }


def _gemma(file: GgufFile) -> Settings:
    return {**_rms(file), "hidden_activation": "gelu_pytorch_tanh"}


def _gemma2(file: GgufFile) -> Settings:
    layers = file.get("block_count")
    # The 27B one scales by the width of all heads together; the file does not say so.
    scalar = file.get("embedding_length") // _heads(file) if layers == 46 else head_dim(file)
    return {
        **_gemma(file),
        "sliding_window": file.get("attention.sliding_window", 4096),
        "layer_types": _layer_types(layers, 2),
        "query_pre_attn_scalar": scalar,
        "attn_logit_softcapping": short_float(file.get("attn_logit_softcapping", 50.0)),
        "final_logit_softcapping": short_float(file.get("final_logit_softcapping", 30.0)),
    }


def _gemma3(file: GgufFile) -> Settings:
    layers = file.get("block_count")
    scalar = file.get("embedding_length") // _heads(file) if layers == 62 else head_dim(file)
    pattern = file.get("attention.sliding_window_pattern", 6)
    local = short_float(file.get("rope.freq_base_swa", 10000.0))
    return {
        **_gemma(file),
        "sliding_window": file.get("attention.sliding_window", 1024),
        "layer_types": _layer_types(layers, pattern if isinstance(pattern, int) else 6),
        "query_pre_attn_scalar": scalar,
        "final_logit_softcapping": file.get("final_logit_softcapping"),
        "rope_parameters": {
            "full_attention": rope_parameters(file, head_dim(file), default_base=1e6),
            "sliding_attention": {"rope_type": "default", "rope_theta": local},
        },
    }


def _layer_types(layers: int, period: int) -> list[str]:
    """The last of each `period` layers sees everything, the others a window."""
    return [
        "full_attention" if (i + 1) % period == 0 else "sliding_attention" for i in range(layers)
    ]


def _phi3(file: GgufFile) -> Settings:
    window = file.get("attention.sliding_window")
    return {
        **_rms(file),
        "sliding_window": window or None,
        "original_max_position_embeddings": file.get(
            "rope.scaling.original_context_length", file.get("context_length")
        ),
    }


def _smollm3(file: GgufFile) -> Settings:
    layers = file.get("block_count")
    return {**_llama(file), "no_rope_layers": [int((i + 1) % 4 != 0) for i in range(layers)]}


def _starcoder2(file: GgufFile) -> Settings:
    return {
        "norm_epsilon": _eps(file, "layer_norm_epsilon"),
        "hidden_act": "gelu_pytorch_tanh",
        "use_bias": _bias(file),
        "sliding_window": file.get("attention.sliding_window"),
    }


ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture("llama", "LlamaForCausalLM", permuted=True, more=_llama),
    "granite": Architecture("granite", "GraniteForCausalLM", permuted=True, more=_granite),
    "smollm3": Architecture("smollm3", "SmolLM3ForCausalLM", permuted=True, more=_smollm3),
    "qwen2": Architecture("qwen2", "Qwen2ForCausalLM", more=_rms),
    "qwen3": Architecture("qwen3", "Qwen3ForCausalLM", {**DENSE, **QK_NORMS}, more=_llama),
    "olmo2": Architecture(
        "olmo2",
        "Olmo2ForCausalLM",
        {**WITHOUT_INPUT_NORM, **QK_NORMS, **POST_NORMS, **GATED},
        more=_llama,
    ),
    "gemma": Architecture("gemma", "GemmaForCausalLM", norm_offset=1.0, more=_gemma),
    "gemma2": Architecture(
        "gemma2",
        "Gemma2ForCausalLM",
        {**ATTENTION, **SANDWICH, **GATED},
        norm_offset=1.0,
        more=_gemma2,
    ),
    "gemma3": Architecture(
        "gemma3_text",
        "Gemma3ForCausalLM",
        {**ATTENTION, **QK_NORMS, **SANDWICH, **GATED},
        norm_offset=1.0,
        more=_gemma3,
    ),
    "phi3": Architecture(
        "phi3",
        "Phi3ForCausalLM",
        {
            "attn_norm": "input_layernorm",
            "attn_qkv": "self_attn.qkv_proj",
            "attn_output": "self_attn.o_proj",
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.gate_up_proj",
            "ffn_down": "mlp.down_proj",
        },
        more=_phi3,
    ),
    "starcoder2": Architecture(
        "starcoder2",
        "Starcoder2ForCausalLM",
        {**ATTENTION, **PRE_NORMS, "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"},
        more=_starcoder2,
    ),
}


def architecture_of(file: GgufFile) -> Architecture:
    """The architecture of a file; UnsupportedModel with its name where it is not read."""
    name = file.architecture
    refused = _no_model(file)
    if refused:
        raise UnsupportedModel(
            f"{file.path} is no language model by itself: {refused}",
            "name the model's own .gguf file",
        )
    known = ", ".join(ARCHITECTURES)
    if name not in ARCHITECTURES:
        raise UnsupportedModel(
            f"{file.path} is of the architecture {name!r}, whose GGUF files are not read",
            f"these are: {known}; others by their Hugging Face id",
        )
    if file.get("expert_count"):
        raise UnsupportedModel(
            f"{file.path} is a mixture of experts ({name!r}), whose GGUF files are not read",
            "give the model by its Hugging Face id",
        )
    return ARCHITECTURES[name]


def _no_model(file: GgufFile) -> str:
    """What a file is that is no language model; empty where it may be one."""
    kind = file.metadata.get("general.type", "model")
    if kind == "adapter" or any(name.endswith(".lora_a") for name in file.tensors):
        return "an adapter (LoRA), which changes another model"
    if kind == "mmproj" or file.architecture == "clip":
        return "a vision projector (mmproj), which feeds pictures to another model"
    if kind == "imatrix":
        return "an importance matrix, which serves to quantise a model"
    if not file.architecture:
        return "its header names no architecture"
    if not file.tensors:
        return "it holds a vocabulary and no weights"
    return ""


def model_config(file: GgufFile) -> Settings:
    """The contents of config.json for a file, as transformers reads them.

    Raises UnsupportedModel, also for a shape that differs from layer to layer; ModelFileError for
    settings that make no sense.
    """
    try:
        return _model_config(file)
    except (TypeError, ValueError, ZeroDivisionError, AttributeError, IndexError) as error:
        raise ModelFileError(
            f"{file.path} is damaged: its settings make no sense ({error})", "download it again"
        ) from error


_NEEDED = ("block_count", "context_length", "embedding_length", "attention.head_count")


def _model_config(file: GgufFile) -> Settings:
    architecture = architecture_of(file)
    embedding = file.tensors.get("token_embd.weight")
    missing = [f"{file.architecture}.{key}" for key in _NEEDED if file.get(key) is None]
    if embedding is None or missing:
        raise UnsupportedModel(
            f"{file.path} lacks {missing[0] if missing else 'token_embd.weight'}",
            "download the model in a newer conversion",
        )
    ids = {
        name: file.metadata.get(f"tokenizer.ggml.{key}")
        for name, key in (
            ("bos_token_id", "bos_token_id"),
            ("eos_token_id", "eos_token_id"),
            ("pad_token_id", "padding_token_id"),
        )
    }
    for key in ("block_count", "context_length", "embedding_length"):
        if not isinstance(file.get(key), int) or file.get(key) <= 0:
            raise ValueError(f"{key} {file.get(key)!r}")
    settings: Settings = {
        "model_type": architecture.model_type,
        "architectures": [architecture.model_class],
        "vocab_size": embedding.shape[0],
        "hidden_size": file.get("embedding_length"),
        "intermediate_size": _one(file, "feed_forward_length"),
        "num_hidden_layers": file.get("block_count"),
        "num_attention_heads": _heads(file),
        "num_key_value_heads": _one(file, "attention.head_count_kv", _heads(file)),
        "head_dim": head_dim(file),
        "max_position_embeddings": file.get("context_length"),
        "rope_parameters": rope_parameters(file, head_dim(file)),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "use_cache": True,
    }
    settings |= architecture.more(file)
    if file.get("attention.value_length", head_dim(file)) != head_dim(file):
        raise UnsupportedModel(
            f"{file.path}: values of another width than keys are not served",
            "choose another model: infllm models list",
        )
    # Ids also where there are none: a config's own defaults are those of another vocabulary.
    return {key: value for key, value in settings.items() if value is not None} | ids


def _one(file: GgufFile, key: str, default: Any = None) -> int:
    """A number that may be given once for each layer; all must then be the same."""
    value = file.get(key, default)
    if isinstance(value, list):
        if len(set(value)) != 1:
            raise UnsupportedModel(
                f"{file.path}: {file.architecture}.{key} differs from layer to layer",
                "choose another model: infllm models list",
            )
        value = value[0]
    if not isinstance(value, int):
        raise UnsupportedModel(
            f"{file.path} lacks {file.architecture}.{key}",
            "download the model in a newer conversion",
        )
    return value


def _heads(file: GgufFile) -> int:
    return _one(file, "attention.head_count")


def head_dim(file: GgufFile) -> int:
    """Width of one head, in values."""
    return file.get("attention.key_length") or file.get("embedding_length") // _heads(file)
