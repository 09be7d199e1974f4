"""Settings: what a run is to be, where each value comes from; names of devices and dtypes."""

from infllm.engine.config.device import cpu_has_bfloat16, device_name, dtype_name
from infllm.engine.config.layers import names_gguf, read_model_config, trained_length
from infllm.engine.config.settings import (
    KNOWN,
    Config,
    ModelConfig,
    PromptConfig,
    fit_to_model,
    load_config,
)

__all__ = [
    "KNOWN",
    "Config",
    "ModelConfig",
    "PromptConfig",
    "cpu_has_bfloat16",
    "device_name",
    "dtype_name",
    "fit_to_model",
    "load_config",
    "names_gguf",
    "read_model_config",
    "trained_length",
]
