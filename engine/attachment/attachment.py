"""Attachment of the engine to a transformers model; everything is undone when it ends."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    DynamicCache,
    PreTrainedModel,
)

from infllm.engine.attachment.cache import (
    CACHE_NAMES,
    Memory,
    SessionCache,
    cache_name,
    generate_with_any_cache_name,
    rename_cache,
    session_cache,
)
from infllm.engine.attachment.devices import home
from infllm.engine.attachment.head import hidden_states, logits
from infllm.engine.attachment.heads import HeadForm
from infllm.engine.attachment.indexers import LIMIT, find_indexers, open_mask, put_aside
from infllm.engine.attachment.latent_layers import expanded, handing_over, with_latents
from infllm.engine.attachment.layer import Call, Layer
from infllm.engine.attachment.probe import (
    PROBE_TOKENS,
    Watch,
    find_rotary_modules,
    identity_forward,
    probe,
)
from infllm.engine.attachment.refusals import (
    attention_elsewhere,
    faults_named,
    refuse_by_config,
    refuse_layers_without_state,
    refuse_learned_positions,
    refuse_padding,
    text_model,
)
from infllm.engine.attachment.replacing import replaced
from infllm.engine.attachment.sdpa import answer_sdpa
from infllm.engine.attachment.states import Carriers, States, amplify, find_carriers
from infllm.engine.attachment.stepwise import STEPPED, modules_with_state, stepping
from infllm.engine.errors import ConfigError, UnsupportedCall

BIASED = "biases of keys are served, and the model's own mask is not: it would leave tokens out"
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
        config = getattr(text_model(model), "config", None)
        if str(getattr(config, "_attn_implementation", "")).startswith(PREFIX):
            raise UnsupportedCall(
                f"this {type(model).__name__} is attached to another engine",
                "open more sessions of that engine, or close it first",
            )
        self.model = model
        self._text = text_model(model)
        self.layers: list[Layer] = []
        self.limits: list[str] = []
        self.device, self.dtype = home(model), next(model.parameters()).dtype
        self.vocab_size = int(model.get_input_embeddings().weight.shape[0])
        self._base = base
        self._distance_scale = distance_scale
        self._name = next(_names)
        self._cache_name = cache_name(type(model).forward)  # of the argument that takes a session
        self._attention: Callable[..., tuple[Tensor, None]] = self._attend
        self._carriers = Carriers()
        self._indexers = find_indexers(model)
        self._own_attention = ""  # the name of what it computes attention with elsewhere
        self._forms: dict[int, HeadForm] = {}  # of the layers that need one
        self.by_order = False  # layers are told apart by the order of their calls in a pass
        self._calls = 0  # of the pass under way
        self._continues = False  # the pass under way goes on from states
        self._displaced: dict[str, Any] = {}  # states of modules, while a session's are in place
        self._stack = ExitStack()
        self._memory: Memory | None = None  # of the forward pass under way
        self._call: Call | None = None

    def __enter__(self) -> Attachment:
        refuse_by_config(self.model)
        with faults_named(self.model), ExitStack() as stack:
            refuse_learned_positions(self.model)
            self._register(stack)
            if self._indexers:
                stack.enter_context(put_aside(self._indexers))
                self.limits.append(LIMIT)
            rotary = find_rotary_modules(self.model)
            self.layers, self.by_order = probe(
                self.model, rotary, self._probe_run,
                base=self._base, distance_scale=self._distance_scale,
            )  # fmt: skip
            self._forms = {x.index: x.form for x in self.layers if x.form is not None}
            if not self.by_order:
                self.layers = with_latents(self.model, self.layers)
            if (latent := expanded(self.model)) and not any(x.latents for x in self.layers):
                self.limits.append(str(latent))
            if any(form.biased for form in self._forms.values()):
                self.limits.append(BIASED)
            self._carriers = self._find_carriers()
            if self._carriers and not self._goes_on():
                modules = modules_with_state(self.model, self._carriers, self._run_with)
                stack.enter_context(stepping(modules, lambda: self._continues))
                self.limits.append(STEPPED)
            for module in rotary:
                stack.enter_context(replaced(module.module, identity_forward(module)))
            stack.enter_context(handing_over(self.model, self.layers, self._take_latents))
            hook = self.model.register_forward_pre_hook(self._before, with_kwargs=True)
            stack.callback(hook.remove)
            hook = self.model.register_forward_hook(self._after, always_call=True)
            stack.callback(hook.remove)
            if (head := self.model.get_output_embeddings()) is not None:
                hook = head.register_forward_pre_hook(_own_rows)
                stack.callback(hook.remove)
            stack.enter_context(generate_with_any_cache_name(self.model))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()
        if self._memory is not None:  # a pass was interrupted
            self._after(self.model, (), None)

    def _register(self, stack: ExitStack) -> None:
        """Make the attention function known to transformers and choose it, until `stack` closes."""
        self._own_attention = before = self._text.config._attn_implementation
        functions = AttentionInterface._global_mapping
        masks = AttentionMaskInterface._global_mapping
        AttentionInterface.register(self._name, self._answer)
        stack.callback(functions.pop, self._name, None)
        AttentionMaskInterface.register(self._name, self._mask)
        stack.callback(masks.pop, self._name, None)
        stack.callback(self._set_implementation, before)
        self._set_implementation(self._name)
        if self._text.config._attn_implementation != self._name:
            # Its modules do not ask transformers' interface, but may ask torch's function.
            self._text.config._attn_implementation_internal = "sdpa"
            answer_sdpa(self.model, self._answer, stack)

    def _set_implementation(self, name: str) -> None:
        self._text.set_attn_implementation(name)
        if name == self._own_attention:  # where it was changed behind the model's back
            self._text.config._attn_implementation_internal = name

    def _watched(self, watch: Watch, tokens: slice = slice(None), **kwargs: Any) -> Any:
        """What the model gives for the probe's tokens."""
        ids = torch.arange(PROBE_TOKENS, device=self.device)[None] * 7 % self.vocab_size
        self._attention = watch
        try:
            with torch.no_grad():
                return self.model(input_ids=ids[:, tokens], **kwargs)
        finally:
            self._attention = self._attend

    def _find_carriers(self) -> Carriers:
        """Where layers keep a state; looked for where some have no attention."""
        text = self.model.config.get_text_config(decoder=True)
        n = int(getattr(text, "num_hidden_layers", 0))
        seen = {layer.index for layer in self.layers}
        missing = [] if self.by_order else [i for i in range(n) if i not in seen]
        kinds = getattr(text, "layer_types", None) or ()
        plain = not missing and not self.by_order
        if plain and not any("hybrid" in kind for kind in kinds):
            return Carriers()

        def run() -> Any:
            out = self._watched(Watch(), use_cache=True)
            own = (out[name] for name in CACHE_NAMES if out.get(name) is not None)
            return next(own, None) or DynamicCache(config=self.model.config)

        found = find_carriers(self.model, run)
        refuse_layers_without_state(self.model, missing, found)
        return found

    def _run_with(self, cache: Any, tokens: slice = slice(None)) -> Tensor:
        """Logits of the probe's tokens with a cache of the model's own."""
        positions = torch.arange(PROBE_TOKENS, device=self.device)[None, tokens]
        kwargs = {"position_ids": positions, "use_cache": cache is not None}
        out = self._watched(Watch(), tokens, **{self._cache_name: cache}, **kwargs)
        return out.logits

    def _goes_on(self) -> bool:
        """Whether a pass of several tokens goes on from the states that are there."""
        cut, cache = PROBE_TOKENS // 2, self._carriers.new_cache()
        none = self._carriers.fresh().modules
        before = self._carriers.swap(none)
        try:
            self._run_with(cache, slice(0, cut))
            rest = self._run_with(cache, slice(cut, None))
            loud = self._carriers.new_cache()
            self._run_with(loud, slice(0, cut))
            if amplify(loud) and torch.equal(self._run_with(loud, slice(cut, None)), rest):
                return False  # however large the state is
            self._carriers.swap(none)
            whole = self._run_with(None)
        finally:
            self._carriers.swap(before)
        whole = whole[:, cut:]
        error = (rest - whole).abs().max() / whole.abs().max()
        return bool(error <= (1e-5 if whole.dtype == torch.float32 else 2e-2))

    def _probe_run(self, watch: Watch, positions: Tensor) -> Tensor:
        out = self._watched(watch, position_ids=positions, use_cache=False)
        if not watch.calls:
            raise attention_elsewhere(self.model)
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
        cache = {self._cache_name: self.cache(memory)}
        with torch.no_grad():
            tokens = {"input_ids": ids}
            if added is not None:
                embedded = self.model.get_input_embeddings()(ids)
                tokens = {"inputs_embeds": embedded + added.to(embedded)}
            self.model(**tokens, position_ids=positions, use_cache=True, **cache, **keep)

    def cache(self, memory: Memory) -> SessionCache:
        """`memory` as the model takes it."""
        return session_cache(memory, self._carriers.own)

    def fresh_states(self) -> States:
        """What layers carry beside keys and values, of a session that was given nothing yet."""
        return self._carriers.fresh()

    @property
    def state_bytes(self) -> int:
        """What layers carry beside keys and values, of one session; 0 where they carry nothing."""
        return self._carriers.nbytes

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
        refuse_padding(kwargs.get("attention_mask"))
        self._memory, self._calls = cache.memory, 0
        self._call = cache.memory.begin_pass(int(tokens.shape[0]), int(tokens.shape[1]))
        if self._carriers:
            self._continues = cache.memory.states.begun
            self._displaced = self._carriers.swap(cache.memory.states.modules)
        return args, kwargs

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        memory, self._memory, self._call = self._memory, None, None
        if memory is not None:
            memory.states.modules.update(self._carriers.swap(self._displaced))
            logits = output[0] if isinstance(output, tuple) else getattr(output, "logits", None)
            memory.end_pass(logits)

    def _take_latents(self, layer: int, latents: Tensor) -> None:
        if self._call is not None:
            self._call.latents[layer] = latents

    def _mask(self, *args: Any, **kwargs: Any) -> Tensor | None:
        """Masks are the policies' affair."""
        return open_mask(self.device) if self._indexers else None

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
        if attention_mask is not None and not (self._indexers or self._forms):
            raise UnsupportedCall("the engine makes its own masks; an explicit one cannot be used")
        if query.requires_grad:
            raise UnsupportedCall(
                "the memory keeps no gradients", "call the model under torch.no_grad()"
            )
        if self.by_order:
            layer, self._calls = self._calls, self._calls + 1
        else:
            layer = module.layer_idx  # type: ignore[assignment]
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        form = self._forms.get(layer)
        if form is None:
            return memory.attend(layer, query, key, value, call, scale, softcap, s_aux), None
        query, key = form.query(query, scale), form.key(key, attention_mask)
        value = form.value(value)
        out = memory.attend(layer, query, key, value, call, scale, softcap, s_aux)
        return out[..., : form.value_dim].contiguous(), None

    # ---- logits ---------------------------------------------------------------------------------

    def hidden_states(self) -> AbstractContextManager[list[Tensor]]:
        """Collects the last hidden states [B, T, M] of the passes made inside."""
        return hidden_states(self.model)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits float32 [B, T, vocab] of hidden states, with all that the model does to them."""
        return logits(self.model, hidden)

    @property
    def keeps_logits(self) -> bool:
        """Whether the model can be told how many logits to compute."""
        return "logits_to_keep" in inspect.signature(type(self.model).forward).parameters


def _own_rows(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The last rows of a pass, [B, n, M], as a tensor of their own. In the strides of all rows, a
    product on a CPU copies the whole matrix first: a second for 150,000 tokens of vocabulary."""
    return (args[0].clone(memory_format=torch.contiguous_format), *args[1:])
