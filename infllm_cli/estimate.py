"""What a run will need, before its model is loaded: from the model's config.json."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from infllm.cli.errors import ModelMissing
from infllm.cli.work import parameters, reading_work

if TYPE_CHECKING:
    from infllm.engine.config import Config, ModelConfig
    from infllm.engine.text import TextTokenizer, Tokenizer

KV_OF_DTYPE = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
# A rough guess, not calibrated: the part of a large matrix product's throughput that a whole
# forward pass reaches; lookups, norms and memory traffic take the rest.
EFFICIENCY = 0.4
GATHERED = 4.0  # what a product with a key that is gathered by itself takes, on a CPU
# The processor's bfloat16 instruction multiplies and adds twice as many numbers as the float32 one.
BFLOAT16_SPEEDUP = 2.0


class _Device(NamedTuple):
    type: str


class _Dtype(NamedTuple):
    itemsize: int


class _Latents(NamedTuple):
    size: int


@dataclass(frozen=True)
class _Shape:
    """Of one attention layer, what the engine's estimate looks at.

    Of device and dtype too: torch is not imported for their sake.
    """

    n_heads: int
    n_kv_heads: int
    head_dim: int
    device: _Device
    dtype: _Dtype
    sliding_window: int | None
    index: int = 0
    chunk: int | None = None
    latents: _Latents | None = None


@dataclass(frozen=True)
class Needs:
    """Bytes and seconds that reading `tokens` tokens will take, about.

    `device_bytes` includes the weights; on a CPU both sizes are of the same memory. `seconds` is
    None where the device's speed could not be measured. `notes`: what the policy costs besides, a
    sentence each.
    """

    tokens: int
    weight_bytes: int
    device_bytes: int
    host_bytes: int
    seconds: float | None
    device: str
    notes: tuple[str, ...] = ()


def load_tokenizer(config: "Config") -> "TextTokenizer":
    """The tokenizer of a configuration's model, for text, without the model's weights.

    Raises:
        ModelMissing: it is not on this machine and could not be fetched.
    """
    from infllm.engine.sources import local_tokenizer
    from infllm.engine.text import TextTokenizer, read_tokenizer

    path = local_tokenizer(config.model.tokenizer_path or config.model.path)
    core = read_tokenizer(path)
    if core is not None:
        return TextTokenizer(core)
    return load_chat_tokenizer(config)


def load_chat_tokenizer(config: "Config") -> "Tokenizer":
    """The tokenizer with its chat template, by transformers; raises as `load_tokenizer`."""
    from infllm.engine.sources import local_tokenizer, open_tokenizer
    from infllm.engine.text import Tokenizer

    path = local_tokenizer(config.model.tokenizer_path or config.model.path)
    try:
        return Tokenizer(open_tokenizer(path, config.model.revision))
    except (OSError, ValueError) as error:
        raise ModelMissing(
            f"no tokenizer for {path}: {str(error).splitlines()[0]}",
            "download the model once while online, or give --model a local folder",
        ) from error


def estimate_needs(config: "Config", tokens: int) -> Needs | None:
    """Memory and time of one reading; None when the model's config.json is not on this machine."""
    from infllm.engine.config import device_name, dtype_name, read_model_config
    from infllm.engine.units import estimate

    spec = read_model_config(config.model.path)
    if spec is None:
        return None
    spec = spec.get("text_config") or spec
    device = device_name(config.model.device)
    kind = device.partition(":")[0]
    dtype = dtype_name(config.model.dtype, kind)
    if config.model.kv_dtype == "auto":
        config = config.with_overrides({"kv_dtype": KV_OF_DTYPE[dtype]})
    itemsize = 4 if dtype == "float32" else 2
    shapes = _shapes(spec, _Device(kind), _Dtype(itemsize))
    memory = estimate(config.model, shapes, tokens)  # type: ignore[arg-type]
    weights = parameters(spec, shapes).stored * itemsize
    work = reading_work(spec, shapes, config.model, tokens)
    operations = work.total
    if config.model.type == "infinitehip" and kind == "cpu":
        operations += (GATHERED - 1) * work.scoring
    speed = matmul_speed(device, dtype)
    return Needs(
        tokens,
        weights,
        weights + memory.device_bytes,
        memory.host_bytes,
        operations / (speed * EFFICIENCY),
        device,
        tuple(_notes(config.model, spec, shapes, tokens)),
    )


def layer_shapes(spec: dict[str, Any], device: str, itemsize: int) -> list[_Shape]:
    """The attention layers of a config.json, as `infllm.cli.work` wants them.

    `device`: `cpu` or `cuda`; `itemsize`: bytes of a number there.
    """
    return _shapes(spec, _Device(device), _Dtype(itemsize))


def _notes(
    settings: "ModelConfig", spec: dict[str, Any], shapes: list[_Shape], tokens: int
) -> Iterator[str]:
    if settings.type == "infinite-lm" and settings.middle_topk > 0:
        full = [shape for shape in shapes if shape.sliding_window is None]
        n = sum(settings.has_middle(shape.index) for shape in full)
        yield (
            f"the keys and values of all tokens are kept on the host for the middle of {n} of "
            f"{len(shapes)} layers, and each generated token is compared with all of them"
        )
    if settings.type == "sirllm" and settings.score == "entropy":
        head = 2.0 * tokens * parameters(spec, shapes).head
        share = head / max(1.0, reading_work(spec, shapes, settings, tokens).total)
        yield f"the model's head is run for every token, for its surprise: {share:.0%} of the work"


def _shapes(spec: dict[str, Any], device: _Device, dtype: _Dtype) -> list[_Shape]:
    heads = spec["num_attention_heads"]
    head_dim = spec.get("head_dim") or spec["hidden_size"] // heads
    latents, kv_heads = None, spec.get("num_key_value_heads") or heads
    if spec.get("kv_lora_rank") and spec.get("qk_nope_head_dim"):  # latent attention (MLA)
        turned = spec["qk_rope_head_dim"]
        head_dim = max(spec["qk_nope_head_dim"] + turned, spec["v_head_dim"])
        latents, kv_heads = _Latents(spec["kv_lora_rank"] + turned), heads
    kinds = spec.get("layer_types") or ["full_attention"] * spec["num_hidden_layers"]
    alike = [(heads, kv_heads)] * len(kinds)
    of_layers = (spec.get("pruned") or {}).get("heads") or alike  # of `infllm prune`
    return [
        _Shape(
            of_layers[index][0],
            of_layers[index][1],
            head_dim,
            device,
            dtype,
            spec.get("sliding_window") if kind == "sliding_attention" else None,
            index,
            spec.get("attention_chunk_size") if kind == "chunked_attention" else None,
            latents,
        )
        for index, kind in enumerate(kinds)
    ]


@cache
def matmul_speed(device: str, dtype: str) -> float:
    """Floating-point operations a second of a square matrix product, measured in a moment."""
    from infllm.engine.config import cpu_has_bfloat16

    if device == "cpu" and dtype == "float32":
        return _numpy_speed()
    if device == "cpu" and dtype == "bfloat16" and cpu_has_bfloat16():
        return BFLOAT16_SPEEDUP * _numpy_speed()
    return _torch_speed(device, dtype)


def _numpy_speed() -> float:
    """In float32 on the CPU. torch's is about the same, and its import takes two seconds."""
    import numpy as np

    side = 768
    a = np.random.default_rng(0).standard_normal((side, side), dtype=np.float32)
    return _speed(side, lambda: a @ a)


def _torch_speed(device: str, dtype: str) -> float:
    import torch

    side = 768 if device == "cpu" else 4096
    a = torch.randn(side, side, device=device, dtype=getattr(torch, dtype))
    return _speed(side, lambda: (a @ a).sum().item())


def _speed(side: int, multiply: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        multiply()
        best = min(best, time.perf_counter() - started)
    return 2.0 * side**3 / best
