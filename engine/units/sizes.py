"""Memory that a run will need, predicted before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infllm.engine.config import cpu_has_bfloat16, most_attended, prunes_int8
from infllm.kernels.unit_parts import parts_of

if TYPE_CHECKING:
    from infllm.engine.attachment import Layer
    from infllm.engine.config import ModelConfig

PAGE = 8  # tokens: what `infinite-lm` fetches for the sake of one chosen key
KV_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1, "fp8": 1}


@dataclass(frozen=True)
class Estimate:
    """Bytes that a session keeps between passes; the model's weights are not included."""

    device_bytes: int
    host_bytes: int
    disk_bytes: int = 0


def n_parts(config: ModelConfig) -> int:
    """Parts of a unit whose moments are kept for lookups, 0 where none are.

    With exact positions every key is turned by its own angle, which moments cannot tell.
    """
    by_moments = config.unit_score == "moments" and config.far_position != "exact"
    return parts_of(config.block_size) if by_moments else 0


def keeps_latents(config: ModelConfig, layer: Layer) -> bool:
    """Whether units of a layer hold latents in place of keys and values."""
    even = config.block_size % 2 == 0  # half a unit's tokens take the place of its keys
    return config.type == "inf-llm" and even and layer.latents is not None


def estimate(config: ModelConfig, layers: Sequence[Layer], n_tokens: int) -> Estimate:
    """Bytes by tier after `n_tokens` tokens. On a CPU both tiers are the same memory."""
    device = host = 0
    for layer in layers:
        on_device, on_host = _layer_bytes(config, layer, n_tokens)
        device += on_device
        host += on_host
    return Estimate(device, host)


def _layer_bytes(config: ModelConfig, layer: Layer, n_tokens: int) -> tuple[int, int]:
    token = 2 * layer.n_kv_heads * layer.head_dim * layer.dtype.itemsize
    if layer.chunk is not None:
        return min(n_tokens, layer.chunk) * token, 0
    if layer.sliding_window is not None:
        return min(n_tokens, layer.sliding_window) * token, 0
    if config.type == "origin":
        return n_tokens * token, 0
    if config.type == "sirllm":
        return min(n_tokens, config.n_init + config.n_entropy + config.n_recent) * token, 0
    if config.type == "infinitehip":
        return _hip_bytes(config, layer, n_tokens, token)
    kept = min(n_tokens, config.n_local + config.n_init) * token
    if config.type == "infinite-lm" and config.has_middle(layer.index):
        n_pages = max(0, n_tokens - config.n_local - config.n_init + 1) // PAGE
        slots = max(config.max_cached_block, config.middle_topk * layer.n_heads) * PAGE * token
        return kept + slots, n_pages * _unit_bytes(config, layer, PAGE)
    if config.type != "inf-llm":
        return kept, 0
    n_units = max(0, n_tokens - config.n_local - config.n_init) // config.block_size
    kv = KV_BYTES[config.kv_dtype]
    heads = layer.n_kv_heads if config.repr_heads == "group" else layer.n_heads
    # As in UnitStore: float32 on a CPU, at most 16 bits on a GPU unless the units have more.
    index = heads * layer.head_dim * (4 if layer.device.type == "cpu" else max(kv, 2))
    half = layer.device.type != "cpu" or cpu_has_bfloat16()
    parts = n_parts(config)
    moments = parts + 1 if parts > 1 else parts  # those of whole units are kept beside
    index += 2 * layer.n_kv_heads * moments * layer.head_dim * (2 if half else 4)
    if layer.latents is not None and keeps_latents(config, layer):
        waiting = min(n_tokens, config.n_local + config.block_size)
        kept += waiting * layer.latents.size * layer.dtype.itemsize
    groups = layer.n_heads if config.perhead else 1
    slots = max(config.max_cached_block, config.most_units * groups) * config.block_size * token
    unit = _unit_bytes(config, layer, config.block_size)
    return kept + n_units * index + slots, n_units * unit


def _hip_bytes(config: ModelConfig, layer: Layer, n_tokens: int, token: int) -> tuple[int, int]:
    """InfiniteHiP: what steps attend stays until stages run again; all tokens are on the host."""
    kv = KV_BYTES[config.kv_dtype]
    scale = 4 if config.kv_dtype in ("int8", "fp8") else 0
    kept = min(n_tokens, config.n_local + config.n_init + most_attended(config)) * token
    host = n_tokens * 2 * layer.n_kv_heads * (layer.head_dim * kv + scale)
    probes = n_tokens * layer.n_kv_heads * (layer.head_dim + 4)
    if not prunes_int8(config, layer.device.type):
        return kept, host
    on_device = n_tokens <= config.prune_bound or layer.device.type == "cpu"
    return (kept + probes, host) if on_device else (kept, host + probes)


def _unit_bytes(config: ModelConfig, layer: Layer, size: int) -> int:
    """Bytes of a unit of `size` tokens off the device."""
    scale = 4 if config.kv_dtype in ("int8", "fp8") else 0
    if layer.latents is not None and keeps_latents(config, layer):
        return size * (layer.latents.size * KV_BYTES[config.kv_dtype] + scale)
    return 2 * layer.n_kv_heads * size * (layer.head_dim * KV_BYTES[config.kv_dtype] + scale)
