"""Attachment of the engine to a transformers model; everything is undone when it ends."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    GenerationMixin,
    PreTrainedModel,
)

from infllm.engine.attachment.cache import Memory, SessionCache, cache_name, rename_cache
from infllm.engine.attachment.layer import Call, Layer
from infllm.engine.attachment.probe import (
    PROBE_TOKENS,
    Watch,
    find_rotary_modules,
    identity_forward,
    probe,
)
from infllm.engine.errors import ConfigError, UnsupportedCall, UnsupportedModel

PREFIX = "infllm_"  # of the attention functions that attachments register
_names = (f"{PREFIX}{n}" for n in itertools.count())


class Attachment:
    """A model whose attention layers ask the engine; use as a context manager.

    Raises:
        UnsupportedCall: on creation, the model is attached already.
        UnsupportedModel: on entering, its attention cannot be served; nothing stays changed.
    """

    def __init__(
        self, model: PreTrainedModel, base: float | None = None, distance_scale: float = 1.0
    ) -> None:
        config = getattr(model, "config", None)
        if str(getattr(config, "_attn_implementation", "")).startswith(PREFIX):
            raise UnsupportedCall(
                f"this {type(model).__name__} is attached to another engine",
                "open more sessions of that engine, or close it first",
            )
        self.model = model
        self.layers: list[Layer] = []
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.vocab_size = int(model.get_input_embeddings().weight.shape[0])
        self._base = base
        self._distance_scale = distance_scale
        self._name = next(_names)
        self._cache_name = cache_name(type(model).forward)  # of the argument that takes a session
        self._attention: Callable[..., tuple[Tensor, None]] = self._attend
        self._stack = ExitStack()
        self._memory: Memory | None = None  # of the forward pass under way
        self._call: Call | None = None

    def __enter__(self) -> Attachment:
        refuse_by_config(self.model)
        with ExitStack() as stack:
            self._register(stack)
            rotary = find_rotary_modules(self.model)
            self.layers = probe(
                self.model, rotary, self._probe_run,
                base=self._base, distance_scale=self._distance_scale,
            )  # fmt: skip
            for module in rotary:
                stack.enter_context(module.replaced(identity_forward(module)))
            hook = self.model.register_forward_pre_hook(self._before, with_kwargs=True)
            stack.callback(hook.remove)
            hook = self.model.register_forward_hook(self._after, always_call=True)
            stack.callback(hook.remove)
            if (head := self.model.get_output_embeddings()) is not None:
                hook = head.register_forward_pre_hook(_own_rows)
                stack.callback(hook.remove)
            stack.enter_context(_generate_with_any_cache_name(self.model))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()
        if self._memory is not None:  # a pass was interrupted
            self._after(self.model, (), None)

    def _register(self, stack: ExitStack) -> None:
        """Make the attention function known to transformers and choose it, until `stack` closes."""
        before = self.model.config._attn_implementation
        functions = AttentionInterface._global_mapping
        masks = AttentionMaskInterface._global_mapping
        AttentionInterface.register(self._name, self._answer)
        stack.callback(functions.pop, self._name, None)
        AttentionMaskInterface.register(self._name, _no_mask)
        stack.callback(masks.pop, self._name, None)
        stack.callback(self._set_implementation, before)
        self._set_implementation(self._name)

    def _set_implementation(self, name: str) -> None:
        self.model.set_attn_implementation(name)
        if self.model.config._attn_implementation != name:
            raise UnsupportedModel(
                f"{type(self.model).__name__} does not take attention functions from transformers' "
                "attention interface"
            )

    def _probe_run(self, watch: Watch, positions: Tensor) -> Tensor:
        vocab = self.model.get_input_embeddings().weight.shape[0]
        ids = torch.arange(PROBE_TOKENS, device=positions.device)[None] * 7 % vocab
        self._attention = watch
        try:
            with torch.no_grad():
                out = self.model(input_ids=ids, position_ids=positions, use_cache=False)
        finally:
            self._attention = self._attend
        if not watch.seen:
            raise UnsupportedModel(
                f"the attention of {type(self.model).__name__} does not go through transformers' "
                "attention interface"
            )
        return out.logits

    # ---- a forward pass -------------------------------------------------------------------------

    def forward(
        self, ids: Tensor, positions: Tensor, memory: Memory, added: Tensor | None = None,
        n_logits: int = 1,
    ) -> None:  # fmt: skip
        """One pass of the model over ids int64 [1, T] at positions [1, T], read into `memory`.

        `added`: what is added to the embeddings, [1, T, M]. `n_logits`: of how many tokens, the
        last ones, logits are wanted at least.
        """
        keep = {"logits_to_keep": n_logits} if self.keeps_logits else {}
        cache = {self._cache_name: SessionCache(memory)}
        with torch.no_grad():
            tokens = {"input_ids": ids}
            if added is not None:
                embedded = self.model.get_input_embeddings()(ids)
                tokens = {"inputs_embeds": embedded + added.to(embedded)}
            self.model(**tokens, position_ids=positions, use_cache=True, **cache, **keep)

    def check_ids(self, ids: Sequence[int]) -> None:
        """Raises ConfigError for ids outside of the model's vocabulary."""
        if ids and not (min(ids) >= 0 and max(ids) < self.vocab_size):
            bad = next(i for i in ids if not 0 <= i < self.vocab_size)
            raise ConfigError(
                f"token id {bad} is outside of the model's vocabulary of {self.vocab_size}",
                "encode the text with the tokenizer of this model",
            )

    def _before(
        self, module: nn.Module, args: Any, kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        kwargs = rename_cache(kwargs, self._cache_name)
        cache = kwargs.get(self._cache_name)
        if kwargs.get("use_cache") is False:
            raise UnsupportedCall(
                "use_cache=False would read the whole text again for each token",
                "leave use_cache on: the session's memory is the cache",
            )
        if cache is None:
            raise UnsupportedCall(
                "the attached model was called without a session's memory",
                "pass cache=session.cache",
            )
        if not isinstance(cache, SessionCache):
            raise UnsupportedCall(
                f"the attached model cannot use a {type(cache).__name__}",
                "pass cache=session.cache",
            )
        ids = kwargs.get("input_ids", args[0] if args else None)
        tokens = ids if ids is not None else kwargs.get("inputs_embeds")
        if tokens is None:
            raise UnsupportedCall("a forward pass needs input_ids or inputs_embeds")
        if tokens.shape[1] == 0:
            raise UnsupportedCall(
                "there is no token to go on from: generate() cuts off as many as were read",
                "give the new tokens and an attention mask of ones for all tokens so far and them",
            )
        _refuse_padding(kwargs.get("attention_mask"))
        self._memory = cache.memory
        self._call = cache.memory.begin_pass(int(tokens.shape[0]), int(tokens.shape[1]))
        return args, kwargs

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        memory, self._memory, self._call = self._memory, None, None
        if memory is not None:
            logits = output[0] if isinstance(output, tuple) else getattr(output, "logits", None)
            memory.end_pass(logits)

    def _answer(self, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        """What transformers calls: the probe's watch, then `_attend`."""
        return self._attention(*args, **kwargs)

    def _attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any = None,
        scaling: float | None = None,
        softcap: float | None = None,
        s_aux: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        memory, call = self._memory, self._call
        if memory is None or call is None:
            raise UnsupportedCall("an attention layer was called outside the attached model")
        if attention_mask is not None:
            raise UnsupportedCall("the engine makes its own masks; an explicit one cannot be used")
        if query.requires_grad:
            raise UnsupportedCall(
                "the memory keeps no gradients", "call the model under torch.no_grad()"
            )
        layer: int = module.layer_idx  # type: ignore[assignment]
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return memory.attend(layer, query, key, value, call, scale, softcap, s_aux), None

    # ---- logits ---------------------------------------------------------------------------------

    @contextmanager
    def hidden_states(self) -> Iterator[list[Tensor]]:
        """Collects the decoder's last hidden states [B, T, M] of the passes made inside."""
        kept: list[Tensor] = []

        def keep(module: nn.Module, args: Any, output: Any) -> None:
            kept.append(output.last_hidden_state)

        hook = self._decoder.register_forward_hook(keep)
        try:
            yield kept
        finally:
            hook.remove()

    def head(self, hidden: Tensor) -> Tensor:
        """Logits float32 [B, T, vocab] of hidden states, with all that the model does to them.

        The model's own forward runs with its decoder standing still: output scaling and
        soft-capping are inherited, whatever the model.
        """
        decoder = self._decoder
        own = decoder.__dict__.get("forward")
        decoder.forward = lambda *args, **kwargs: _DecoderOutput(hidden)
        forward = type(self.model).forward  # without the hooks of a real pass
        ids = torch.zeros(hidden.shape[:2], dtype=torch.long, device=hidden.device)
        try:
            return forward(self.model, input_ids=ids, return_dict=True).logits.float()
        finally:
            if own is None:
                del decoder.forward
            else:
                decoder.forward = own

    @property
    def _decoder(self) -> Any:
        decoder = self.model.get_decoder() if hasattr(self.model, "get_decoder") else None
        return self.model.base_model if decoder is None or decoder is self.model else decoder

    @property
    def keeps_logits(self) -> bool:
        """Whether the model can be told how many logits to compute."""
        return "logits_to_keep" in inspect.signature(type(self.model).forward).parameters


@contextmanager
def _generate_with_any_cache_name(model: PreTrainedModel) -> Iterator[None]:
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


def _own_rows(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The last rows of a pass, [B, n, M], as a tensor of their own. In the strides of all rows, a
    product on a CPU copies the whole matrix first: a second for 150,000 tokens of vocabulary."""
    return (args[0].clone(memory_format=torch.contiguous_format), *args[1:])


class _DecoderOutput:
    """What a decoder returns: hidden states, and nothing else."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, index: int) -> Tensor:
        return self.last_hidden_state

    def __getattr__(self, name: str) -> None:
        return None


def refuse_by_config(model: nn.Module) -> None:
    """Name what is known not to fit before anything is tried."""
    config: Any = getattr(model, "config", None)
    if config is None or not hasattr(model, "set_attn_implementation"):
        raise UnsupportedModel(f"{type(model).__name__} is no transformers model")
    name = type(model).__name__
    text = config.get_text_config()
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedModel(f"{name} is an encoder-decoder; only decoders can be attached")
    if getattr(text, "kv_lora_rank", None):
        raise UnsupportedModel(
            f"{name} has multi-head latent attention (MLA): its keys are compressed and only "
            "partly rotated, so that they cannot be moved to another position"
        )
    if getattr(text, "alibi", False) or getattr(text, "model_type", "") in ("bloom", "mpt"):
        raise UnsupportedModel(
            f"{name} has ALiBi: distances are a bias on the logits, not a rotation"
        )
    if "chunked_attention" in (getattr(text, "layer_types", None) or ()):
        raise UnsupportedModel(
            f"{name} attends within fixed chunks (chunked attention), which no memory can extend"
        )
    embeddings = [n for n, m in model.named_modules() if _is_position_embedding(n, m)]
    if embeddings:
        raise UnsupportedModel(
            f"{name} has learned positions ({embeddings[0]}): tokens cannot be moved closer"
        )


def _is_position_embedding(name: str, module: nn.Module) -> bool:
    last = name.rpartition(".")[2]
    known = last in ("wpe", "embed_positions", "position_embeddings", "position_embedding")
    return known and isinstance(module, nn.Embedding)


def _refuse_padding(mask: Any) -> None:
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        raise UnsupportedCall("only a two-dimensional attention mask can be used")
    if not bool(mask.bool().all()):
        raise UnsupportedCall(
            "padding cannot be used: the memory has no holes", "give one sequence, without padding"
        )


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """Masks are the policies' affair."""
    return None
