"""Weights of linear layers in few bits, for a CPU: there a decode step is bound by reading them.

Products with one row take int8 weights, one scale an output channel, and the row rounded to int8
as a whole, by FBGEMM's kernel: five to ten times as fast as float32 or bfloat16. Products with more
rows are dense: of the weights as they were loaded where these stay (`packed`), else of what the
packed ones are worth, unpacked for the call (`int8`, `int4`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from infllm.engine.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Form = Literal["packed", "int8", "int4"]
GROUP = 32  # input channels that share a scale and a zero in int4, as in GGUF's 4-bit blocks
# Bytes of weights in linear layers below which they stay as they are: caches hold them.
SMALL = 64 * 2**20
ENGINES = ("fbgemm", "x86")  # of torch's quantised kernels, those with int8 products on x86


def best_form(model: nn.Module) -> Form | None:
    """What measured best on a CPU: `packed`, where the kernels are and weights outgrow caches."""
    found = [one.weight for one in model.modules() if type(one) is nn.Linear]
    on_cpu = all(x.device.type == "cpu" for x in found)
    large = sum(x.nbytes for x in found) >= SMALL
    return "packed" if on_cpu and large and has_int8() else None


def has_int8() -> bool:
    """Whether this torch has the int8 kernels for this machine."""
    supported = torch.backends.quantized.supported_engines
    ops = hasattr(torch.ops.quantized, "linear_dynamic") and hasattr(torch, "quantize_per_channel")
    return ops and any(name in supported for name in ENGINES)


def refuse_packed(weights: str, device: torch.device, model: nn.Module | None = None) -> None:
    """Raises ConfigError where `model.weights` cannot be had: on another device than a CPU, and,
    in place of the full ones, of a `model` that came with those."""
    if weights in ("auto", "full"):
        return
    if device.type != "cpu":
        raise ConfigError(
            f"model.weights {weights} is for a CPU, and the model is on {device}",
            "use model.quantization 8bit or 4bit there, or --device cpu",
        )
    came_so = model is None or any(isinstance(one, PackedLinear) for one in model.modules())
    if weights != "packed" and not came_so:
        raise ConfigError(
            f"model.weights {weights} would change the model that was given",
            "have it loaded: load(path), or take model.weights packed",
        )


def pack_steps(model: nn.Module) -> Callable[[], None]:
    """Have products with one row take int8 copies of the weights; returns what undoes it.

    The weights stay, so that a memory's key and reading are what they were.

    Raises ConfigError where there are no kernels for it.
    """
    packed = [(one, Int8Weight.pack(one)) for one in model.modules() if type(one) is nn.Linear]

    def undo() -> None:
        for one, _ in packed:
            one.__dict__.pop("forward", None)

    for one, weight in packed:
        one.__dict__["forward"] = _RowsApart(one, weight)
    return undo


def rounds_rows(model: nn.Module) -> bool:
    """Whether a single row is multiplied otherwise than rows together are."""
    return any(
        isinstance(one, PackedLinear) or isinstance(vars(one).get("forward"), _RowsApart)
        for one in model.modules()
    )


class _RowsApart:
    """Forward of a linear layer: one row by the packed weight, more by its own."""

    def __init__(self, owner: nn.Linear, weight: Int8Weight) -> None:
        self._owner, self._weight = owner, weight

    def __call__(self, x: Tensor) -> Tensor:
        if x.numel() == x.shape[-1]:
            return self._weight.row(x)
        return linear(x, self._owner.weight, self._owner.bias)


def shrink(model: PreTrainedModel, form: Literal["int8", "int4"]) -> None:
    """Put packed weights in place of the model's linear layers, for good.

    Embeddings stay; an output layer that shares its weights with them has a packed copy. It is in
    int8 also beside int4: it decides on every token, and files of 4 bits have it in 6 or 8.

    Raises ConfigError where there are no kernels for it.
    """
    head = model.get_output_embeddings()
    for parent in list(model.modules()):
        for name, one in list(parent.named_children()):
            if type(one) is nn.Linear:
                setattr(parent, name, PackedLinear(one, "int8" if one is head else form))


@contextmanager
def dense_rows(model: nn.Module) -> Iterator[None]:
    """Single rows are multiplied as others are: for comparing passes that are cut differently."""
    packed = [one for one in model.modules() if isinstance(one, PackedLinear)]
    for one in packed:
        one.rounds_rows = False
    yield
    for one in packed:
        one.rounds_rows = True


class PackedLinear(nn.Module):
    """A linear layer that holds its weights in int8 or int4 alone."""

    def __init__(self, owner: nn.Linear, form: Literal["int8", "int4"]) -> None:
        super().__init__()
        self.in_features, self.out_features = owner.in_features, owner.out_features
        fits = form == "int8" or Int4Weight.takes(owner)
        self.packed: Int8Weight | Int4Weight
        self.packed = (Int8Weight if form == "int8" or not fits else Int4Weight).pack(owner)
        self.bias = owner.bias
        self.rounds_rows = True  # a single row is rounded for its product
        # Of the state, which tells one model from another.
        self.register_buffer("scale", self.packed.scale)

    def forward(self, x: Tensor) -> Tensor:
        if self.rounds_rows and x.numel() == x.shape[-1]:
            return self.packed.row(x)
        return linear(x, self.packed.dense(x.dtype), self.bias)


# ---- int8 ----------------------------------------------------------------------------------------


class Int8Weight:
    """[O, I] in int8, one scale a row, laid out for FBGEMM."""

    def __init__(self, packed: Any, scale: Tensor) -> None:
        self._packed, self.scale = packed, scale  # float32 [O]

    @staticmethod
    def pack(owner: nn.Linear) -> Int8Weight:
        if not has_int8():
            raise ConfigError(
                "model.weights int8 and packed need torch's int8 kernels for x86 CPUs (fbgemm)",
                "leave model.weights at full",
            )
        weight = owner.weight.detach().float()
        scale = (weight.abs().amax(dim=1) / 127).clamp_min(1e-12)
        zero = torch.zeros(len(scale), dtype=torch.int64)
        with _kernels():
            codes = torch.quantize_per_channel(weight, scale.double(), zero, 0, torch.qint8)
            bias = None if owner.bias is None else owner.bias.detach().float()
            return Int8Weight(torch.ops.quantized.linear_prepack(codes, bias), scale)

    def row(self, x: Tensor) -> Tensor:
        """x [..., I] of one row by the weight, and the bias: [..., O] in x's dtype."""
        out = torch.ops.quantized.linear_dynamic(x.float(), self._packed, _narrow())
        return out.to(x.dtype)

    def dense(self, dtype: torch.dtype) -> Tensor:
        """What the weight is worth, [O, I]."""
        with _kernels():
            codes, _ = torch.ops.quantized.linear_unpack(self._packed)
        return codes.dequantize().to(dtype)


@contextmanager
def _kernels() -> Iterator[None]:
    """FBGEMM's layout for what is packed within. torch deprecates its quantised tensors, which
    nothing else brings to these kernels; that is no user's concern."""
    before = torch.backends.quantized.engine
    supported = torch.backends.quantized.supported_engines
    torch.backends.quantized.engine = next(name for name in ENGINES if name in supported)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*deprecated", category=UserWarning)
            yield
    finally:
        torch.backends.quantized.engine = before


def _narrow() -> bool:
    """Whether rows must take 7 bits: without VNNI, sums of two products are kept in 16 bits."""
    return not torch.cpu._is_vnni_supported()


# ---- int4 ----------------------------------------------------------------------------------------


class Int4Weight:
    """[O, I] in 4 bits, a scale and a zero for `GROUP` input channels of each row."""

    def __init__(self, codes: Tensor, scale: Tensor, bias: Tensor | None, inputs: int) -> None:
        self._codes, self.scale, self._bias, self._inputs = codes, scale, bias, inputs

    @staticmethod
    def takes(owner: nn.Linear) -> bool:
        """Whether the kernel takes a weight of this shape."""
        return owner.in_features % GROUP == 0 and owner.out_features % 16 == 0

    @staticmethod
    def pack(owner: nn.Linear) -> Int4Weight:
        weight = owner.weight.detach().float()
        groups = weight.unflatten(1, (-1, GROUP))
        low, high = groups.amin(dim=-1), groups.amax(dim=-1)  # [O, I / GROUP]
        # Codes are for the step and the zero as they are kept, in bfloat16.
        step = ((high - low) / 15).clamp_min(1e-12).bfloat16()
        zero = (low + 8 * step).bfloat16()
        codes = ((groups - zero[..., None].float()) / step[..., None].float() + 8).round_()
        codes = codes.clamp_(0, 15).to(torch.int32).flatten(1)
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        scale = torch.stack([step, zero], dim=-1).transpose(0, 1).contiguous()
        return Int4Weight(packed, scale, owner.bias, owner.in_features)

    def row(self, x: Tensor) -> Tensor:
        """As `Int8Weight.row`."""
        out = self._product(x.reshape(1, -1).bfloat16()).to(x.dtype).view(*x.shape[:-1], -1)
        return out if self._bias is None else out + self._bias

    def dense(self, dtype: torch.dtype) -> Tensor:
        """As `Int8Weight.dense`: codes as the kernel has laid them out, or the product with every
        unit vector, which takes as long as one with so many tokens."""
        n = _rows_at_once()
        if n == 0 or self._codes.shape[0] % n:
            return self._product(torch.eye(self._inputs, dtype=torch.bfloat16)).T.to(dtype)
        codes = _unpack(self._codes, self._inputs, n).view(-1, self._inputs // GROUP, GROUP)
        step, zero = self.scale.transpose(0, 1)[..., None].float().unbind(2)  # [O, I / GROUP, 1]
        return codes.float().sub_(8).mul_(step).add_(zero).flatten(1).to(dtype)

    def _product(self, x: Tensor) -> Tensor:
        return torch.ops.aten._weight_int4pack_mm_for_cpu(x, self._codes, GROUP, self.scale)


def _unpack(packed: Tensor, inputs: int, n: int) -> Tensor:
    """Codes uint8 [O, inputs], where the kernel keeps n rows at once: of one input after another,
    the codes of the first half of the rows in the low bits, of the second in the high ones."""
    some = packed.view(-1, inputs, n // 2).transpose(1, 2)
    return torch.cat([some & 15, some >> 4], dim=1).flatten(0, 1)


@cache
def _rows_at_once() -> int:
    """How many rows the kernel keeps at once on this machine, see `_unpack`; 0: otherwise."""
    codes = torch.randint(16, (128, GROUP), dtype=torch.int32)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
    found = (n for n in (64, 32, 16) if torch.equal(_unpack(packed, GROUP, n).int(), codes))
    return next(found, 0)
