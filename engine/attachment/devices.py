"""Where the parts of a model are: on one device, on several, or off them until they are needed;
and its heads, where tensor parallelism splits them over processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from infllm.engine.errors import UnsupportedCall

META = torch.device("meta")  # of weights that accelerate keeps off all devices between passes


@dataclass(frozen=True, eq=False)
class Split:
    """Processes that have some heads each of every layer, and choose units together."""

    group: Any  # of torch.distributed

    def sum(self, x: Tensor) -> Tensor:
        """The sum of what all processes have; the same bits in each."""
        x = x.contiguous()
        distributed.all_reduce(x, group=self.group)
        return x

    def logsumexp(self, x: Tensor) -> Tensor:
        """The logarithm of the sum of what all processes have the logarithm of."""
        parts = [torch.empty_like(x) for _ in range(distributed.get_world_size(self.group))]
        distributed.all_gather(parts, x.contiguous(), group=self.group)
        return torch.logsumexp(torch.stack(parts), dim=0)


def split_of(model: nn.Module) -> Split | None:
    """How the model's heads are split over processes, None where they are not."""
    meshes = (getattr(p, "device_mesh", None) for p in model.parameters())
    mesh = next((m for m in meshes if m is not None), None)
    if mesh is None:
        return None
    return Split((mesh if mesh.ndim == 1 else mesh["tp"]).get_group())


def home(model: Any) -> torch.device:
    """The device that tokens are given on: that of the embeddings, or of what is held anywhere."""
    embeddings = model.get_input_embeddings()
    found = (p.device for part in (embeddings, model) for p in part.parameters())
    return next((device for device in found if device != META), torch.device("cpu"))


def is_spread(model: nn.Module) -> bool:
    """Whether the model is on several devices, or in part on none between passes."""
    return len({p.device for p in model.parameters()}) > 1


def weights_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The model's `state_dict` by name; weights that are off all devices are brought one by one.

    Raises UnsupportedCall where no process has all of them.
    """
    if split_of(model) is not None:
        raise UnsupportedCall(
            "a model that is split over processes has no memory files: each knows its heads alone",
            "read with a model on one device, or on several by a device map",
        )
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
