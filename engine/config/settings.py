"""The configuration: every setting, its limits, and which layer it came from. Free of torch."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError

from infllm.engine.config.fitting import fit
from infllm.engine.config.layers import (
    IDENTITY,
    Layer,
    flatten,
    read_model_config,
    read_source,
    resolve_model_path,
    surrounding_layers,
)
from infllm.engine.config.model_settings import ModelConfig
from infllm.engine.config.reader_settings import HomerSettings, InfiniRetriSettings
from infllm.engine.config.stages import SINKS, STREAM, unseen
from infllm.engine.config.values import Count, Settings, aliases
from infllm.engine.errors import ConfigError

UNLIMITED = 2**31 - 1  # the published configs write "no limit" so
DEFAULT_PRESET = "pocket"
# Keys of the published configs that choose an implementation there and nothing here.
WITHOUT_EFFECT = ("model.fattn", "model.async_global_stream", "model.pin_memory")
TURNS = 4  # of the length that chunks are given then fill what sirllm keeps
FITTED = "fitted to the model"  # the layer of `fitting`
UNCHOSEN = ("default", FITTED)  # settings that give way where a chosen one contradicts them


def _unlimited(value: Any) -> Any:
    return None if isinstance(value, int) and value >= UNLIMITED else value


class PromptConfig(Settings):
    """One task's words around the document. None keeps the built-in text of that part."""

    system: str | None = None
    head: str | None = None
    tail: str | None = None


class Config(Settings):
    """Everything a run needs to know."""

    model: ModelConfig = Field(default_factory=ModelConfig)
    infiniretri: InfiniRetriSettings = Field(default_factory=InfiniRetriSettings)
    homer: HomerSettings = Field(default_factory=HomerSettings)
    max_len: Annotated[Count | None, BeforeValidator(_unlimited)] = None  # None: no limit
    truncation: Literal["suffix", "prefix", "middle"] | None = None
    chunk_size: Count = 8192
    read_back: bool = False  # passages a question finds are read again next to it (command line)
    read_back_as: Literal["lines", "prose"] = "lines"  # each on a line, or one behind another
    # What proposes tokens ahead while an answer is written (command line): it changes none of them.
    draft: Annotated[Literal["document", "lookahead", "off"], aliases(**{"False": "off"})] = (
        "document"
    )
    conv_type: Literal["mistral-inst", "llama-3-inst", "vicuna", "qwen", "minicpm"] | None = None
    chat_template: str | Literal[False] | None = None  # Jinja; None: the tokenizer's; False: none
    prompts: dict[str, PromptConfig] = Field(default_factory=dict)
    description: str = ""
    license: str = ""  # of the weights

    _layers: list[Layer] = PrivateAttr(default_factory=list)
    _notes: list[str] = PrivateAttr(default_factory=list)
    _adjusted: list[str] = PrivateAttr(default_factory=list)
    _why_fitted: str = PrivateAttr("")

    @property
    def notes(self) -> list[str]:
        """What was accepted but is without effect, rounded or raised: one sentence each."""
        return [*self._notes, *self._adjusted]

    @property
    def why_fitted(self) -> str:
        """Why the settings that nobody chose are what they are; empty where none were fitted."""
        return self._why_fitted

    @property
    def awaits_model(self) -> bool:
        """Whether nothing was fitted because the model was not on this machine."""
        return bool(self._layers) and not self._why_fitted

    @property
    def origins(self) -> dict[str, str]:
        """Dotted key -> the layer its value came from, "default" where none gave it."""
        origins = dict.fromkeys(self.flat(), "default")
        for layer in self._layers:
            origins.update(dict.fromkeys(layer.values, layer.origin))
        return origins

    def flat(self) -> dict[str, Any]:
        """Dotted key -> value, e.g. {"model.topk": 16, "chunk_size": 8192}."""
        values = {f"{s}.{key}": value for s in SECTIONS for key, value in getattr(self, s)}
        values |= {key: value for key, value in self if key not in (*SECTIONS, "prompts")}
        for task, prompt in self.prompts.items():
            values |= {f"prompts.{task}.{part}": text for part, text in prompt if text is not None}
        return values

    def with_overrides(self, overrides: Mapping[str, Any], origin: str = "override") -> "Config":
        """This configuration with `overrides` on top; ConfigError as for `load_config`."""
        layers = self._layers or [Layer("given", self.flat())]
        changed = _build([*layers, flatten(overrides, KNOWN, origin, bare=True)], self._notes)
        changed._why_fitted = self._why_fitted
        return changed


SECTIONS: dict[str, type[Settings]] = {
    "model": ModelConfig,
    "infiniretri": InfiniRetriSettings,
    "homer": HomerSettings,
}
KNOWN = frozenset(
    f"{section}.{key}" for section, kind in SECTIONS.items() for key in kind.model_fields
) | (frozenset(Config.model_fields) - {*SECTIONS, "prompts"})


def load_config(
    source: str | Path | Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    project: Path | None = None,
    user: Path | None = None,
) -> Config:
    """The configuration of a run.

    `source`: a preset's name, a YAML file, a model folder, a hub id (org/name) or a mapping;
    None: what the environment, project or user file names (`preset:` or `model.path:`), else
    `pocket`. `overrides`: {"model.topk": 32}; model keys may come bare ({"topk": 32}).
    Precedence: overrides, INFLLM_* environment, ./infllm.yaml, the user's config.yaml, source.
    `environ`, `project` and `user` replace the usual places of the middle three.

    Raises ConfigError (unknown key, wrong value, broken limit), ModelNotFound (no model there).
    """
    flags = flatten(overrides or {}, KNOWN, "flag", bare=True)
    around, notes = surrounding_layers(KNOWN, environ, project, user)
    above = [*around, flags]
    lowest_namer = len(around)  # below this index a layer may not say which model
    if source is None:
        source = DEFAULT_PRESET
        lowest_namer = 0
        for index, layer in reversed(list(enumerate(above))):
            named = layer.preset or layer.values.get("model.path")
            if named:
                source, lowest_namer = str(named), index
                break
    for layer in above[:lowest_namer]:
        for key in IDENTITY:
            if layer.values.pop(key, None) is not None:
                notes.append(f"{key} of the {layer.origin} is set aside for {source}")

    config = _build([*read_source(source, KNOWN), *above], notes)
    path = config.model.path
    model_config = read_model_config(path) if path else None
    return fit_to_model(config, model_config) if model_config else config


def fit_to_model(
    config: Config, model_config: Mapping[str, Any], device: str | None = None
) -> Config:
    """`config` with what nobody chose fitted to the model and the device, see `fitting.fit`.

    `model_config`: the contents of its config.json; `device`: where the model is, if it is loaded.
    """
    layers = config._layers or [Layer("given", _chosen(config))]
    layers = [layer for layer in layers if layer.origin != FITTED]
    chosen = any("model.n_local" in layer.values for layer in layers)
    window = config.model.n_local if chosen else None
    fitted = fit(model_config, device or config.model.device, window)
    if fitted is None:
        return config
    config = _build([Layer(FITTED, fitted.settings), *layers], config._notes)
    config._why_fitted = fitted.why
    return config


def _chosen(config: Config) -> dict[str, Any]:
    """What was given to a Config made by hand: dotted key -> value, without the defaults."""
    chosen = {f"{s}.{key}" for s in SECTIONS for key in getattr(config, s).model_fields_set}
    chosen |= config.model_fields_set
    return {
        key: value
        for key, value in config.flat().items()
        if key in chosen or key.startswith("prompts.")
    }


def _build(layers: list[Layer], notes: list[str]) -> Config:
    nested: dict[str, Any] = {**{section: {} for section in SECTIONS}, "prompts": {}}
    origins: dict[str, str] = {}
    for layer in layers:
        for key, value in layer.values.items():
            section, _, leaf = key.partition(".")
            if section == "prompts":
                task, _, part = leaf.rpartition(".")
                nested["prompts"].setdefault(task, {})[part] = value
            elif leaf:
                nested[section][leaf] = value
            else:
                nested[key] = value
            origins[key] = layer.origin
    if isinstance(nested["model"].get("path"), str):
        nested["model"]["path"] = resolve_model_path(nested["model"]["path"])
    try:
        config = Config.model_validate(nested)
    except ValidationError as error:
        raise _config_error(error, origins) from error
    config, adjusted = _within_limits(config, origins)
    config._layers, config._notes, config._adjusted = layers, notes, adjusted
    return config


def _config_error(error: ValidationError, origins: Mapping[str, str]) -> ConfigError:
    first = error.errors(include_url=False)[0]
    loc = [str(part) for part in first["loc"]]
    key = ".".join(loc)
    while key not in origins and len(loc) > 1:  # pydantic appends the branch of a union
        loc = loc[:-1]
        key = ".".join(loc)
    wanted = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    inner = [str(part) for part in first["loc"][len(loc) :]]  # of a list: which item, which key
    item = next((i for i, part in enumerate(inner) if part.isdecimal()), len(inner))
    place = ".".join([key, *inner[item:]])
    message = f"{place}: {first['input']!r} will not do: {wanted}"
    expected = str(first.get("ctx", {}).get("expected", "")).replace(" or ", ", ")
    near = get_close_matches(str(first["input"]), expected.replace("'", "").split(", "), 1)
    origin = origins.get(key, "default")
    return ConfigError(f"{message} ({origin})", f"did you mean {near[0]!r}?" if near else "")


def _within_limits(config: Config, origins: Mapping[str, str]) -> tuple[Config, list[str]]:
    """`config` within the method's limits, and what was adjusted.

    A chosen value that breaks a limit of the method is an error; what only costs speed or
    memory, or rounds to the grid, is adjusted and noted.
    """
    notes = [
        f"{key.removeprefix('model.')} has no effect here"
        for key in WITHOUT_EFFECT
        if origins.get(key)
    ]
    model = config.model
    changes: dict[str, Any] = {}

    def unchosen(key: str) -> bool:
        return origins.get(f"model.{key}", "default") in UNCHOSEN

    def told(key: str) -> str:
        return f"model.{key} {getattr(model, key)} ({origins.get(f'model.{key}', 'default')})"

    exc = model.exc_block_size
    if model.type == "inf-llm":
        if exc > model.n_local:
            if not unchosen("exc_block_size"):
                raise ConfigError(
                    f"{told('exc_block_size')} is larger than {told('n_local')}",
                    "an execution block may not leave the window: lower model.exc_block_size",
                )
            exc = changes["exc_block_size"] = max(1, model.n_local // 2)
        if model.repr_topk > model.block_size:
            if not unchosen("repr_topk"):
                raise ConfigError(
                    f"{told('repr_topk')} is larger than {told('block_size')}",
                    "a unit has no more representatives than tokens: lower model.repr_topk",
                )
            changes["repr_topk"] = model.block_size
        if model.faiss and unchosen("unit_score"):
            changes["unit_score"] = "representatives"
        if model.most_units > model.max_cached_block:
            changes["max_cached_block"] = model.most_units
            if not unchosen("max_cached_block"):
                notes.append(
                    f"max_cached_block raised from {model.max_cached_block} to {model.most_units}: "
                    f"the cache must hold the units of one step"
                )
        if model.chunk_topk_calc is not None:
            if model.chunk_topk_calc < exc:
                raise ConfigError(
                    f"{told('chunk_topk_calc')} is smaller than {told('exc_block_size')}",
                    "lookups are made for whole execution blocks: raise it or leave it out",
                )
            if model.chunk_topk_calc % exc:
                changes["chunk_topk_calc"] = model.chunk_topk_calc // exc * exc
                notes.append(
                    f"chunk_topk_calc rounded down to {changes['chunk_topk_calc']}, "
                    f"a multiple of exc_block_size {exc}"
                )
    if model.type == "infinitehip":
        if why := unseen(model):
            raise ConfigError(
                f"{told('stages')}: {why}", "lower query_block of the stages, or raise their chunks"
            )
        published = {"n_init": SINKS, "n_local": STREAM}
        changes |= {key: value for key, value in published.items() if unchosen(key)}
    if changes:
        config = config.model_copy(update={"model": model.model_copy(update=changes)})

    if model.type == "sirllm":
        config, lowered = _within_turns(config)
        if lowered and origins.get("chunk_size", "default") not in UNCHOSEN:
            notes.append(lowered)
    elif config.chunk_size % exc:
        rounded = max(exc, config.chunk_size // exc * exc)
        if origins.get("chunk_size", "default") not in UNCHOSEN:
            notes.append(
                f"chunk_size {config.chunk_size} rounded to {rounded}, "
                f"a multiple of exc_block_size {exc}"
            )
        config = config.model_copy(update={"chunk_size": rounded})
    if config.truncation is not None and config.max_len is None:
        notes.append("truncation has no effect without max_len")
    return config, notes


def _within_turns(config: Config) -> tuple[Config, str | None]:
    """`config` with chunks that fit as turns, each read by one pass; what was lowered."""
    model = config.model
    room = model.n_entropy + model.n_recent
    if room == 0:
        raise ConfigError(
            "model.n_entropy and model.n_recent are both 0",
            "initial tokens alone are no memory: raise one of the two",
        )
    if config.chunk_size <= room:
        return config, None
    size = max(1, room // TURNS)
    return config.model_copy(update={"chunk_size": size}), (
        f"chunk_size {config.chunk_size} lowered to {size}: of n_entropy and n_recent, "
        f"{room} tokens in all, one in {TURNS} is for those that arrive"
    )
