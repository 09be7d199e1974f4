"""Every causal model type of the installed transformers, tiny, and what became of each.

`python -m tests.engine.zoo` writes docs/models.md anew.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import transformers
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from infllm.engine.support import Support, examine_config

DOC = Path(__file__).parents[2] / "docs" / "models.md"
FEW_ATTEND = [*["conv"] * 3, "full_attention"] * 4

# What the default config of a type leaves out, or has none of that the type is made for.
SETTINGS: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [2, 5]},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}
    },
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "kv_n_heads": 8, "clip_qkv": 8.0}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "gemma4_assistant": {
        "text_config": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}
    },
    "granitemoehybrid": {
        "layer_types": [*["linear_attention"] * 3, "full_attention"] * 8, "num_hidden_layers": 32,
    },
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "lfm2": {"layer_types": FEW_ATTEND, "num_hidden_layers": 16},
    "lfm2_moe": {"layer_types": FEW_ATTEND, "num_hidden_layers": 16},
    "ministral": {"head_dim": 128},
    "minimax_m3_vl_text": {
        "layer_types": ["full_attention", "minimax_m3_sparse"] * 2, "num_hidden_layers": 4,
        "mlp_layer_types": ["dense", "sparse"] * 2,
    },
    "nemotron": {"num_key_value_heads": 8},
    "xmod": {"default_language": "en_XX"},
}  # fmt: skip

TYPES = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
WITH_PICTURES = sorted(
    {*MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES} - {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES}
)


@functools.cache
def support_of(kind: str) -> Support:
    """What became of a tiny model of that type."""
    try:
        config = CONFIG_MAPPING[kind](**SETTINGS.get(kind, {}))
    except Exception as error:  # a default config that transformers itself refuses
        return Support("unknown", f"transformers makes no default config: {type(error).__name__}")
    return examine_config(config.to_dict())
