"""Which weights leave together: the groups of LLM-Pruner (arXiv 2305.11627, section 3.1).

A group has units; removing a unit from all of its matrices leaves a smaller model that works. Of an
attention layer a unit is a KV head with its query heads, of an MLP a channel, of the residual
stream one of its dimensions in the whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from infllm.engine.errors import UnsupportedModel

INPUT, OUTPUT = 1, 0  # dimension of a matrix [out, in] whose entries belong to the group
# A matrix's importance by row or column: float32 [out] or [in].
Score = Callable[[nn.Parameter, int], Tensor]


@dataclass
class Attention:
    """Attention of one layer; a unit is a KV head, its width the head's dimension."""

    layer: int
    module: Any
    width: int

    @property
    def name(self) -> str:
        return f"attention of layer {self.layer}"

    @property
    def units(self) -> int:
        """KV heads."""
        return self.module.k_proj.out_features // self.width

    @property
    def repeats(self) -> int:
        """Query heads of each KV head."""
        return self.module.q_proj.out_features // self.module.k_proj.out_features

    @property
    def weights(self) -> list[nn.Parameter]:
        return [getattr(self.module, f"{name}_proj").weight for name in "qovk"]

    def scores(self, score: Score, official: bool = False) -> list[Tensor]:
        """[units * width] of each matrix, in the published order.

        Vectors of q and o are summed over the query heads of a KV head, position by position.
        `official`: as if query head h belonged to KV head h modulo their number, a fault of the
        published code: what is then removed are the heads h // repeats.
        """
        m, units, repeats = self.module, self.units, self.repeats

        def folded(vector: Tensor) -> Tensor:
            if official:
                return vector.view(repeats, units, self.width).sum(0).flatten()
            return vector.view(units, repeats, self.width).sum(1).flatten()

        q = folded(score(m.q_proj.weight, OUTPUT))
        o = folded(score(m.o_proj.weight, INPUT))
        v, k = score(m.v_proj.weight, OUTPUT), score(m.k_proj.weight, OUTPUT)
        return [q, o, v, k] if repeats == 1 else [k, o, v, q]

    def keep(self, kept: Tensor) -> None:
        """Leave the KV heads int64 [n] of the present ones, and their query heads."""
        m, width, repeats = self.module, self.width, self.repeats
        before = {"kv": self.units, "q": self.units * repeats}
        queries = (kept[:, None] * repeats + torch.arange(repeats, device=kept.device)).flatten()
        of_q, of_kv = _spans(queries, width), _spans(kept, width)
        for name, rows in (("q", of_q), ("k", of_kv), ("v", of_kv)):
            _slice(getattr(m, f"{name}_proj"), rows, OUTPUT)
        _slice(m.o_proj, of_q, INPUT)
        tell_heads(m, before["q"], before["kv"])


@dataclass
class Mlp:
    """The feed-forward part of one layer; a unit is a channel between its matrices."""

    layer: int
    module: Any
    width: int = 1

    @property
    def name(self) -> str:
        return f"MLP of layer {self.layer}"

    @property
    def units(self) -> int:
        """Channels."""
        return self.module.down_proj.in_features

    @property
    def inputs(self) -> list[nn.Linear]:
        return [
            getattr(self.module, n) for n in ("gate_proj", "up_proj") if hasattr(self.module, n)
        ]

    @property
    def weights(self) -> list[nn.Parameter]:
        return [m.weight for m in (*self.inputs, self.module.down_proj)]

    def scores(self, score: Score, official: bool = False) -> list[Tensor]:
        """[units] of gate, up and down."""
        *inputs, output = self.weights
        return [*(score(weight, OUTPUT) for weight in inputs), score(output, INPUT)]

    def keep(self, kept: Tensor) -> None:
        """Leave the channels int64 [n] of the present ones."""
        for linear in self.inputs:
            _slice(linear, kept, OUTPUT)
        _slice(self.module.down_proj, kept, INPUT)
        if hasattr(self.module, "intermediate_size"):
            self.module.intermediate_size = len(kept)


@dataclass
class Stream:
    """The residual stream of the whole model; a unit is one of its dimensions."""

    readers: list[Any]  # matrices that are multiplied with it, and embeddings
    writers: list[nn.Linear]
    norms: list[Any]
    width: int = 1
    layer: int = -1
    name: str = "the residual stream"

    @property
    def units(self) -> int:
        return int(self.norms[0].weight.shape[0])

    @property
    def weights(self) -> list[nn.Parameter]:
        every = [m.weight for m in (*self.readers, *self.writers, *self.norms)]
        return list({id(weight): weight for weight in every}.values())  # a tied one counts once

    def scores(self, score: Score, official: bool = False) -> list[Tensor]:
        """[units] of every matrix and norm."""
        written = {id(m.weight) for m in self.writers}
        return [
            score(weight, OUTPUT if weight.ndim == 1 or id(weight) in written else INPUT)
            for weight in self.weights
        ]

    def keep(self, kept: Tensor) -> None:
        """Leave the dimensions int64 [n] of the present ones."""
        before = [module.weight for module in self.readers]  # held, so that no id is used twice
        done: dict[int, nn.Parameter] = {}
        for module, weight in zip(self.readers, before, strict=True):
            if id(weight) in done:
                module.weight = done[id(weight)]
                _tell_sizes(module)
            else:
                _slice(module, kept, INPUT)
                done[id(weight)] = module.weight
        for module in self.writers:
            _slice(module, kept, OUTPUT)
        for norm in self.norms:
            norm.weight = _parameter(norm.weight.detach()[kept])


Group = Attention | Mlp | Stream


def tell_heads(module: Any, queries: int, kv: int) -> None:
    """Bring the head counts that an attention module keeps, `queries` and `kv`, up to date."""
    width = module.head_dim
    now_q, now_kv = module.q_proj.out_features // width, module.k_proj.out_features // width
    for name in ("num_heads", "num_attention_heads", "n_heads"):
        if getattr(module, name, None) == queries:
            setattr(module, name, now_q)
    for name in ("num_key_value_heads", "num_kv_heads"):
        if getattr(module, name, None) == kv:
            setattr(module, name, now_kv)


def attention_groups(model: nn.Module, layers: Sequence[int] | None = None) -> list[Attention]:
    """One for each layer of `layers`; None: of all.

    Raises:
        UnsupportedModel: the layers are of another form than Llama's.
    """
    found = []
    for index, layer in enumerate(_layers(model)):
        module: Any = getattr(layer, "self_attn", None)
        _need(model, index, module, ("q_proj", "k_proj", "v_proj", "o_proj"))
        width = int(module.head_dim)
        if layers is None or index in layers:
            found.append(Attention(index, module, width))
    return found


def refuse_joint_norms(groups: Sequence[Attention]) -> None:
    """Raises UnsupportedModel where heads are normalised together: the rest would change."""
    for group in groups:
        for name, child in group.module.named_children():
            weight = getattr(child, "weight", None)
            if "norm" in name and weight is not None and weight.shape[-1] != group.width:
                raise UnsupportedModel(
                    f"the {group.name} normalises all heads together ({name}): none can be removed",
                    "--attention-layers none prunes the MLPs alone",
                )


def mlp_groups(model: nn.Module, layers: Sequence[int] | None = None) -> list[Mlp]:
    """One for each layer of `layers`; None: of all. Raises as `attention_groups`."""
    found = []
    for index, layer in enumerate(_layers(model)):
        if layers is None or index in layers:
            module = getattr(layer, "mlp", None)
            _need(model, index, module, ("up_proj", "down_proj"))
            found.append(Mlp(index, module))
    return found


def stream_group(model: Any) -> Stream:
    """The residual stream. Raises as `attention_groups`, and where its size scales embeddings."""
    attention, mlps = attention_groups(model), mlp_groups(model)
    embedding = model.get_input_embeddings()
    if hasattr(embedding, "embed_scale"):
        raise UnsupportedModel(
            f"{type(model).__name__} scales its embeddings by the size of the residual stream",
            "prune heads and channels instead: leave --group hidden out",
        )
    readers: list[Any] = [embedding, model.get_output_embeddings()]
    writers: list[nn.Linear] = []
    for a, m in zip(attention, mlps, strict=True):
        readers += [a.module.q_proj, a.module.k_proj, a.module.v_proj, *m.inputs]
        writers += [a.module.o_proj, m.module.down_proj]
    size = embedding.weight.shape[1]
    of_heads = {id(child) for a in attention for child in a.module.modules()}
    norms = [
        module
        for module in model.modules()
        if "Norm" in type(module).__name__
        and id(module) not in of_heads
        and getattr(module, "weight", None) is not None
        and module.weight.shape == (size,)
    ]
    return Stream(readers, writers, norms)


def _layers(model: nn.Module) -> nn.ModuleList:
    decoder = getattr(model, "model", None)
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise UnsupportedModel(
            f"{type(model).__name__} has no layers of Llama's form (model.layers)"
        )
    return layers


def _need(model: nn.Module, index: int, module: Any, names: Sequence[str]) -> None:
    missing = [name for name in names if not isinstance(getattr(module, name, None), nn.Linear)]
    if missing:
        raise UnsupportedModel(
            f"layer {index} of {type(model).__name__} has no {missing[0]}: only layers of Llama's "
            "form are pruned, with q_proj, k_proj, v_proj, o_proj, and up_proj and down_proj",
        )


def _spans(units: Tensor, width: int) -> Tensor:
    return (units[:, None] * width + torch.arange(width, device=units.device)).flatten()


def _slice(module: Any, kept: Tensor, dim: int) -> None:
    module.weight = _parameter(module.weight.detach().index_select(dim, kept))
    if dim == OUTPUT and getattr(module, "bias", None) is not None:
        module.bias = _parameter(module.bias.detach()[kept])
    _tell_sizes(module)


def _tell_sizes(module: Any) -> None:
    if isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = module.weight.shape
    else:
        module.out_features, module.in_features = module.weight.shape


def _parameter(data: Tensor) -> nn.Parameter:
    return nn.Parameter(data.contiguous(), requires_grad=False)
