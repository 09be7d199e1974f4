"""Recurrent modules that go on from a state one token at a time alone, made to take more.

Some kernels of state space models begin anew at each call of more than one token: they have no
argument for the state before it. Such a module is called token by token where there is one; its
first and last products, which are most of its work, are made once for all tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from infllm.engine.attachment.replacing import all_replaced, replaced
from infllm.engine.attachment.states import RECURRENT, Carriers

STEPPED = "layers with a state read token by token: they take no state before several"


def stepped(module: nn.Module, goes_on: Callable[[], bool]) -> Callable[..., Any]:
    """The forward of a module over [B, T, M], token by token where `goes_on` says so."""
    forward: Callable[..., Any] = module.forward

    def step_by_step(*args: Any, **kwargs: Any) -> Any:
        hidden = next(x for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
        n = hidden.shape[1]
        if n == 1 or not goes_on():
            return forward(*args, **kwargs)

        def step(t: int) -> Any:
            def token(x: Any) -> Any:
                along = isinstance(x, Tensor) and x.ndim > 1 and x.shape[1] == n
                return x[:, t : t + 1] if along else x

            return forward(*map(token, args), **{k: token(x) for k, x in kwargs.items()})

        with _linear_calls(module) as calls:
            outputs = [step(0)]
        first = [linear for linear, x, _ in calls if _same(x, hidden[:, :1])]
        last = [linear for linear, _, y in calls if _same(y, _only(outputs[0]))]
        with ExitStack() as stack:
            for linear in first:
                stack.enter_context(_ahead(linear, hidden[:, 1:]))
            behind = [stack.enter_context(_behind(linear)) for linear in last[-1:]]
            outputs += [step(t) for t in range(1, n)]
        rows = [_only(out) for out in outputs]
        for linear, inputs in zip(last[-1:], behind, strict=True):
            rows[1:] = [linear(torch.cat(inputs, dim=1))]
        whole = torch.cat(rows, dim=1)
        return whole if isinstance(outputs[-1], Tensor) else (whole, *outputs[-1][1:])

    return step_by_step


def _only(output: Any) -> Tensor:
    """What a module gives for hidden states."""
    found: Tensor = output if isinstance(output, Tensor) else output[0]
    return found


def _same(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape


@contextmanager
def _linear_calls(module: nn.Module) -> Iterator[list[tuple[nn.Linear, Tensor, Tensor]]]:
    """Collects what the linear layers of a module are given and give."""
    calls: list[tuple[nn.Linear, Tensor, Tensor]] = []
    with ExitStack() as stack:
        for linear in module.modules():
            if isinstance(linear, nn.Linear):
                hook = linear.register_forward_hook(lambda m, x, y: calls.append((m, x[0], y)))
                stack.callback(hook.remove)
        yield calls


def _ahead(linear: nn.Linear, hidden: Tensor) -> AbstractContextManager[None]:
    """Let a layer of the module's own input answer from one product for all tokens to come."""
    rows = iter(linear(hidden).split(1, dim=1))
    return replaced(linear, lambda x: next(rows))


@contextmanager
def _behind(linear: nn.Linear) -> Iterator[list[Tensor]]:
    """Collects what the layer that gives the module's output is given, for one product of all."""
    inputs: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        inputs.append(x)
        return x.new_empty(*x.shape[:-1], linear.out_features)

    with replaced(linear, keep):
        yield inputs


def stepping(
    modules: Iterable[nn.Module], goes_on: Callable[[], bool]
) -> AbstractContextManager[None]:
    """Let `modules` go token by token where `goes_on` says so."""
    return all_replaced(modules, lambda module: stepped(module, goes_on))


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
