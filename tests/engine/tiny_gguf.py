"""Tiny GGUF files of every architecture, written from tiny models as llama.cpp's converter does.

Names come from the gguf package's own tables and values are changed here by hand, so that what
reads the files is compared with something else than itself.
"""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from transformers import AutoConfig, AutoModelForCausalLM

LAYERS, HIDDEN, HEADS, KV_HEADS, LENGTH = 3, 64, 4, 2, 512
COMMON: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": 128,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "max_position_embeddings": LENGTH,
    "initializer_range": 0.2,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
# GGUF architecture: transformers' model type, and settings beyond the common ones.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"rms_norm_eps": 1e-5, "rope_parameters": {**ROPE, "rope_theta": 50000.0}}),
    "granite": (
        "granite",
        {
            "rms_norm_eps": 1e-5, "embedding_multiplier": 2.0, "residual_multiplier": 0.5,
            "logits_scaling": 4.0, "attention_multiplier": 0.2, "rope_parameters": ROPE,
        },
    ),
    "smollm3": (
        "smollm3",
        {"num_hidden_layers": 4, "no_rope_layers": [1, 1, 1, 0], "rms_norm_eps": 1e-5,
         "rope_parameters": ROPE, "pad_token_id": 0},
    ),
    "qwen2": ("qwen2", {"rms_norm_eps": 1e-6, "tie_word_embeddings": True,
                        "rope_parameters": {**ROPE, "rope_theta": 1e6}}),
    "qwen3": ("qwen3", {"rms_norm_eps": 1e-6, "head_dim": 32, "rope_parameters": ROPE}),
    "olmo2": ("olmo2", {"rms_norm_eps": 1e-6, "rope_parameters": ROPE}),
    "gemma": ("gemma", {"head_dim": 16, "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
                        "hidden_activation": "gelu_pytorch_tanh", "rope_parameters": ROPE}),
    "gemma2": (
        "gemma2",
        {"head_dim": 16, "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "sliding_window": 8,
         "query_pre_attn_scalar": 16, "attn_logit_softcapping": 20.0,
         "final_logit_softcapping": 15.0, "rope_parameters": ROPE},
    ),
    "gemma3": (
        "gemma3_text",
        {"head_dim": 32, "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "sliding_window": 8,
         "num_hidden_layers": 6, "query_pre_attn_scalar": 32,
         "rope_parameters": {
             "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
             "sliding_attention": ROPE,
         }},
    ),
    "phi3": ("phi3", {"rms_norm_eps": 1e-5, "sliding_window": None, "pad_token_id": 0,
                      "original_max_position_embeddings": LENGTH, "rope_parameters": ROPE}),
    "starcoder2": ("starcoder2", {"norm_epsilon": 1e-5, "use_bias": True, "sliding_window": None,
                                  "rope_parameters": ROPE}),
}  # fmt: skip
PERMUTED = ("llama", "granite", "smollm3")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_model(architecture: str, vocab: int, seed: int = 0, **settings: Any) -> Any:
    """A tiny model of transformers' that the architecture stores."""
    torch.manual_seed(seed)
    model_type, own = MODELS[architecture]
    config = AutoConfig.for_model(model_type, **{**COMMON, "vocab_size": vocab, **own, **settings})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():  # norms and biases start at one and zero, where much goes unseen
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


class Vocabulary:
    """Tokens, types, scores and merges of a tiny vocabulary."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.types: list[int] = []
        self.scores: list[float] = []
        self.merges: list[str] = []

    def add(self, token: str, kind: int = 1, score: float = 0.0) -> None:
        self.tokens.append(token)
        self.types.append(kind)
        self.scores.append(score)


def byte_level_vocabulary() -> Vocabulary:
    from infllm.engine.byte_level import byte_of_char

    found = Vocabulary()
    for token in ("<|pad|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"):
        found.add(token, 4 if "think" in token else 3)
    for char in byte_of_char():
        found.add(char)
    for merge in ("t h", "th e", "Ġ the", "i n", "e r", "Ġ a", "o n", "1 2", "Ġ Ġ", "ĠĠ ĠĠ", "a n"):
        found.merges.append(merge)
        found.add(merge.replace(" ", ""))
    while len(found.tokens) < 288:
        found.add(f"[PAD{len(found.tokens)}]", 5)
    return found


def sentencepiece_vocabulary() -> Vocabulary:
    found = Vocabulary()
    for token, kind in (("<unk>", 2), ("<s>", 3), ("</s>", 3), ("<start_of_turn>", 3)):
        found.add(token, kind)
    for byte in range(256):
        found.add(f"<0x{byte:02X}>", 6)
    found.add("\n\n", 4)
    for rank, token in enumerate(("th", "the", "▁the", "in", "er", "▁a", "on", "an", "▁▁", "the▁")):
        found.add(token, 1, -float(rank))
    for char in "▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,é":
        found.add(char, 1, -1000.0 - len(found.tokens))
    return found


def write_gguf(
    path: Path,
    model: Any,
    architecture: str,
    *,
    vocabulary: Vocabulary | None = None,
    pre: str = "smollm",
    kind: Kind | dict[str, Kind] = Kind.F32,
    metadata: dict[str, Any] | None = None,
    skip: tuple[str, ...] = (),
    extra: dict[str, tuple[np.ndarray, Kind]] | None = None,
    adds_bos: bool | None = None,
    template: str = CHATML,
) -> Path:
    """A GGUF file of the model; matrices in `kind`, by the end of their name if it is a dict.

    Without the tensors of `skip`, and with those of `extra`, whose values are stored as they are.
    """
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_license("apache-2.0")
    _write_settings(writer, model.config, architecture)
    _write_vocabulary(writer, vocabulary or byte_level_vocabulary(), pre, adds_bos, template)
    for key, value in (metadata or {}).items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
    for name, values in stored_tensors(model, architecture).items():
        if name in skip:
            continue
        wanted = kind
        if isinstance(kind, dict):
            wanted = next((k for end, k in kind.items() if name.endswith(end)), Kind.F32)
        if values.ndim < 2 or wanted is Kind.F32:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, wanted), raw_dtype=wanted)
    for name, values in _rope_tensors(model.config).items():
        writer.add_tensor(name, values)
    for name, (values, stored) in (extra or {}).items():
        writer.add_tensor(name, values, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def stored_tensors(model: Any, architecture: str) -> dict[str, np.ndarray]:
    """llama.cpp's names and values of the model's weights."""
    config = model.config
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    table = gguf.get_tensor_name_map(kinds[architecture], config.num_hidden_layers)
    found = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = tensor.float().numpy().copy()
        if architecture in PERMUTED and ".q_proj." in name:
            values = _permuted(values, config.num_attention_heads)
        if architecture in PERMUTED and ".k_proj." in name:
            values = _permuted(values, config.num_key_value_heads)
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            values = values + 1
        theirs = table.get_name(name, try_suffixes=(".weight", ".bias"))
        assert theirs is not None, name
        found[theirs] = np.ascontiguousarray(values)
    return found


def _permuted(values: np.ndarray, heads: int) -> np.ndarray:
    """The halves of a head that rotate together, as neighbours."""
    rest = values.shape[1:]
    return values.reshape(heads, 2, -1, *rest).swapaxes(1, 2).reshape(values.shape)


def _write_settings(writer: gguf.GGUFWriter, config: Any, architecture: str) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_vocab_size(config.vocab_size)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if head_dim * config.num_attention_heads != config.hidden_size or "gemma" in architecture:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1.0)))
    if rope["rope_type"] in ("linear", "yarn"):
        kind = gguf.RopeScalingType(rope["rope_type"])
        writer.add_rope_scaling_type(kind)
        writer.add_rope_scaling_factor(rope["factor"])
        if "original_max_position_embeddings" in rope:
            writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if architecture == "starcoder2":
        writer.add_layer_norm_eps(config.norm_epsilon)
    else:
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if architecture == "granite":
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
        writer.add_logit_scale(config.logits_scaling)
        writer.add_attention_scale(config.attention_multiplier)
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)


def _rope_tensors(config: Any) -> dict[str, np.ndarray]:
    rope = config.rope_parameters
    if rope.get("rope_type") != "llama3":
        return {}
    head_dim = config.hidden_size // config.num_attention_heads
    factors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * np.pi * rope["rope_theta"] ** (i / head_dim)
        original = rope["original_max_position_embeddings"]
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        if wavelength < original / high:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(rope["factor"])
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return {"rope_freqs.weight": np.array(factors, dtype=np.float32)}


def _write_vocabulary(
    writer: gguf.GGUFWriter, vocabulary: Vocabulary, pre: str, adds_bos: bool | None, template: str
) -> None:
    byte_level = bool(vocabulary.merges)
    writer.add_add_bos_token(not byte_level if adds_bos is None else adds_bos)
    writer.add_tokenizer_model("gpt2" if byte_level else "llama")
    writer.add_tokenizer_pre(pre if byte_level else "default")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if byte_level:
        writer.add_token_merges(vocabulary.merges)
        writer.add_chat_template(template)
    else:
        writer.add_token_scores(vocabulary.scores)
        writer.add_unk_token_id(0)
