"""A model's config made tiny: the same architecture, of every kind of layer a few, in miniature.

No table of architectures: numbers are told apart by their names, which configs share. Counts of
heads shrink by one factor, sizes of heads by another, widths by both, so that what was a product of
two stays one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

VOCABULARY = 128
HEAD_DIM = 16  # at least, where heads of the model itself are not smaller
WINDOW = 8  # tokens of sliding windows, chunks and blocks
FEWEST_LAYERS = 3
MOST_LAYERS = 14  # where a second layer of a kind would take more, one has to do
INNER_MOST = 128  # of layers between

MODEL_WIDTHS = ("hidden_size", "d_model", "n_embd")
PARTS = re.compile(r"(?<!layer_)config$|_model$|^text_encoder$|^decoder$")  # configs of parts
SECTIONS = re.compile(r"n_\w+_layers")  # whose sum is the number of layers
LAYERS = re.compile(
    r"(num_(hidden_|decoder_|encoder_)?layers|n_layers?|(decoder|encoder)_layers|depth"
    r"|num_layers_per_stack|num_blocks)"
)
HEADS = re.compile(
    r"(\w+_)?((num|n)_(\w+_)?(heads?|kv_heads)|num_query_groups|attention_heads|n_heads?)"
    r"|linear_num_heads|(mamba_)?n_?groups"
)
HEAD_SIZES = re.compile(
    r"(\w+_)?(head_dim|headdim|head_size|d_head|dim_head|kv_channels)|rotary_dim"
)
WIDTHS = re.compile(
    r"(\w+_)?(hidden_size|intermediate_size|ffn_dim|ffn_hidden_size|embed_dim|embd|embedding_dim"
    r"|d_model|dff|dim_ff|lora_rank|d_ssm|dt_rank|time_step_rank|lru_width|emb_dim|d_inner"
    r"|embedding_size|inner_dim|width|attention_hidden_size|proj_dim|feed_forward_size|projection_dim|dim|lowrank|input_size)"
    r"|intermediate_size_\w+|\w*hidden_size_\w+"
)
INNER = re.compile(r"(\w+_)?(intermediate_size|ffn_dim|ffn_hidden_size|dff|dim_ff)(_\w+)?")
HANDED_ON = re.compile(r"out|proj|adapter|text")
TOKENS = re.compile(
    r"(\w+_)?(sliding_window|window_size|chunk_size|sliding_window_size|window_len|local_attention"
    r"|chunk_length|block_size|attention_chunk_size)"
)
VOCABULARIES = re.compile(r"(\w+_)?vocab(_size)?(_\w+)?")
TOKEN_ID = re.compile(r"\w+_(token_id|index|id)")
FEW = {  # at most so many
    "num_experts_per_tok": 2, "num_experts_per_token": 2, "moe_topk": 2, "moe_k": 2, "top_k": 2,
    "n_shared_experts": 1, "num_shared_experts": 1, "moe_num_shared_experts": 1, "n_group": 2,
    "num_expert_group": 2, "topk_group": 1, "zero_expert_num": 2, "num_experts": 4,
    "n_routed_experts": 4, "num_local_experts": 4, "moe_num_experts": 4,
    "mamba_d_state": 16, "ssm_state_size": 16, "state_size": 16, "laurel_rank": 8,
    "ngram_vocab_size_base": 50, "split_ngram_parts": 1, "num_mel_bins": 8, "adapter_rank": 8,
    "max_source_positions": 64, "image_size": 32, "num_codebooks": 2,
    "keep_window_size": 2048, "make_ngram_vocab_size_divisible_by": 8,
}  # fmt: skip
LISTS_OF_LAYERS = ("layer_types", "layers_block_type", "mlp_layer_types")


def tiny_config(config: PretrainedConfig) -> PretrainedConfig:
    """The config of a model with the same architecture that is built in well under a second."""
    tiny = _tiny(config.to_dict())
    _fit_parts(config.to_dict(), tiny)
    return type(config)(**tiny)


def _fit_parts(values: Mapping[str, Any], tiny: dict[str, Any]) -> None:
    """What other parts hand to the text model must be of its width."""
    wide, narrow = values.get("text_config"), tiny.get("text_config")
    if not isinstance(wide, Mapping) or not isinstance(narrow, Mapping):
        return
    for part, own in tiny.items():
        if part != "text_config" and isinstance(own, dict):
            for name in own:
                if HANDED_ON.search(str(name)) and values[part].get(name) == wide.get(
                    "hidden_size"
                ):
                    own[name] = narrow["hidden_size"]


def _tiny(values: Mapping[str, Any], around: tuple[int, int] | None = None) -> dict[str, Any]:
    """`around`: the factors of the config that this one is a part of."""
    numbers = {k: v for k, v in values.items() if isinstance(v, int) and not isinstance(v, bool)}
    whole = any(width in numbers for width in MODEL_WIDTHS)
    size, count = _factors(values, numbers) if whole or around is None else around
    layers = _layers(values, numbers)
    tiny: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and PARTS.search(name):
            value = _tiny(value, (size, count))
        elif name in numbers and value > 0:
            value = _number(name, value, size, count, layers)
        elif isinstance(value, list) and len(value) == layers[0] > 1:
            value = [
                _number(name, x, size, count, layers) if type(x) is int and x > 0 else x
                for x in value[: layers[1]]
            ]
        elif name in ("rope_parameters", "rope_scaling") and isinstance(value, Mapping):
            value = _rope(value, size)
        elif name == "per_layer_config" and isinstance(value, Mapping):
            value = {
                str(int(k)): {name: _number(name, x, size, count, layers) for name, x in v.items()}
                for k, v in value.items()
                if int(k) < layers[1]
            }
        tiny[name] = value
    if "num_layers_per_stack" in numbers:
        tiny["num_layers_per_stack"] = 2
    return tiny


def _number(name: str, value: int, size: int, count: int, layers: tuple[int, int]) -> int:
    if name in FEW:
        return min(value, FEW[name])
    if LAYERS.fullmatch(name):
        return min(value, layers[1])
    if HEADS.fullmatch(name):
        return max(1, value // count)
    if HEAD_SIZES.fullmatch(name):
        return max(1, value // size)
    if INNER.fullmatch(name):  # whole groups of 16 bytes, as grouped products of experts need
        return max(8, min(value // (size * count), INNER_MOST) // 8 * 8)
    if WIDTHS.fullmatch(name):
        return max(8, value // (size * count))
    if TOKENS.fullmatch(name):
        return min(value, WINDOW)
    if VOCABULARIES.fullmatch(name):
        return min(value, VOCABULARY)
    if TOKEN_ID.fullmatch(name):
        return min(value, VOCABULARY - 1)
    return value


def _factors(values: Mapping[str, Any], numbers: Mapping[str, int]) -> tuple[int, int]:
    """By how much the size of heads and their count can be divided."""
    heads = [
        v for k, v in numbers.items() if HEADS.fullmatch(k) and v > ("groups" in k)
    ]  # one group goes with any count
    sizes = [v for k, v in numbers.items() if HEAD_SIZES.fullmatch(k) and v > 0]
    width = next((numbers[k] for k in MODEL_WIDTHS if k in numbers), 0)
    if not heads and not sizes:
        return max(1, 2 ** int(math.log2(max(1, width // 64)))), 1
    if not sizes and width % max(heads) == 0:
        sizes = [width // max(heads)]
    count = math.gcd(*heads) if heads else 1
    if count == min(heads, default=1) and count % 2 == 0:
        count //= 2  # two heads of a kind at least
    turned = list(_turned(values))
    main = numbers.get("head_dim") or (width // max(heads) if heads else 0)
    size = 1
    largest = min((s for s in sizes if s >= HEAD_DIM), default=1)
    while (
        largest // (2 * size) >= HEAD_DIM
        and all(s % (4 * size) == 0 for s in sizes)
        and all(int(main // (2 * size) * part) % 2 == 0 for part in turned)
    ):
        size *= 2
    while width and width % (size * count) and count > 1:
        count = next(c for c in range(count - 1, 0, -1) if count % c == 0)
    return size, count


def _turned(values: Mapping[str, Any]) -> Iterator[float]:
    """Parts of a head that are rotated."""
    for name, value in values.items():
        if isinstance(value, Mapping) and re.search(r"^rope|attention$", name):
            yield from _turned(value)
        elif name in ("partial_rotary_factor", "rotary_pct") and isinstance(value, float):
            yield value


def _layers(values: Mapping[str, Any], numbers: Mapping[str, int]) -> tuple[int, int]:
    """Layers of the model, and how many show all of its kinds."""
    names = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    counts = [numbers[name] for name in names if name in numbers]
    n = counts[0] if counts else max(
        (v for k, v in numbers.items() if LAYERS.fullmatch(k)), default=1
    )  # fmt: skip
    if "num_layers_per_stack" in numbers:
        return n, 2 * n // numbers["num_layers_per_stack"]
    if any(SECTIONS.fullmatch(k) for k in numbers) or values.get("num_kv_shared_layers"):
        return n, n
    needed = [FEWEST_LAYERS]
    for kinds in values.values():
        if isinstance(kinds, list) and len(kinds) == n and all(isinstance(k, str) for k in kinds):
            needed += [_second(kinds, kind) for kind in set(kinds)]
    for name, value in numbers.items():
        if re.search(r"(period|interval|every_n_layers|_offset|pattern|group_size)$", name):
            needed.append(value + 1)
        if re.search(r"(first_k_dense|num_dense_layers|start_index)", name):
            needed.append(value + 2)
    return n, min(n, max(needed))


def _second(kinds: list[str], kind: str) -> int:
    """Layers up to the second of a kind, where there is one and it comes soon."""
    places = [i + 1 for i, other in enumerate(kinds) if other == kind]
    return next((place for place in places[1:2] if place <= MOST_LAYERS), places[0])


def _rope(values: Mapping[str, Any], size: int) -> dict[str, Any]:
    tiny: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            value = _rope(value, size)
        elif name == "mrope_section":
            value = _sections(value, size)
        elif isinstance(value, list) and name.endswith("factor"):
            value = value[::size]
        tiny[name] = value
    return tiny


def _sections(sections: list[int], size: int) -> list[int]:
    """Sections of a rotation of so many axes, summing to the smaller one's size."""
    total = sum(sections) // size
    tiny = [s // size for s in sections]
    for i in range(total - sum(tiny)):
        tiny[i % len(tiny)] += 1
    return tiny


def build(config: PretrainedConfig, auto_class: Any, seed: int = 0) -> PreTrainedModel:
    """A random float32 model of a tiny config, whose logits depend on positions clearly."""
    torch.manual_seed(seed)
    model = auto_class.from_config(config, attn_implementation="eager").eval().float()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim >= 2 and "conv" not in name:
                p.normal_(0, p.shape[-1] ** -0.5, generator=generator)
            elif "sink" in name:
                p.normal_(0, 1.0, generator=generator)
    return model
