"""Settings: what a run is to be, where each value comes from; names of devices and dtypes."""

from infllm.engine.config.device import cpu_has_bfloat16, device_name, dtype_name
from infllm.engine.config.fitting import trained_length
from infllm.engine.config.layers import HUB_ID, read_model_config, user_file
from infllm.engine.config.model_settings import ModelConfig, PolicyName
from infllm.engine.config.policy_settings import LOOKUPS, OF_POLICY
from infllm.engine.config.reader_settings import HomerSettings, InfiniRetriSettings
from infllm.engine.config.settings import (
    KNOWN,
    UNCHOSEN,
    Config,
    PromptConfig,
    fit_to_model,
    load_config,
)
from infllm.engine.config.stages import Pruning, most_attended, prunes_int8, pruning_of

__all__ = [
    "HUB_ID",
    "KNOWN",
    "LOOKUPS",
    "OF_POLICY",
    "UNCHOSEN",
    "Config",
    "HomerSettings",
    "InfiniRetriSettings",
    "ModelConfig",
    "PolicyName",
    "PromptConfig",
    "Pruning",
    "cpu_has_bfloat16",
    "device_name",
    "dtype_name",
    "fit_to_model",
    "load_config",
    "most_attended",
    "prunes_int8",
    "pruning_of",
    "read_model_config",
    "trained_length",
    "user_file",
]  # fmt: skip
