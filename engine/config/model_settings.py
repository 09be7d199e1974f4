"""Settings of the model and its memory: the `model:` section."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator

from infllm.engine.config.policy_settings import (
    LookupSettings,
    MiddleSettings,
    PruningSettings,
    SurpriseSettings,
)
from infllm.engine.config.values import Count, CountOrZero, KvDtype, Positive, Share, aliases
from infllm.engine.config.weight_settings import WeightSettings


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
        raise ValueError("'auto', 'cpu', 'cuda' or 'cuda:1'")
    return value


PolicyName = Annotated[
    Literal["inf-llm", "infinite-lm", "infinitehip", "sirllm", "stream-lm", "window", "origin"],
    aliases(
        stream_llm="stream-lm",
        inf_llm="inf-llm",
        infinite_lm="infinite-lm",
        infinite_hip="infinitehip",
        hip="infinitehip",
        sir_llm="sirllm",
    ),
]


class ModelConfig(
    WeightSettings, LookupSettings, MiddleSettings, PruningSettings, SurpriseSettings
):
    """The `model:` section: which model, and the memory policy. Lengths are in tokens."""

    type: PolicyName = "inf-llm"
    path: str = ""  # a folder, a hub id or builtin:NAME
    tokenizer_path: str | None = None  # None: beside the model
    revision: str | None = None
    encoder_path: str | None = None  # of LLM-to-SLM; None: as the small model's folder says
    device: Annotated[str, AfterValidator(_device)] = "auto"

    n_init: CountOrZero = 128
    n_local: Count = 4096
    base: Positive | None = None  # rope base; None: the model's own
    distance_scale: Positive = 1.0

    block_size: Count = 128
    topk: Count = 16
    repr_topk: Count = 4
    repr_score: Literal["mass", "dot"] = "mass"
    repr_heads: Literal["query", "group"] = "query"
    exc_block_size: Count = 512
    chunk_topk_calc: Count | None = None
    keep_units: bool = False  # decode steps also attend the units that the question found
    perhead: bool = False
    faiss: bool = False

    max_cached_block: Count = 32
    cache_strategy: Literal["lru", "fifo", "lru-s"] = "lru"
    score_decay: Share = 0.1
    kv_dtype: KvDtype = "auto"
    cuda_graphs: bool = True  # decode steps are recorded and replayed, where they can be

    fattn: bool | None = None
    async_global_stream: bool | None = None
    pin_memory: bool | None = None

    @property
    def short_topk(self) -> int:
        """Units that a call of at most one execution block looks up."""
        return self.question_topk or self.topk

    @property
    def most_units(self) -> int:
        """Units that one lookup chooses at most, of a head where heads choose apart."""
        return max(self.topk, self.short_topk * (2 if self.keep_units else 1))
