"""Tiny random models of many architectures, made by transformers from small configs."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from packaging.version import Version
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

SMALL = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "head_dim": 16,
}  # fmt: skip

# What a family needs beyond SMALL.
SERVED: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": None},
    "mixtral": {"num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": None},
    "qwen2": {},
    "qwen2_moe": {
        "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
    },
    "qwen3": {},
    "qwen3_moe": {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 32},
    "gemma": {},
    "gemma2": {"query_pre_attn_scalar": 16, "sliding_window": 8},
    "gemma3_text": {"query_pre_attn_scalar": 16, "sliding_window": 8, "num_hidden_layers": 7},
    "phi": {"partial_rotary_factor": 0.5, "num_key_value_heads": 4},
    "phi3": {"sliding_window": None},
    "gpt_neox": {"rotary_pct": 0.25},
    "cohere": {},
    "cohere2": {"sliding_window": 8, "num_hidden_layers": 4},
    "olmo": {},
    "olmo2": {},
    "olmo3": {"sliding_window": 8, "num_hidden_layers": 4},
    "granite": {"attention_multiplier": 0.3},
    "granitemoe": {"num_local_experts": 2, "num_experts_per_tok": 1},
    "stablelm": {"partial_rotary_factor": 0.25},
    "starcoder2": {"sliding_window": None},
    "smollm3": {"num_hidden_layers": 4, "no_rope_layer_interval": 4},
    "glm": {"partial_rotary_factor": 0.5},
    "glm4": {"partial_rotary_factor": 0.5},
    "gpt_oss": {
        "num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 8,
    },
    "nemotron": {"partial_rotary_factor": 0.5},
    "helium": {},
    "ernie4_5": {},
    "exaone4": {"sliding_window": 8, "num_hidden_layers": 4},
    "seed_oss": {},
    "persimmon": {"partial_rotary_factor": 0.5},
    "hunyuan_v1_dense": {},
    "arcee": {},
    "gptj": {"n_embd": 64, "n_head": 4, "n_layer": 2, "rotary_dim": 8},
    "nanochat": {},
    "deepseek_v3": {
        "n_routed_experts": 2, "num_experts_per_tok": 1, "n_group": 1, "topk_group": 1,
        "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
        "v_head_dim": 16, "moe_intermediate_size": 32, "first_k_dense_replace": 1,
        "num_key_value_heads": 4, "head_dim": 8,
    },
}  # fmt: skip
if Version(transformers.__version__) < Version("5.24"):
    del SERVED["gptj"]  # in older releases its attention cannot be put in another's hands

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "bloom": ({"n_head": 4, "n_layer": 2}, "ALiBi"),
    "mpt": ({"d_model": 64, "n_heads": 4, "n_layers": 2}, "ALiBi"),
    "gpt2": ({"n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 512}, "learned positions"),
    "opt": ({"ffn_dim": 96, "word_embed_proj_dim": 64}, "learned positions"),
    "mamba": ({"state_size": 8}, "no softmax attention"),
    "rwkv": (
        {"attention_hidden_size": 64, "context_length": 64},
        "no softmax attention",
    ),
}  # fmt: skip


def build(kind: str, settings: dict[str, Any], seed: int = 0, **more: Any) -> PreTrainedModel:
    """A random float32 model whose logits depend on positions clearly."""
    config = AutoConfig.for_model(kind, **{**SMALL, **settings, **more})
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim >= 2:
                p.normal_(0, 0.12)
            elif "sink" in name:
                p.normal_(0, 1.0)
    return model


def ids(n: int, vocab: int = 96, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, vocab, (n,), generator=generator).tolist()
