"""A model with a memory: loading, attachment, and the sessions that read with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from infllm.engine.attachment import (
    Attachment,
    LayerRanges,
    best_form,
    compare,
    dense_rows,
    expected_logits,
    load_parts,
    pack_steps,
    refuse_by_config,
    refuse_packed,
    rounds_rows,
)
from infllm.engine.config import (
    LOOKUPS,
    UNCHOSEN,
    Config,
    HomerSettings,
    ModelConfig,
    fit_to_model,
    load_config,
)
from infllm.engine.decode import Record, Recorder
from infllm.engine.errors import ConfigError, UnsupportedCall
from infllm.engine.files import (
    Verification,
    memory_key,
    model_digest,
    open_memory,
    read_manifest,
    save,
    tokenizer_digest,
)
from infllm.engine.guide import Guide, load_guide
from infllm.engine.readers import Merging, attention_rows
from infllm.engine.session import Backing, Session
from infllm.engine.text import Tokenizer
from infllm.engine.units import Estimate, estimate, keeps_latents

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

KV_OF_DTYPE = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


class Engine:
    """A transformers model attached to memory policies; a context manager.

    Raises on creation:
        UnsupportedModel: the model's attention cannot be served, with the reason.
        UnsupportedCall: the model is attached already.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Tokenizer | None,
        config: Config,
        *,
        check: bool = True,
        guide: Guide | None = None,
    ) -> None:
        base, distance_scale = config.model.base, config.model.distance_scale
        self.attachment = Attachment(model, base, distance_scale)
        self.model = model.eval()
        self._tokenizer = tokenizer
        self.device, self.dtype = self.attachment.device, self.attachment.dtype
        self.config = _resolved(config, self.dtype)
        self.vocab_size = self.attachment.vocab_size
        self.eos_ids = _eos_ids(model, tokenizer)
        self.recorder = Recorder(model)
        self._guide: Guide | None = None
        plain = base is None and distance_scale == 1.0
        expected = expected_logits(model) if check and plain else None
        form = config.model.weights
        refuse_packed(form, self.device, model)
        self._unpack: Callable[[], None] | None = None
        self.attachment.__enter__()
        if self.attachment.state_bytes:
            self.recorder.give_up("layers keep a state, which a replay would move twice")
        try:
            if expected is not None:
                with dense_rows(model):
                    compare(model, self.session(overrides={"type": "origin"}).score, expected)
            if (best_form(model) if form == "auto" else form) == "packed":
                self._unpack = pack_steps(model)
        except BaseException:
            self.close()
            raise
        self._guide = guide  # not before: the check is of the model alone

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises UnsupportedCall for an engine around a model that was given without one."""
        if self._tokenizer is None:
            raise UnsupportedCall(
                "this engine was attached to a model without a tokenizer",
                "give it: attach(model, tokenizer)",
            )
        return self._tokenizer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the model back as it was before."""
        if self._unpack is not None:
            self._unpack()
        self.attachment.__exit__()

    def session(self, start: int = 0, overrides: Mapping[str, Any] | None = None) -> Session:
        """A fresh memory. `start`: absolute position of its first token.

        `overrides` change keys of the model configuration for this session alone, e.g.
        `{"type": "stream-lm"}`: many policies over one loaded model.

        Raises:
            ConfigError: an override is unknown or out of range.
        """
        if start < 0:
            raise ConfigError(f"start must not be negative, got {start}")
        config = self.config
        if overrides:
            config = _resolved(config.with_overrides(overrides), self.dtype)
        backing = Backing(
            self.attachment,
            self.recorder,
            self.eos_ids,
            self._key,
            save,
            self._guide,
            self.rounds_rows,
        )
        return Session(backing, config.model, config.chunk_size, start)

    @property
    def rounds_rows(self) -> bool:
        """Whether a step is no row of a longer pass, since it takes packed weights: what is drafted
        would change tokens, and is not tried."""
        return rounds_rows(self.model)

    def attention_rows(self, ids: Sequence[int], first: int) -> Tensor:
        """What tokens `first` on of `ids` attend, see `readers.attention_rows`; no session has
        read them."""
        return attention_rows(self.attachment, self.config.model, ids, first)

    @cached_property
    def layer_ranges(self) -> LayerRanges:
        """Some of the layers alone. Raises UnsupportedModel, by name, where they cannot run so."""
        return LayerRanges(self.attachment)

    def merging(self, settings: HomerSettings | None = None) -> Merging:
        """Prompts read by merging their chunks (HOMER); `settings`: by default `homer:` of the
        configuration."""
        return Merging(
            self.attachment, lambda: self.layer_ranges, settings or self.config.homer,
            self.config.model, str(self.digests["model"]),
        )  # fmt: skip

    @property
    def record(self) -> Record | None:
        """How decode steps are recorded to be replayed; None where they are not."""
        return self.recorder.record

    @record.setter
    def record(self, record: Record | None) -> None:
        self.recorder.record = record

    @property
    def not_recorded(self) -> str | None:
        """Why decode steps are not recorded."""
        return self.recorder.why_not

    def _key(self, config: ModelConfig, chunk_size: int) -> dict[str, Any]:
        """What a memory of that configuration depends on, see `Session.key`."""
        settings = memory_key(config, chunk_size, self.dtype)
        if any(keeps_latents(config, layer) for layer in self.attachment.layers):
            settings["model.latents"] = True
        return {**self.digests, "settings": settings}

    def open(
        self,
        memory: str | Path | Verification,
        *,
        verify: bool = False,
        overrides: Mapping[str, Any] | None = None,
    ) -> Session:
        """The session that was saved to a memory file, without reading anything again.

        The files are mapped: window and unit index are loaded, units when they are looked up, each
        checked before its first use. The session goes on like any other; what it adds stays in
        memory until it is saved. `memory`: its folder, or a check of it that was begun before the
        model was loaded, which is waited for. `overrides`: as for `session`. `verify`: check all
        units now, of a memory of any size.

        Raises:
            MemoryFileError: `missing`, `unfinished`, `damaged`, `newer`, `older`, or read by
                another `model`, with another `tokenizer` or other `settings` that change numbers.
        """
        folder = memory.folder if isinstance(memory, Verification) else memory
        session = self.session(overrides=self._looking_up_as_then(folder, overrides))
        open_memory(session, memory, verify=verify)
        return session

    def resume(
        self,
        folder: str | Path,
        *,
        verify: bool = False,
        overrides: Mapping[str, Any] | None = None,
    ) -> tuple[Session, int]:
        """The session of a memory's last save, finished or not, and how many tokens it was given.

        Giving it the rest ends in the state of a reading that was never interrupted. `verify`: as
        for `open`.

        Raises:
            MemoryFileError: as for `open`, without `unfinished`.
        """
        session = self.session(overrides=self._looking_up_as_then(folder, overrides))
        open_memory(session, folder, verify=verify, unfinished=True)
        return session, session.stats.tokens_given

    def _looking_up_as_then(
        self, folder: str | Path, overrides: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """`overrides`, with lookups as a memory has them, where nobody chose otherwise.

        So a memory answers as before when a default, or a preset, has become another.
        """
        settings = dict(overrides or {})
        then = read_manifest(folder).key["settings"]
        for name in LOOKUPS:
            key = f"model.{name}"
            origin = self.config.origins[key]
            unchosen = origin in UNCHOSEN or origin.startswith("preset ")
            known = key in then or ModelConfig.model_fields[name].default is None
            if known and unchosen and settings.keys().isdisjoint({name, key}):
                settings[key] = then.get(key)  # not there: from before there was such a setting
        return settings

    @cached_property
    def digests(self) -> dict[str, str | None]:
        """What tells this model and its tokenizer from others; computed once, see `fingerprint`."""
        guided = {} if self._guide is None else {"guide": self._guide.digest()}
        return {
            **guided,
            "model": model_digest(self.model),
            "tokenizer": tokenizer_digest(self._tokenizer),
        }

    def estimate(self, n_tokens: int, overrides: Mapping[str, Any] | None = None) -> Estimate:
        """Bytes that a session of `n_tokens` tokens will keep, by tier."""
        config = self.config if not overrides else self.config.with_overrides(overrides)
        found = estimate(_resolved(config, self.dtype).model, self.attachment.layers, n_tokens)
        return replace(found, device_bytes=found.device_bytes + self.attachment.state_bytes)


def load(
    source: str | Path | Mapping[str, Any] | Config | None = None,
    *,
    device: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    check: bool = True,
) -> Engine:
    """An engine with its own model.

    Args:
        source: a preset's name, a YAML file, a model folder, a hub id, a GGUF file (also as
            `ollama:NAME`, `lmstudio:PUBLISHER/REPO`, `hf:ORG/REPO:FILE.gguf`; it is unpacked into
            the user's cache, once), a mapping or a Config; None: what environment, project or
            user file name, else the built-in model.
        device: `auto`, `cpu`, `cuda`, `cuda:N`; overrides `model.device`.
        overrides: configuration keys, e.g. `{"model.topk": 32}`.
        check: compare a few logits with the model's own before the first use.

    Raises:
        ConfigError, ModelNotFound (not here and offline, or not there at all), UnsupportedModel.
    """
    changes = dict(overrides or {})
    if device is not None:
        changes["model.device"] = device
    if isinstance(source, Config):
        config = source.with_overrides(changes) if changes else source
    else:
        config = load_config(source, changes)
    model, tokenizer = load_parts(config.model)
    if config.awaits_model:  # it was not on this machine before
        config = fit_to_model(config, model.config.to_dict(), model.device.type)
    guide = load_guide(config.model, model, tokenizer)
    return Engine(model, tokenizer, config, check=check, guide=guide)


def attach(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | Tokenizer | None = None,
    config: str | Path | Mapping[str, Any] | Config | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    check: bool = True,
) -> Engine:
    """The engine around a model you hold; undone by `close` or at the end of a `with` block.

    Args:
        config: a preset's name, a YAML file, a mapping or a Config; None: the published defaults,
            fitted to the length that the model was trained on.
        check: compare a few logits with the model's own before the first use.
    """
    refuse_by_config(model)
    if config is None:
        config = fit_to_model(Config(), model.config.to_dict(), model.device.type)
    elif not isinstance(config, Config):
        config = load_config(config)
    if overrides:
        config = config.with_overrides(overrides)
    if tokenizer is not None and not isinstance(tokenizer, Tokenizer):
        tokenizer = Tokenizer(tokenizer)
    return Engine(model, tokenizer, config, check=check)


def _resolved(config: Config, dtype: torch.dtype) -> Config:
    """The config with `kv_dtype: auto` made the model's own dtype."""
    if config.model.kv_dtype != "auto":
        return config
    return config.with_overrides({"kv_dtype": KV_OF_DTYPE[dtype]})


def _eos_ids(model: Any, tokenizer: Tokenizer | None) -> frozenset[int]:
    ids: set[int] = set()
    generation = getattr(model, "generation_config", None)
    for source in (generation, model.config):
        eos = getattr(source, "eos_token_id", None)
        if eos is not None:
            ids.update(eos if isinstance(eos, (list, tuple)) else [eos])
    if tokenizer is not None and tokenizer.eos_id is not None:
        ids.add(tokenizer.eos_id)
    return frozenset(ids)
