"""In which numbers a model's weights are held."""

from typing import Literal

from infllm.engine.config.values import Dtype, Settings


class WeightSettings(Settings):
    """Keys of the `model:` section that say it."""

    dtype: Dtype = "auto"
    quantization: str | None = None  # 8bit or 4bit, by bitsandbytes
    # Of linear layers on a CPU. packed: int8 copies beside the full ones, for decode steps; int8,
    # int4: in place of the full ones. auto: packed for models too large for a CPU's caches.
    weights: Literal["auto", "full", "packed", "int8", "int4"] = "auto"
