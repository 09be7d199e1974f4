"""A session's memory in the form that transformers' models and `generate` expect."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache

from infllm.engine.errors import UnsupportedCall

if TYPE_CHECKING:
    from infllm.engine.attachment.layer import Call
    from infllm.engine.attachment.states import States


class Memory(Protocol):
    """What a forward pass is read into: a session, or a step of one that is recorded."""

    @property
    def length(self) -> int:
        """Absolute position of the next token to be forwarded."""

    @property
    def n_layers(self) -> int:
        """Attention layers of the model."""

    @property
    def states(self) -> States:
        """What layers carry beside keys and values; passes write to it."""

    @property
    def under_way(self) -> bool:
        """Whether a forward pass of the attached model is."""

    def begin_pass(self, batch: int, tokens: int) -> Call:
        """A forward pass of `tokens` tokens starts."""

    def end_pass(self, logits: Tensor | None) -> None:
        """The forward pass is over, with its logits [B, T, vocab]; None after an error."""

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, call: Call, scale: float,
        softcap: float | None, sink: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """Attention of one layer: q [B, H, T, D], k and v [B, Hkv, T, D], not rotated, to o
        [B, T, H, Dv]."""


def session_cache(memory: Memory, own: type[Cache] = Cache) -> SessionCache:
    """`memory` as a cache that is also one of the model's `own` class, where it insists on that."""
    kind: Any = own
    return _cache_class(kind)(memory)


@functools.cache
def _cache_class(own: Any) -> type[SessionCache]:
    if issubclass(SessionCache, own) or own is DynamicCache:
        return SessionCache
    return type(f"Session{own.__name__}", (SessionCache, own), {})


# What transformers calls the cache that a model is given: the first since 5.24, the others before.
CACHE_NAMES = ("cache", "past_key_values", "cache_params")


def cache_name(function: Callable[..., Any]) -> str:
    """The name under which `function`, a forward or what stands for it, takes a cache."""
    parameters = inspect.signature(function).parameters
    return next((name for name in CACHE_NAMES if name in parameters), CACHE_NAMES[0])


def rename_cache(arguments: dict[str, Any], name: str) -> dict[str, Any]:
    """`arguments` with a cache under `name`, whatever it was called.

    Raises UnsupportedCall where caches are given under two names.
    """
    given = [other for other in CACHE_NAMES if arguments.get(other) is not None]
    if len(given) > 1:
        raise UnsupportedCall(
            f"a cache was given as {given[0]} and as {given[1]}", f"give it once, as {name}"
        )
    renamed = {key: value for key, value in arguments.items() if key not in CACHE_NAMES}
    if given:
        renamed[name] = arguments[given[0]]
    return renamed


@contextmanager
def generate_with_any_cache_name(model: PreTrainedModel) -> Iterator[None]:
    """transformers' generate takes a cache under one name, and which one depends on its release."""
    own = model.__dict__.get("generate")
    generate = getattr(model, "generate", None)
    if generate is None:
        yield
        return
    name = cache_name(GenerationMixin.prepare_inputs_for_generation)

    @functools.wraps(generate)
    def renaming(*args: Any, **kwargs: Any) -> Any:
        return generate(*args, **rename_cache(kwargs, name))

    model.generate = renaming
    try:
        yield
    finally:
        if own is None:
            del model.generate
        else:
            model.generate = own


class SessionCache(Cache):
    """A memory as transformers' models take it: it hands keys and values through, and holds none.

    What layers carry beside them stays in the cache layers of the session's states.

    For `model.generate(..., cache=session.cache)`: each forward pass is a segment of its own, so
    give the question (and an attention mask as long as all tokens so far, or none).
    """

    def __init__(self, memory: Memory) -> None:
        Cache.__init__(self, layers=memory.states.layers)
        self.__dict__.update(memory.states.cache)
        self.memory = memory  # which keeps no such view: it goes when it is let go

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.memory.under_way:
            raise UnsupportedCall(
                "the model that this memory belongs to is not attached (any more)",
                "use the memory before its engine is closed",
            )
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.memory.length

    def get_max_length(self, layer_idx: int | None = None) -> int:
        return -1

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return query_length, 0  # of masks that nobody looks at

    # One entry a layer: where no layer has a state, there is none for transformers to ask.

    @property
    def is_linear(self) -> list[bool]:
        return super().is_linear or self._none

    @property
    def is_sliding(self) -> list[bool]:
        return self._none

    @property
    def is_dummy(self) -> list[bool]:
        return self._none

    @property
    def _none(self) -> list[bool]:
        return [False] * (len(self.layers) or self.memory.n_layers)

    @property
    def is_compileable(self) -> bool:
        return False

    @property
    def is_croppable(self) -> bool:
        return False

    @property
    def is_initialized(self) -> bool:
        return self.memory.length > 0

    def _refuse(self, what: str) -> None:
        raise UnsupportedCall(
            f"{what} would need to take tokens out of the memory", "use greedy search or sampling"
        )

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._refuse("beam search")

    def activate_past_recording(self) -> None:
        # Assisted decoding asks for this before its first pass: nothing has been read yet.
        self._refuse("assisted decoding")

    def crop(self, *args: Any, **kwargs: Any) -> None:
        self._refuse("assisted decoding")

    def batch_repeat_interleave(self, repeats: int) -> None:
        if repeats != 1:
            self._refuse("several sequences from one memory")

    def batch_select_indices(self, indices: Tensor) -> None:
        self._refuse("contrastive search")
