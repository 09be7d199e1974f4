"""How a GGUF file says that positions are rotated, as transformers' `rope_parameters`."""

import math
from typing import Any

import numpy as np

from infllm.engine.errors import UnsupportedModel
from infllm.engine.sources.gguf_file import GgufFile, Tensor

# Of Llama 3.1 and later: what the factors in their files were computed from.
LOW_FREQ_FACTOR, HIGH_FREQ_FACTOR = 1.0, 4.0
ORIGINAL_LENGTHS = (8192, 4096, 2048, 16384, 32768)


def short_float(value: float) -> float:
    """A float32 of a file as the decimal number it was made from: 1e-05, not 9.9999997e-06."""
    return float(str(np.float32(value)))


def rope_parameters(file: GgufFile, head_dim: int, default_base: float = 1e4) -> dict[str, Any]:
    """Base, scaling and partial rotation of a file's model.

    Raises UnsupportedModel for a scaling that is unknown.
    """
    base = short_float(file.get("rope.freq_base", default_base))
    if not 0 < base < math.inf:
        raise ValueError(f"rope.freq_base {base}")
    found: dict[str, Any] = {"rope_type": "default", "rope_theta": base}
    rotated = file.get("rope.dimension_count", head_dim)
    if rotated != head_dim:
        found["partial_rotary_factor"] = rotated / head_dim
    original = file.get("rope.scaling.original_context_length")
    short, long = (file.tensors.get(f"rope_factors_{name}.weight") for name in ("short", "long"))
    if short is not None and long is not None:
        return found | _longrope(file, _values(short), _values(long), original)
    if (factors := file.tensors.get("rope_freqs.weight")) is not None:
        return found | _of_factors(file, _values(factors), base, rotated)
    kind = file.get("rope.scaling.type", "none")
    factor = short_float(file.get("rope.scaling.factor", file.get("rope.scale_linear", 1.0)) or 1.0)
    if kind == "none" or (factor == 1.0 and kind == "linear"):
        if kind == "none" and factor != 1.0:  # older files give the factor alone
            return found | {"rope_type": "linear", "factor": factor}
        return found
    if kind == "linear":
        return found | {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        yarn = {"rope_type": "yarn", "factor": factor}
        if original:
            yarn["original_max_position_embeddings"] = original
        for name in ("beta_fast", "beta_slow"):
            value = file.get(f"rope.scaling.yarn_{name}")
            if value is not None:
                yarn[name] = short_float(value)
        return found | yarn
    raise UnsupportedModel(
        f"{file.path}: positions are scaled by {kind!r}, which is unknown",
        "give the model by its Hugging Face id",
    )


def _values(tensor: Tensor) -> "np.ndarray[Any, np.dtype[np.float32]]":
    if tensor.kind.name != "F32":
        raise UnsupportedModel(
            f"{tensor.path}: {tensor.name} is stored as {tensor.kind.name}, not F32",
            "download the model in another conversion",
        )
    return np.fromfile(tensor.path, np.float32, math.prod(tensor.shape), offset=tensor.start)


def _longrope(file: GgufFile, short: Any, long: Any, original: int | None) -> dict[str, Any]:
    length = original or file.get("context_length")
    found = {
        "rope_type": "longrope",
        "short_factor": [short_float(x) for x in short],
        "long_factor": [short_float(x) for x in long],
        "original_max_position_embeddings": length,
    }
    factor = file.get("context_length") / length
    scale = file.get("rope.scaling.attn_factor")
    if scale is not None:
        found["attention_factor"] = short_float(scale)
    elif factor <= 1.0:
        found["attention_factor"] = 1.0
    return found | {"factor": factor}


def _of_factors(file: GgufFile, factors: Any, base: float, rotated: int) -> dict[str, Any]:
    """Llama 3's scaling, if its rule gives the file's factors; else the factors as they are."""
    factor = short_float(factors.max())
    if factor == 1.0:
        return {}
    for length in ORIGINAL_LENGTHS:
        if np.allclose(factors, _llama3_factors(base, rotated, factor, length), rtol=1e-3):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": LOW_FREQ_FACTOR,
                "high_freq_factor": HIGH_FREQ_FACTOR,
                "original_max_position_embeddings": length,
            }
    given = [short_float(x) for x in factors]
    return {
        "rope_type": "longrope",
        "short_factor": given,
        "long_factor": given,
        "attention_factor": 1.0,
        "original_max_position_embeddings": file.get("context_length"),
    }


def _llama3_factors(base: float, rotated: int, factor: float, original: int) -> Any:
    """What each frequency is divided by, [rotated / 2]."""
    wavelengths = 2 * math.pi * base ** (np.arange(0, rotated, 2) / rotated)
    smooth = (original / wavelengths - LOW_FREQ_FACTOR) / (HIGH_FREQ_FACTOR - LOW_FREQ_FACTOR)
    smooth = np.clip(smooth, 0.0, 1.0)
    return 1 / ((1 - smooth) / factor + smooth)
