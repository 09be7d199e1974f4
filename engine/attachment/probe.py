"""How a model rotates its queries and keys, found by watching it, not by a table of names.

The model runs twice on a few tokens: once with its own rotary tables, once with identity tables
(cos 1, sin 0). The attention function of the probe returns values only, so that the hidden states
of both runs are the same and each layer's queries are seen with and without rotation. For each
layer the rotation that turns one into the other is looked for; a layer that fits none is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from infllm.engine.attachment.devices import Split, home, split_of
from infllm.engine.attachment.heads import HeadForm
from infllm.engine.attachment.layer import Layer, Rotary
from infllm.engine.attachment.replacing import all_replaced
from infllm.engine.errors import UnsupportedModel
from infllm.kernels.rotate import Rope, rotate

PROBE_TOKENS = 12
# Uneven gaps, so that no two pairs of tokens stand at the same distance by accident; small, so
# that tables that change with length (longrope, dynamic) stay at their in-window form.
PROBE_POSITIONS = (0, 1, 2, 5, 7, 12, 16, 23, 24, 31, 37, 40)


@dataclass
class RotaryModule:
    """A module of the model that makes rotary tables, and the tables it was seen to make."""

    module: nn.Module
    tables: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = field(default_factory=dict)
    complex: bool = False  # it returns one table, cosine + i sine
    sine_first: bool = False


def find_rotary_modules(model: nn.Module) -> list[RotaryModule]:
    """Modules that return (cos, sin) for (x, position_ids)."""
    return [
        RotaryModule(module)
        for module in model.modules()
        if "Rotary" in type(module).__name__ and not list(module.children())
    ]


@dataclass
class Seen:
    """What one attention module handed over in one run."""

    q: Tensor  # [1, H, T, D]
    k: Tensor  # [1, Hkv, T, D]
    v: Tensor
    sliding_window: int | None
    chunk: int | None
    biased: bool  # keys have a bias each


class Watch:
    """Attention function of the probe: records q and k, and answers with values alone."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Seen]] = []  # of the pass, in order, with the layer's number

    @property
    def by_order(self) -> bool:
        """Whether layers are told apart by the order of their calls: where modules do not say
        which layer they are, or one attends more than once a pass."""
        numbers = [number for number, _ in self.calls]
        own = all(isinstance(n, int) and n >= 0 for n in numbers)
        return not own or len(set(numbers)) < len(numbers)

    @property
    def seen(self) -> dict[int, Seen]:
        """Calls by the number of their layer."""
        if self.by_order:
            return dict(enumerate(seen for _, seen in self.calls))
        return dict(self.calls)

    def __call__(
        self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, attention_mask: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:  # fmt: skip
        if kwargs.get("is_causal") is False or getattr(module, "is_causal", True) is False:
            raise UnsupportedModel(f"{type(module).__name__} is not causal attention")
        for name, value in kwargs.items():
            if "bias" in name and isinstance(value, Tensor):
                raise UnsupportedModel(
                    f"{type(module).__name__} adds a bias of its own to each product of a query "
                    f"and a key ({name}): no memory knows it for tokens that are elsewhere"
                )
        k, v = (x[:, :, -q.shape[2] :] for x in (k, v))  # a model's own cache gives older ones too
        seen = Seen(
            q.detach(),
            k.detach(),
            v.detach(),
            *reach(module, kwargs),
            has_bias(module, attention_mask),
        )
        self.calls.append((getattr(module, "layer_idx", None), seen))
        groups = q.shape[1] // v.shape[1]
        return v.repeat_interleave(groups, dim=1).transpose(1, 2).contiguous(), None


def has_bias(module: nn.Module, mask: Any) -> bool:
    """Whether a layer that was given no mask makes one: a bias for each key, the same for all
    queries.

    Raises UnsupportedModel for any other mask of a layer's own.
    """
    if not isinstance(mask, Tensor) or not mask.is_floating_point():
        return False
    if not bool((mask == mask[:, :, -1:]).all()):
        raise UnsupportedModel(f"{type(module).__name__} makes a mask of its own for each query")
    return True


def reach(module: nn.Module, kwargs: dict[str, Any]) -> tuple[int | None, int | None]:
    """Tokens of the window and of the chunk that a layer may see by its design; None: all."""
    config: Any = getattr(module, "config", None)
    kinds = getattr(config, "layer_types", None)
    index = getattr(module, "layer_idx", None)
    kind = kinds[index] if kinds and isinstance(index, int) and index < len(kinds) else None
    if kind == "full_attention":
        return None, None
    if kind == "chunked_attention":
        return None, int(config.attention_chunk_size)
    window = kwargs.get("sliding_window")
    if window is None and kind == "sliding_attention":
        window = getattr(config, "sliding_window", None)
    return (int(window) if window else None), None


def probe(
    model: nn.Module,
    rotary_modules: list[RotaryModule],
    run: Callable[[Watch, Tensor], Tensor],
    *,
    base: float | None = None,
    distance_scale: float = 1.0,
) -> tuple[list[Layer], bool]:
    """Layers of the model in order, with the rotation of each; whether order tells them apart.

    Args:
        run: forwards the probe's tokens at given positions [1, T] with a Watch as attention
            function; returns logits.
        base: replaces the model's rotary base; distance_scale: multiplies every angle.

    Raises:
        UnsupportedModel: naming the layer and what does not fit.
    """
    positions = torch.tensor([PROBE_POSITIONS], device=home(model))
    turned, plain, moved = Watch(), Watch(), Watch()
    with _all_replaced(rotary_modules, _recording):
        run(turned, positions)
    identities = [_identity(module) for module in rotary_modules]
    with _all_replaced(rotary_modules, lambda m: identities[rotary_modules.index(m)]):
        logits = run(plain, positions)
        logits_moved = run(moved, positions + 3)
        # Position 0 may be where a state begins; others must not matter.
        moves = not same(logits, logits_moved) and not same(
            run(Watch(), positions + 1), logits_moved
        )
    if moves:
        raise UnsupportedModel(
            f"{type(model).__name__} uses positions outside its rotary embedding "
            "(learned positions, ALiBi or position-dependent scaling)"
        )
    ropes = list(_ropes(rotary_modules, positions[0]))
    layers, split = [], split_of(model)
    seen = plain.seen
    for index, rotated in sorted(turned.seen.items()):
        raw = seen[index]
        rope, first = _matching_rope(ropes, raw, rotated, positions[0])
        if rope is None:
            raise UnsupportedModel(
                f"layer {index} of {type(model).__name__} rotates its queries in a way that is "
                "none of half-split, interleaved or partial rotary"
            )
        adjusted = _adjusted(rope, base, distance_scale)
        layers.append(_layer(index, raw, adjusted, first, rotated, split))
    return layers, turned.by_order


def _layer(
    index: int, raw: Seen, rope: Rope, first: int, rotated: Seen, split: Split | None
) -> Layer:
    (_, h, _, d), dv = raw.q.shape, raw.v.shape[-1]
    odd = first or d != dv or raw.biased
    form = HeadForm(first, d, dv, raw.biased) if odd else None
    return Layer(
        index=index, n_heads=h, n_kv_heads=raw.k.shape[1], head_dim=form.head_dim if form else d,
        device=raw.q.device, dtype=raw.q.dtype, rotary=Rotary(rope),
        sliding_window=rotated.sliding_window, chunk=rotated.chunk, form=form, split=split,
    )  # fmt: skip


@contextmanager
def _all_replaced(
    rotary: list[RotaryModule], make: Callable[[RotaryModule], Callable[..., Any]]
) -> Iterator[None]:
    of = {one.module: one for one in rotary}
    with all_replaced(of, lambda module: make(of[module])):
        yield


def _recording(rotary: RotaryModule) -> Callable[..., Any]:
    original = rotary.module.forward

    def forward(x: Tensor, position_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        made = original(x, position_ids, *args, **kwargs)
        if isinstance(made, Tensor) and made.is_complex():
            rotary.tables[(*args, *kwargs.values())] = (made.detach().real, made.detach().imag)
            rotary.complex = True
        elif isinstance(made, tuple) and len(made) == 2:
            # The probe's first position is 0, where the sine is.
            rotary.sine_first = not bool(made[0][..., 0, :].any())
            cos, sin = reversed(made) if rotary.sine_first else made
            rotary.tables[(*args, *kwargs.values())] = (cos.detach(), sin.detach())
        else:
            raise UnsupportedModel(
                f"{type(rotary.module).__name__} does not return a cosine and a sine table"
            )
        return made

    return forward


def _identity(rotary: RotaryModule) -> Callable[..., Any]:
    """A forward that returns cos 1 and sin 0 in the shapes that the module was seen to return."""

    def forward(x: Tensor, position_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        cos, _ = rotary.tables[(*args, *kwargs.values())]
        shape = (*position_ids.shape[1 - cos.ndim :], cos.shape[-1])  # several axes become one
        one = torch.ones(1, dtype=cos.dtype, device=x.device)
        if rotary.complex:
            return torch.complex(one, torch.zeros_like(one)).expand(shape)
        tables = one.expand(shape), torch.zeros_like(one).expand(shape)
        return tables[::-1] if rotary.sine_first else tables

    return forward


identity_forward = _identity


def _ropes(modules: list[RotaryModule], positions: Tensor) -> Iterator[Rope]:
    """Candidate rotations: every table seen, in every layout it may stand for."""
    yield Rope(torch.zeros(0, dtype=torch.float64, device=positions.device))
    for rotary in modules:
        for cos, sin in rotary.tables.values():
            width = cos.shape[-1]
            readings = [
                (slice(0, width // 2), ("half", "interleaved")),
                (slice(0, width, 2), ("interleaved", "half")),
                (slice(0, width), ("half", "interleaved")),
            ]
            for columns, layouts in readings:
                freq, scale = _frequencies(rotary.module, cos[0, :, columns], sin[0, :, columns])
                for layout in layouts:
                    yield Rope(freq, scale, layout)  # type: ignore[arg-type]
                    yield Rope(-freq, scale, layout)  # type: ignore[arg-type]


def _frequencies(module: nn.Module, cos: Tensor, sin: Tensor) -> tuple[Tensor, float]:
    """Radians per token, float64 [R/2], and scale of tables [T, R/2] at PROBE_POSITIONS."""
    cos, sin = cos.double(), sin.double()
    scale = float((cos[0] ** 2 + sin[0] ** 2).sqrt().mean())
    freq = torch.atan2(sin[1], cos[1])  # position 1
    # The module's own frequencies are exact where the tables are rounded.
    for name, buffer in module.named_buffers(recurse=False):
        if "inv_freq" in name and buffer.shape == freq.shape:
            exact = buffer.detach().double().to(freq.device)
            if torch.allclose(exact, freq, rtol=2e-2, atol=1e-3):
                return exact, scale
    return freq, scale


def _matching_rope(
    ropes: list[Rope], raw: Seen, rotated: Seen, positions: Tensor
) -> tuple[Rope | None, int]:
    """The rotation that turns one into the other, and the first of the values that it turns."""
    d, device = raw.q.shape[-1], raw.q.device  # which may not be that of the tables
    for rope in ropes:
        n = 2 * rope.freq.numel()
        if n > d:
            continue
        rope = replace(rope, freq=rope.freq.to(device))
        cos, sin = rope.cos_sin(positions.to(device))
        for first in dict.fromkeys((0, d - n)) if n else (0,):
            pairs = ((x.float().roll(-first, -1), y.float().roll(-first, -1))
                     for x, y in ((raw.q, rotated.q), (raw.k, rotated.k)))  # fmt: skip
            if all(same(rotate(x, cos, sin, rope.layout), y) for x, y in pairs):
                return rope, first
    return None, 0


def same(a: Tensor, b: Tensor) -> bool:
    """Equal within the rounding of the model's dtype (relative RMS)."""
    a, b = a.float(), b.float()
    limit = 2e-2 if a.dtype != b.dtype or _is_low(a, b) else 1e-3
    error = (a - b).pow(2).mean().sqrt()
    return bool(error <= limit * b.pow(2).mean().sqrt().clamp_min(1e-12))


def _is_low(a: Tensor, b: Tensor) -> bool:
    return bool((b == b.bfloat16().float()).all()) or bool((b == b.half().float()).all())


def _adjusted(rope: Rope, base: float | None, distance_scale: float) -> Rope:
    freq = rope.freq
    n = freq.numel()
    if base is not None and n:
        own = base ** (-torch.arange(n, dtype=torch.float64, device=freq.device) / n)
        first, last = float(freq[0]), float(freq[-1])
        plain = abs(first - 1.0) < 1e-6 and n > 1
        # A scaled table (llama3, yarn) belongs to the model: only its plain base is replaceable.
        model_base = last ** (-n / (n - 1)) if plain and last > 0 else None
        if model_base and torch.allclose(
            freq, model_base ** (-torch.arange(n, device=freq.device).double() / n), rtol=1e-4
        ):
            freq = own
    return Rope(freq * distance_scale, rope.scale, rope.layout)
