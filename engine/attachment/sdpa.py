"""Attention of models that call torch's own function in place of transformers' interface."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

CALLER = SimpleNamespace(
    is_causal=True
)  # in the place of a module: the order of calls tells layers


class SdpaCalls(TorchFunctionMode):
    """Lets `answer`, an attention function as transformers calls them, answer
    `scaled_dot_product_attention`."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        super().__init__()
        self._answer = answer

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        out, _ = self._answer(CALLER, *args[:3], None, scaling=kwargs.get("scale"))
        return out.transpose(1, 2)


def answer_sdpa(model: nn.Module, answer: Callable[..., Any], stack: ExitStack) -> None:
    """Until `stack` closes, let `answer` answer `scaled_dot_product_attention` in `model`."""
    under_way: list[SdpaCalls] = []

    def begin(*_: Any) -> None:
        under_way.append(SdpaCalls(answer))
        under_way[-1].__enter__()

    def end(*_: Any) -> None:
        if under_way:
            under_way.pop().__exit__(None, None, None)

    for hook in (
        model.register_forward_pre_hook(begin),
        model.register_forward_hook(end, always_call=True),
    ):
        stack.callback(hook.remove)
