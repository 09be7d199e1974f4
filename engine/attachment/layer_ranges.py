"""Some of a model's layers, run on hidden states that are given to the first of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from infllm.engine.attachment.attachment import Attachment
from infllm.engine.attachment.cache import Memory
from infllm.engine.attachment.layer import Call
from infllm.engine.attachment.one_pass import OnePass
from infllm.engine.attachment.replacing import replaced
from infllm.engine.errors import EngineError, UnsupportedModel

TRIED = 12  # tokens that layers are run on one by one, to see that this is the same
HINT = "take another reader, or a memory policy"


class LayerRanges:
    """A model whose layers run a few at a time, by its own forward: the others stand still.

    Raises UnsupportedModel on creation, by name and with the reason, where they cannot.
    """

    def __init__(self, attachment: Attachment) -> None:
        refuse_ranges(attachment)
        self._attachment = attachment
        self._modules = _layer_modules(attachment)
        self._parts = [0] * len(self._modules)  # of what a layer returns; 0: a tensor
        self._try()

    def run(self, start: int, stop: int, x: Tensor, positions: Tensor, memory: Memory) -> Tensor:
        """Layers start to stop - 1 on N tokens at `positions` int64 [N], read into `memory`.

        `x`: token ids int64 [1, N] where the first layer is one of them, else hidden states [1, N,
        M]. Gives hidden states; the pass ends in the model's head, whose logits count where the
        last layer is one of them.
        """
        kept: list[Any] = []
        ids = x
        with ExitStack() as stack:
            for i, module in enumerate(self._modules):
                if not start <= i < stop:
                    stack.enter_context(replaced(module, self._still(i)))
            if x.is_floating_point():
                ids = torch.zeros(x.shape[:2], dtype=torch.long, device=self._attachment.device)
                stack.enter_context(_given(self._modules[start], x))
            hook = self._modules[stop - 1].register_forward_hook(lambda *call: kept.append(call[2]))
            stack.callback(hook.remove)
            self._attachment.forward(ids, positions[None], memory)
        hidden: Tensor = kept[0][0] if isinstance(kept[0], tuple) else kept[0]
        return hidden

    def _still(self, layer: int) -> Callable[..., Any]:
        """A layer that gives on what it is given."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            hidden = args[0] if args else kwargs["hidden_states"]
            return (hidden, *[None] * (self._parts[layer] - 1)) if self._parts[layer] else hidden

        return forward

    def _try(self) -> None:
        """Raises UnsupportedModel where one layer after another gives other logits than all."""
        attachment = self._attachment
        name, device = type(attachment.model).__name__, attachment.device
        positions = torch.arange(TRIED, device=device)
        ids = positions[None] * 7 % attachment.vocab_size
        whole, apart = _Trial(attachment), _Trial(attachment)
        with ExitStack() as stack:
            for i, module in enumerate(self._modules):
                stack.callback(module.register_forward_hook(self._counting(i)).remove)
            attachment.forward(ids, positions[None], whole)
        try:
            x = ids
            for i in range(len(self._modules)):
                x = self.run(i, i + 1, x, positions, apart)
        except (EngineError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            raise UnsupportedModel(f"the layers of {name} fail one by one: {told}", HINT) from error
        near = 1e-4 if attachment.dtype == torch.float32 else 2e-2
        off = (apart.logits - whole.logits).abs().max() / whole.logits.abs().max()
        if not bool(off <= near):
            raise UnsupportedModel(
                f"the layers of {name} hand on more than hidden states: one by one they give "
                "other logits",
                HINT,
            )

    def _counting(self, layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self._parts[layer] = len(output) if isinstance(output, tuple) else 0

        return hook


def refuse_ranges(attachment: Attachment) -> None:
    """Raises UnsupportedModel, by name, where it is known that layers cannot run a few at a time,
    or that texts read apart cannot be attended together."""
    text = attachment.model.config.get_text_config(decoder=True)
    n = int(getattr(text, "num_hidden_layers", 0))
    windows = [reach for x in attachment.layers if (reach := x.sliding_window or x.chunk)]
    if attachment.state_bytes:
        why = "layers that keep a state, and states of two texts cannot be merged"
    elif getattr(text, "num_kv_shared_layers", None):
        why = "layers that attend the keys of others"
    elif windows:
        why = f"layers that see {min(windows):,} tokens by design, and no more of a merged text"
    elif [layer.index for layer in attachment.layers] != list(range(n)) or attachment.by_order:
        why = "layers that cannot be told apart by their attention"
    else:
        return
    name = type(attachment.model).__name__
    raise UnsupportedModel(f"{name} cannot run some of its layers alone: it has {why}", HINT)


def _layer_modules(attachment: Attachment) -> list[nn.Module]:
    for module in attachment.model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == len(attachment.layers):
            return list(module)
    name = type(attachment.model).__name__
    raise UnsupportedModel(f"{name} cannot run some of its layers alone: they are in no list", HINT)


@contextmanager
def _given(module: nn.Module, hidden: Tensor) -> Iterator[None]:
    """Let a layer take `hidden` in place of what it is called with."""

    def give(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if args:
            return (hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden}

    hook = module.register_forward_pre_hook(give, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


class _Trial(OnePass):
    """A pass in which every token attends itself alone."""

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, call: Call, scale: float,
        softcap: float | None, sink: Tensor | None,
    ) -> Tensor:  # fmt: skip
        groups = q.shape[1] // v.shape[1]
        return v.repeat_interleave(groups, dim=1).transpose(1, 2).contiguous()
