"""Shapes of pruned layers: as a model has them, as a config.json tells them, as stock code reads.

A config.json of layers that differ keeps the counts of the model that was pruned, and beside them
`pruned: {"heads": [[query, kv], ...], "channels": [...]}`, an entry for each layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from infllm.engine.errors import ModelFileError, UnsupportedModel
from infllm.engine.prune.groups import Attention, Mlp, attention_groups, mlp_groups, tell_heads

KEY = "pruned"  # of config.json


@dataclass(frozen=True)
class Shape:
    """What the layers of a model have: (query heads, KV heads) and MLP channels."""

    heads: tuple[tuple[int, int], ...]
    channels: tuple[int, ...]

    @property
    def equal(self) -> bool:
        """Whether all layers are alike."""
        return len(set(self.heads)) == 1 and len(set(self.channels)) == 1

    def as_json(self) -> dict[str, Any]:
        return {"heads": [list(pair) for pair in self.heads], "channels": list(self.channels)}


def shape_of(model: PreTrainedModel) -> Shape:
    """The shape of a model's layers as they are. Raises UnsupportedModel as `attention_groups`."""
    heads = [(a.units * a.repeats, a.units) for a in attention_groups(model)]
    return Shape(tuple(heads), tuple(m.units for m in mlp_groups(model)))


def told_shape(config: Mapping[str, Any], where: str) -> Shape | None:
    """What a config.json says under `pruned`; None where it says nothing.

    Raises ModelFileError for what is no shape of that model.
    """
    told = config.get(KEY)
    if told is None:
        return None
    try:
        heads = tuple((int(q), int(kv)) for q, kv in told["heads"])
        channels = tuple(int(n) for n in told["channels"])
    except (TypeError, KeyError, ValueError) as error:
        raise _no_shape(where, "it needs heads: [[query, kv], ...] and channels: [...]") from error
    n = config.get("num_hidden_layers")
    if not len(heads) == len(channels) == n:
        raise _no_shape(where, f"heads and channels of {n} layers are wanted")
    if any(kv < 1 or q < 1 or q % kv for q, kv in heads) or min(channels) < 1:
        raise _no_shape(where, "each layer needs a channel, and query heads in equal shares")
    return Shape(heads, channels)


def _no_shape(where: str, why: str) -> ModelFileError:
    return ModelFileError(
        f"{where}: `{KEY}` in config.json is no shape: {why}", "make it again with infllm prune"
    )


def load_shaped(path: str, config: Any, shape: Shape, **arguments: Any) -> Any:
    """`from_pretrained` of a model whose layers have `shape`.

    The model's own class builds the dense layers, which are cut before weights are loaded; so that
    all that from_pretrained can do (quantisation, devices, the hub) goes on as for others.

    Raises what from_pretrained raises, and UnsupportedModel.
    """
    own = AutoModelForCausalLM._model_mapping[type(config)]

    def make(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        own.__init__(self, config, *args, **kwargs)
        _cut(self, shape)

    names = {"__init__": make, "__module__": own.__module__, "__qualname__": own.__qualname__}
    made: Any = type(own.__name__, (own,), names)
    return made.from_pretrained(path, config=config, **arguments)


def _cut(model: Any, shape: Shape) -> None:
    """Leave the first heads and channels of each layer: places for weights, not values."""
    attention, mlps = attention_groups(model), mlp_groups(model)
    for a, m, (q, kv), channels in zip(
        attention, mlps, shape.heads, shape.channels, strict=True
    ):  # fmt: skip
        if q // kv != a.repeats or kv > a.units or channels > m.units:
            raise UnsupportedModel(
                f"layer {a.layer} cannot have {q} query and {kv} KV heads and {channels} channels: "
                f"the model has {a.units * a.repeats}, {a.units} and {m.units}"
            )
        if kv < a.units:
            a.keep(torch.arange(kv, device=a.weights[0].device))
        if channels < m.units:
            m.keep(torch.arange(channels, device=m.weights[0].device))


def pad(model: PreTrainedModel) -> None:
    """Make all layers as wide as the widest, in place: with heads and channels that are zero.

    The function stays the same, and stock code loads it; time and memory are saved no more than
    the widest layer allows.
    """
    shape = shape_of(model)
    most_kv, most = max(kv for _, kv in shape.heads), max(shape.channels)
    for a in attention_groups(model):
        _widen_attention(a, most_kv)
    for m in mlp_groups(model):
        _widen_mlp(m, most)


def _widen_attention(group: Attention, kv: int) -> None:
    m, repeats, width = group.module, group.repeats, group.width
    before = group.units * repeats, group.units
    _widen(m.q_proj, 0, kv * repeats * width)
    _widen(m.k_proj, 0, kv * width)
    _widen(m.v_proj, 0, kv * width)
    _widen(m.o_proj, 1, kv * repeats * width)
    tell_heads(m, *before)


def _widen_mlp(group: Mlp, channels: int) -> None:
    for linear in group.inputs:
        _widen(linear, 0, channels)
    _widen(group.module.down_proj, 1, channels)


def _widen(linear: nn.Linear, dim: int, size: int) -> None:
    def wider(x: Tensor, dim: int) -> nn.Parameter:
        shape = list(x.shape)
        shape[dim] = size - shape[dim]
        return nn.Parameter(torch.cat([x.detach(), x.new_zeros(shape)], dim), requires_grad=False)

    linear.weight = wider(linear.weight, dim)
    if dim == 0 and linear.bias is not None:
        linear.bias = wider(linear.bias, 0)
    linear.out_features, linear.in_features = linear.weight.shape


def config_for(model: PreTrainedModel, config: Mapping[str, Any]) -> dict[str, Any]:
    """`config`, a config.json, made to fit the model's layers as they are.

    Counts alone where all layers are alike and stock code builds them so; with llama's validation,
    which wants the residual stream to be a multiple of the heads, as `mistral` (the same model).
    Else the counts that were there, and `pruned`.
    """
    shape = shape_of(model)
    plain = {key: value for key, value in config.items() if key != KEY}
    plain["hidden_size"] = model.get_input_embeddings().weight.shape[1]
    plain["head_dim"] = attention_groups(model)[0].width
    if shape.equal:
        (queries, kv), *_ = shape.heads
        even = {
            **plain, "num_attention_heads": queries, "num_key_value_heads": kv,
            "intermediate_size": shape.channels[0],
        }  # fmt: skip
        for candidate in (even, _as_mistral(even)):
            if candidate is not None and _builds(candidate, model):
                return candidate
    return {**plain, KEY: shape.as_json()}


def _as_mistral(config: Mapping[str, Any]) -> dict[str, Any] | None:
    if (
        config.get("model_type") != "llama"
        or config.get("attention_bias")
        or config.get("mlp_bias")
    ):
        return None
    kept = {
        k: v for k, v in config.items() if k not in ("pretraining_tp", "attention_bias", "mlp_bias")
    }
    return {
        **kept, "model_type": "mistral", "architectures": ["MistralForCausalLM"],
        "sliding_window": None,
    }  # fmt: skip


def _builds(config: Mapping[str, Any], model: PreTrainedModel) -> bool:
    """Whether stock code makes a model of that config, with tensors of the shapes of `model`'s."""
    values = {key: value for key, value in config.items() if key != "model_type"}
    try:
        with torch.device("meta"):
            stock = AutoModelForCausalLM.from_config(
                AutoConfig.for_model(config["model_type"], **values)
            )
    except (ValueError, StrictDataclassError):
        return False
    wanted = {name: tuple(x.shape) for name, x in model.state_dict().items()}
    return {name: tuple(x.shape) for name, x in stock.state_dict().items()} == wanted
