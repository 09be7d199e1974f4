"""Recurrent modules that go on from a state one token at a time alone, made to take more.

Some kernels of state space models begin anew at each call of more than one token: they have no
argument for the state before it. Such a module is called token by token where there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from infllm.engine.attachment.replacing import all_replaced
from infllm.engine.attachment.states import RECURRENT, Carriers

STEPPED = "layers with a state read token by token: they take no state before several"


def stepped(forward: Callable[..., Any], goes_on: Callable[[], bool]) -> Callable[..., Any]:
    """`forward` of a module over [B, T, M], token by token where `goes_on` says so."""

    def step_by_step(*args: Any, **kwargs: Any) -> Any:
        hidden = next(x for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
        n = hidden.shape[1]
        if n == 1 or not goes_on():
            return forward(*args, **kwargs)

        def token(x: Any, t: int) -> Any:
            along = isinstance(x, Tensor) and x.ndim > 1 and x.shape[1] == n
            return x[:, t : t + 1] if along else x

        outputs = [
            forward(*(token(x, t) for x in args), **{k: token(x, t) for k, x in kwargs.items()})
            for t in range(n)
        ]
        if isinstance(outputs[0], Tensor):
            return torch.cat(outputs, dim=1)
        first, *rest = zip(*outputs, strict=True)
        return (torch.cat(first, dim=1), *(values[-1] for values in rest))

    return step_by_step


def stepping(
    modules: Iterable[nn.Module], goes_on: Callable[[], bool]
) -> AbstractContextManager[None]:
    """Let `modules` go token by token where `goes_on` says so."""
    return all_replaced(modules, lambda module: stepped(module.forward, goes_on))


def modules_with_state(
    model: nn.Module, carriers: Carriers, run: Callable[[Any], Any]
) -> list[Any]:
    """Modules that read and write states in `run`, a pass with the cache that it is given."""
    paths = {path for path, _ in carriers.modules}
    owners = {p for p in paths if not any(p.startswith(f"{other}.") for other in paths)}
    found = [model.get_submodule(path) for path in owners]
    if not carriers.recurrent:
        return found
    under_way: list[nn.Module] = []
    cache = carriers.new_cache()

    def told(function: Callable[..., Any]) -> Callable[..., Any]:
        def telling(*args: Any, **kwargs: Any) -> Any:
            if not any(under_way[-1] is module for module in found):
                found.append(under_way[-1])
            return function(*args, **kwargs)

        return telling

    for layer in cache.layers:
        if isinstance(layer, RECURRENT):
            layer.update_recurrent_state = told(layer.update_recurrent_state)  # type: ignore[attr-defined]
            layer.update_conv_state = told(layer.update_conv_state)  # type: ignore[attr-defined]
    with ExitStack() as stack:
        for module in model.modules():
            enter = module.register_forward_pre_hook(lambda m, args: under_way.append(m))
            leave = module.register_forward_hook(lambda m, args, out: under_way.pop() and None)
            stack.callback(enter.remove)
            stack.callback(leave.remove)
        run(cache)
    return found
