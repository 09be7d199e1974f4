"""Where the parts of a model are: on one device, on several, or off them until they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

META = torch.device("meta")  # of weights that accelerate keeps off all devices between passes


def home(model: Any) -> torch.device:
    """The device that tokens are given on: that of the embeddings, or of what is held anywhere."""
    embeddings = model.get_input_embeddings()
    found = (p.device for part in (embeddings, model) for p in part.parameters())
    return next((device for device in found if device != META), torch.device("cpu"))


def is_spread(model: nn.Module) -> bool:
    """Whether the model is on several devices, or in part on none between passes."""
    return len({p.device for p in model.parameters()}) > 1


def weights_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The model's `state_dict` by name; weights that are off all devices are brought one by one."""
    held = {k: v for k, v in model.state_dict().items() if isinstance(v, Tensor)}
    for name, x in sorted(held.items()):
        if x.device != META:
            yield name, x.detach()
            continue
        path, _, last = name.rpartition(".")
        with _brought(model.get_submodule(path)) as module:
            yield name, getattr(module, last).detach()


@contextmanager
def _brought(module: Any) -> Iterator[nn.Module]:
    """A module with its weights, as accelerate's hook has them in a pass."""
    module._hf_hook.pre_forward(module)
    try:
        yield module
    finally:
        module._hf_hook.post_forward(module, torch.empty(0))
