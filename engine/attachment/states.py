"""What a model's layers carry from token to token beside keys and values, held by a session.

Layers of linear attention, of state space models and of convolutions keep a state of fixed size in
cache layers of transformers' own; some models keep theirs in the cache itself, or in their modules.
It is taken as it is: told apart by its place in those objects, copied for a fork, and written to a
memory file by its name.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import cache_utils
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

# Since transformers 5.20 or so; releases before it know no layer with a state.
RECURRENT: type = getattr(cache_utils, "LinearAttentionCacheLayerMixin", type(None))

KV = ("keys", "values")


class Bare(DynamicLayer):
    """A cache layer in the place of one whose keys and values a memory keeps."""

    @property
    def indexer_position_ids(self) -> None:
        """Positions of all tokens, kept for indexers that are put aside."""

    @indexer_position_ids.setter
    def indexer_position_ids(self, positions: Tensor | None) -> None:
        return


@dataclass
class States:
    """The states of one session: of cache layers by their number, of the cache, of modules."""

    layers: list[Any] = field(default_factory=list)  # transformers' cache layers, one a layer
    recurrent: tuple[int, ...] = ()  # those of them that have a state
    cache: dict[str, Any] = field(default_factory=dict)  # what a cache class of the model's keeps
    modules: dict[str, Tensor | None] = field(default_factory=dict)  # "path.attribute" -> state
    devices: Mapping[str, torch.device] = field(default_factory=dict)  # of tensors, by their names

    def __bool__(self) -> bool:
        return bool(self.recurrent or self.cache or self.modules)

    @property
    def begun(self) -> bool:
        """Whether anything was read into them."""
        return (
            any(any(self.layers[i].has_previous_state.values()) for i in self.recurrent)
            or any(_flat("", self.cache))
            or any(x is not None for x in self.modules.values())
        )

    def fork(self) -> States:
        """A copy that goes its own way."""
        if not self:
            return self
        layers = list(self.layers)
        for i in self.recurrent:
            layers[i] = copy.copy(layers[i])
            layers[i].__dict__ = _copied(layers[i].__dict__)
        cache, modules = _copied(self.cache), _copied(self.modules)
        return States(layers, self.recurrent, cache, modules, self.devices)

    def _holders(self) -> dict[str, dict[Any, Any]]:
        holders: dict[str, dict[Any, Any]] = {str(i): vars(self.layers[i]) for i in self.recurrent}
        if self.cache:
            holders["cache"] = self.cache
        if self.modules:
            holders["modules"] = self.modules
        return holders

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The states by their names, as `restore` takes them."""
        return {k: v for k, v in self._leaves() if isinstance(v, Tensor)}

    @property
    def values(self) -> dict[str, Any]:
        """What else belongs to them, as JSON can say it."""
        plain = (bool, int, float, str, type(None))
        return {k: v for k, v in self._leaves() if isinstance(v, plain)}

    def _leaves(self) -> Iterator[tuple[str, Any]]:
        for name, holder in self._holders().items():
            yield from _flat(f"{name}/", holder)

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Go on from what another's `tensors` and `values` were, each on its layer's device."""
        holders = self._holders()
        placed = {name: x.to(self.devices[name]) for name, x in tensors.items()}
        for name, value in [*values.items(), *placed.items()]:
            first, *path, last = name.split("/")
            holder = holders[first]
            for step in path:
                holder = holder[_key(step)]
            if isinstance(holder, list):
                holder.extend([] for _ in range(int(last) + 1 - len(holder)))  # as MiniMax's
            holder[_key(last)] = value
            if first.isdigit() and isinstance(value, Tensor):
                vars(self.layers[int(first)]).update(device=value.device, dtype=value.dtype)

    @property
    def device_bytes(self) -> int:
        """Bytes of all states."""
        return sum(x.nbytes for x in self.tensors.values())


@dataclass(frozen=True)
class Carriers:
    """Where the layers of a model keep their states, as `find_carriers` saw it."""

    model: Any = None
    own: type[Cache] = Cache  # the class of the model's own cache
    recurrent: tuple[int, ...] = ()
    cache: tuple[str, ...] = ()  # attributes of the cache
    modules: tuple[tuple[str, str], ...] = ()  # path and attribute
    places: Mapping[str, tuple[torch.device, int]] = field(default_factory=dict)  # and bytes

    def __bool__(self) -> bool:
        return bool(self.recurrent or self.cache or self.modules)

    @property
    def nbytes(self) -> int:
        """Bytes of one session's states."""
        return sum(size for _, size in self.places.values())

    def fresh(self) -> States:
        """The states of a session that was given nothing yet."""
        if not self:
            return States()
        cache = self.new_cache()
        extra = {name: getattr(cache, name) for name in self.cache}
        modules = dict.fromkeys(".".join(place) for place in self.modules)
        layers = [x if i in self.recurrent else Bare() for i, x in enumerate(cache.layers)]
        devices = {name: device for name, (device, _) in self.places.items()}
        return States(layers, self.recurrent, extra, modules, devices)

    def new_cache(self) -> Cache:
        """An empty cache of the model's own class."""
        own = self.own
        return DynamicCache(config=self.model.config) if own is DynamicCache else own()

    def swap(self, held: Mapping[str, Any]) -> dict[str, Any]:
        """Put states `held` into their modules; gives those that were there."""
        before = {}
        for path, attribute in self.modules:
            module, name = self.model.get_submodule(path), f"{path}.{attribute}"
            before[name] = getattr(module, attribute)
            setattr(module, attribute, held[name])
        return before


def find_carriers(model: nn.Module, run: Callable[[], Any]) -> Carriers:
    """Where states lie after `run`, a pass of `model` with a cache of its own, which it returns."""
    before = _module_tensors(model)
    cache = run()
    after = _module_tensors(model)
    changed = [place for place, x in after.items() if x is not before.get(place)]
    held = {".".join(place): after[place] for place in changed}
    for path, attribute in changed:
        setattr(model.get_submodule(path), attribute, before[path, attribute])
    plain = vars(DynamicCache())
    recurrent = [i for i, layer in enumerate(cache.layers) if isinstance(layer, RECURRENT)]
    extra = {name: value for name, value in vars(cache).items() if name not in plain}
    for i in recurrent:  # of layers that attend too, a memory keeps the keys and values
        vars(cache.layers[i]).update(dict.fromkeys(KV))
    seen = States(cache.layers, tuple(recurrent), extra, held)
    places = {name: (x.device, x.nbytes) for name, x in seen.tensors.items()}
    return Carriers(model, type(cache), tuple(recurrent), tuple(extra), tuple(changed), places)


def amplify(cache: Cache) -> bool:
    """Make all recurrent states of a cache larger by far; whether there are any."""
    layers = [layer for layer in cache.layers if isinstance(layer, RECURRENT)]
    found = [x for layer in layers for x in layer.recurrent_states.values() if x is not None]  # type: ignore[attr-defined]
    for x in found:
        x.mul_(1e6).add_(1.0)
    return bool(found)


def _module_tensors(model: nn.Module) -> dict[tuple[str, str], Any]:
    """Plain attributes of modules, neither parameters nor buffers, that may hold a state."""
    return {
        (path, name): value
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if value is None or isinstance(value, Tensor)
    }


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    return [_copied(v) for v in value] if isinstance(value, list) else value


def _flat(prefix: str, values: Any) -> Iterator[tuple[str, Any]]:
    pairs = values.items() if isinstance(values, dict) else enumerate(values)
    for key, value in pairs:
        if isinstance(value, (dict, list)):
            yield from _flat(f"{prefix}{key}/", value)
        else:
            yield f"{prefix}{key}", value


def _key(step: str) -> Any:
    return int(step) if step.isdigit() else step
