"""Every causal model type of the installed transformers, tiny, and what became of each.

`python -m tests.engine.zoo` writes docs/models.md anew.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import transformers
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from infllm.engine.support import Support, examine_config

DOC = Path(__file__).parents[2] / "docs" / "models.md"
FEW_ATTEND = [*["conv"] * 3, "full_attention"] * 4
INDEXED = {
    "indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 256, "indexer_budget": 256,
    "indexer_compress_ratio": 4,
}  # fmt: skip

# What the default config of a type leaves out, or has none of that the type is made for.
SETTINGS: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [2, 5]},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}
    },
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "kv_n_heads": 8, "clip_qkv": 8.0}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "gemma4_assistant": {
        "text_config": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}
    },
    "granitemoehybrid": {
        "layer_types": [*["linear_attention"] * 3, "full_attention"] * 8, "num_hidden_layers": 32,
    },
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "lfm2": {"layer_types": FEW_ATTEND, "num_hidden_layers": 16},
    "lfm2_moe": {"layer_types": FEW_ATTEND, "num_hidden_layers": 16},
    "ministral": {"head_dim": 128},
    "minimax_m3_vl_text": {
        "layer_types": ["full_attention", "minimax_m3_sparse"] * 2, "num_hidden_layers": 4,
        "mlp_layer_types": ["dense", "sparse"] * 2,
    },
    "nemotron": {"num_key_value_heads": 8},
    "qwen4_exp": {"text_config": INDEXED},
    "qwen4_exp_text": INDEXED,
    "reformer": {"is_decoder": True, "axial_pos_embds": False, "num_buckets": 8},
    "xmod": {"default_language": "en_XX"},
}  # fmt: skip

TYPES = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
WITH_PICTURES = sorted(
    {*MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES} - {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES}
)
WORDS = {"served": "yes", "limited": "with a limit", "refused": "no", "unknown": "not tried"}
# Reasons of those that have no softmax attention with rotary positions or none to be served.
OTHERS = re.compile(
    r"learned positions|ALiBi|no softmax attention|adds a bias|outside its rotary|codes of sound"
    rf"|no keys of its own|\| {WORDS['unknown']} \|"
)
HEAD = """\
# Which models are served

The engine has no such table: it finds out at attachment how a model rotates its queries, where its
layers keep a state, and what else they do. This page is what came of that for every type of causal
language model in transformers {version}, each as a tiny random model of its type's config: read,
forked, saved, opened again and asked in decode steps, all against the model's own logits (within
1e-4 of the largest, while everything fits). `infllm doctor --model PATH` does the same with the
config of any model, in seconds, without reading its weights.

Of the {asked} types here that have softmax attention with rotary positions or with none, {served}
are served, {limited} of these with a limit. All others (learned positions, a bias for distances, a
state alone) are refused with the reason, before anything is read{untried}. Of models that
see or hear too, the text is read: `--model` takes the checkpoint as it is, also where a library
that only their eyes or ears need is missing (timm, of Gemma 3n).

Layers with a state of their own (linear attention, state space models, convolutions) keep it in
cache layers of transformers, which the session holds: copied for a fork, written to memory files.
Steps of such a model are not recorded as CUDA graphs, whose replays would move a state twice.

Layers with latent attention (MLA) hand over what keys and values are made of, in this release of
transformers: units of `inf-llm`, on the host and in memory files, hold that alone, and are expanded
when they are looked up. In bfloat16 these are 70,272 bytes a token for DeepSeek-V3, in place of
5,996,544, and 35,712 for MiniCPM3, in place of 952,320. Window, initial tokens and the device's
slots keep what is expanded, and so do all other policies.

A model that accelerate's device map spreads over several devices is read with each layer's memory
on the layer's own device; its steps are not recorded. `--device auto` spreads one whose weights
take more than four fifths of what is free on the first of several GPUs, where accelerate is
installed (`pip install 'infllm[multi]'`). Where transformers' tensor parallelism splits heads over
processes, each keeps its own heads' memory, and they choose units together; `infinitehip`, `faiss`
and memory files are refused there, and tokens that are sampled need a seed. Both were tried on a
CPU: two devices in name alone, and two processes.

| type | served | with which limit, or why not |
|---|---|---|
"""


@functools.cache
def support_of(kind: str) -> Support:
    """What became of a tiny model of that type."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the defaults of configs
            config = CONFIG_MAPPING[kind](**SETTINGS.get(kind, {}))
            values = config.to_dict()
    except Exception as error:  # a default config that transformers itself refuses
        return Support("unknown", f"it has no default config: {type(error).__name__}")
    return examine_config(values)


def row(kind: str, support: Support) -> str:
    """The table's row of a type."""
    return f"| {kind} | {WORDS[support.outcome]} | {support.reason.replace('|', '/')} |"


def listed() -> dict[str, str]:
    """The rows of docs/models.md by type."""
    lines = DOC.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| type |")]
    return {line.split(" | ")[0][2:]: line for line in rows}


def page(kinds: Iterable[str]) -> str:
    """docs/models.md."""
    all_ = {kind: support_of(kind) for kind in kinds}
    unknown = sum(s.outcome == "unknown" for s in all_.values())
    untried = f"; {unknown} could not be tried" if unknown else ""
    asked = [s for kind, s in all_.items() if not OTHERS.search(row(kind, s))]
    limited = sum(s.outcome == "limited" for s in asked)
    served = limited + sum(s.outcome == "served" for s in asked)
    head = HEAD.format(
        version=transformers.__version__, asked=len(asked), served=served, limited=limited,
        untried=untried,
    )  # fmt: skip
    return head + "".join(f"{row(kind, support)}\n" for kind, support in all_.items())


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    DOC.write_text(page(TYPES), encoding="utf-8")
