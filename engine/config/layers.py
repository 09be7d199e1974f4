"""Where settings come from: presets, YAML files, the environment, a model's own config."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from infllm import presets
from infllm.engine.config.policy_settings import PUBLISHED
from infllm.engine.errors import ConfigError, ModelNotFound
from infllm.engine.sources import names_gguf

PROJECT_FILE = "infllm.yaml"
BUILTIN = "builtin:"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# Which model is meant, as against how it is run: a layer below the one that names the model
# must not swap these under it.
IDENTITY = ("model.path", "model.tokenizer_path", "model.revision", "conv_type", "chat_template")
PROMPT_PARTS = ("system", "head", "tail")


@dataclass
class Layer:
    """Settings of one origin, flat: {"model.topk": 32, "prompts.ask.tail": "..."}."""

    origin: str
    values: dict[str, Any] = field(default_factory=dict)
    preset: str | None = None  # the `preset:` key of a file: what this layer builds on


def flatten(
    settings: Mapping[str, Any], known: Iterable[str], origin: str, bare: bool = False
) -> Layer:
    """Flat, checked settings of a nested mapping. `bare`: model keys may come without `model.`.

    Raises ConfigError for an unknown key, with the nearest known one.
    """
    known = frozenset(known)
    sections = {"prompts", *(key.partition(".")[0] for key in known if "." in key)}
    layer = Layer(origin)
    for key, value in _pairs(settings):
        if key == "preset":
            layer.preset = str(value)
            continue
        if key in sections or re.fullmatch(r"prompts\.[\w-]+", key):
            if value is None:
                continue
            raise ConfigError(f"{key}: a mapping is needed, not {type(value).__name__} ({origin})")
        if bare and key not in known and f"model.{own_name(key)}" in known:
            key = f"model.{key}"
        key = own_name(key)
        is_prompt = re.fullmatch(rf"prompts\.[\w-]+\.({'|'.join(PROMPT_PARTS)})", key)
        if key not in known and not is_prompt:
            raise unknown_key(key, known, origin)
        layer.values[key] = value
    return layer


def own_name(key: str) -> str:
    """A key of the `model:` section by its name here, where published code has another."""
    section, dot, leaf = key.rpartition(".")
    return f"{section}{dot}{PUBLISHED.get(leaf, leaf)}" if section in ("", "model") else key


def _pairs(settings: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _pairs(value, f"{name}.")
        else:
            yield name, value


def unknown_key(key: str, known: Iterable[str], origin: str) -> ConfigError:
    """The error for a key that is not a setting, naming the nearest one."""
    # Of a leaf that several sections have, the model's is meant.
    model_last = sorted(known, key=lambda name: name.startswith("model."))
    by_leaf = {name.rpartition(".")[2]: name for name in model_last}
    by_leaf |= {name: name for name in known} | {part: f"prompts.*.{part}" for part in PROMPT_PARTS}
    near = get_close_matches(key, by_leaf, n=1) or get_close_matches(
        key.rpartition(".")[2], by_leaf, n=1
    )
    hint = (
        f"did you mean {by_leaf[near[0]]!r}?" if near else f"known keys: {', '.join(sorted(known))}"
    )
    return ConfigError(f"unknown key {key!r} ({origin})", hint)


def read_yaml(path: Path, known: Iterable[str], origin: str) -> Layer:
    """The settings of a YAML file; ConfigError when it cannot be read, parsed or understood."""
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if settings is None:
        settings = {}
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: settings are a mapping of keys to values")
    layer = flatten(settings, known, origin)
    for key in ("model.path", "model.tokenizer_path"):
        if isinstance(layer.values.get(key), str):
            layer.values[key] = _beside(layer.values[key], path.parent)
    return layer


def _beside(model_path: str, folder: Path) -> str:
    """A relative model path is meant from the file that names it, if it is there."""
    if model_path.startswith(BUILTIN):
        return model_path
    local = Path(model_path).expanduser()
    if local.is_absolute():
        return str(local)
    here = folder / local
    return str(here) if here.is_dir() or (here.is_file() and names_gguf(str(here))) else model_path


def read_environment(environ: Mapping[str, str], known: Iterable[str]) -> tuple[Layer, list[str]]:
    """Settings of INFLLM_* variables, and notes on names that look like a slip.

    INFLLM_MODEL__TOPK or INFLLM_TOPK sets model.topk, INFLLM_CHUNK_SIZE sets chunk_size,
    INFLLM_PRESET names the preset. Values are read as YAML scalars.
    """
    known = frozenset(known)
    layer, notes = Layer("environment"), []
    for name in sorted(environ):
        if not name.startswith("INFLLM_"):
            continue
        key = name.removeprefix("INFLLM_").lower().replace("__", ".")
        if key == "preset":
            layer.preset = environ[name]
            continue
        if key not in known and f"model.{key}" in known:
            key = f"model.{key}"
        if key in known:
            layer.values[key] = _scalar(environ[name], name)
        elif key.startswith("model."):
            raise unknown_key(key, known, f"environment variable {name}")
        elif near := get_close_matches(key, [k.rpartition(".")[2] for k in known], 1, 0.8):
            notes.append(f"{name} is not a setting; did you mean INFLLM_{near[0].upper()}?")
    return layer, notes


def _scalar(text: str, name: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"environment variable {name} cannot be read: {text!r}") from error
    return text if isinstance(value, (dict, list)) else value


def read_source(source: str | Path | Mapping[str, Any], known: Iterable[str]) -> list[Layer]:
    """The lowest layers of a source: preset name, YAML path, model folder, hub id or mapping.

    A GGUF file, and what `ollama:`, `lmstudio:` and `hf:` name, is a model, too.

    Raises ConfigError when it is none of these, ModelNotFound for a folder without a model.
    """
    if isinstance(source, Mapping):
        return _with_base(flatten(source, known, "given settings", bare=True), known)
    name = str(source)
    if name in presets.names():
        return _with_base(read_yaml(presets.path(name), known, f"preset {name}"), known)
    local = Path(name).expanduser()
    if names_gguf(name):
        return _of_model(name)
    if local.is_file() or local.suffix in (".yaml", ".yml"):
        return _with_base(read_yaml(local, known, str(local)), known)
    if local.is_dir() or name.startswith(BUILTIN):
        folder = resolve_model_path(name)
        if not (Path(folder) / "config.json").is_file():
            raise ModelNotFound(
                f"no model in {folder}: config.json is missing",
                "name a folder written by save_pretrained, or a preset: infllm presets list",
            )
        return _of_model(name)
    if HUB_ID.fullmatch(name):
        return _of_model(name)
    near = presets.suggestions(name)
    raise ConfigError(
        f"no preset, YAML file or model named {name!r}",
        f"did you mean {near[0]!r}?" if near else "see: infllm presets list",
    )


def _with_base(layer: Layer, known: Iterable[str]) -> list[Layer]:
    """A file's layer on top of what it builds on: its `preset:`, or its model's family."""
    if layer.preset is not None:
        if layer.preset not in presets.names():
            near = presets.suggestions(layer.preset)
            raise ConfigError(
                f"no preset named {layer.preset!r} ({layer.origin})",
                f"did you mean {near[0]!r}?" if near else "see: infllm presets list",
            )
        base = read_yaml(presets.path(layer.preset), known, f"preset {layer.preset}")
        return [base, layer]
    return [layer]


def _of_model(name: str) -> list[Layer]:
    return [Layer("model given", {"model.path": name})]


def resolve_model_path(path: str) -> str:
    """`builtin:NAME` and ~ as a folder of this machine; anything else unchanged."""
    if path.startswith(BUILTIN):
        return str(presets.builtin(path.removeprefix(BUILTIN)))
    return str(Path(path).expanduser()) if path.startswith("~") else path


def read_model_config(path: str) -> dict[str, Any] | None:
    """A model's config.json from a folder or the hub's local cache; None when it is not here.

    Never fetches. Of a GGUF file: what its header says. Raises ModelNotFound when the file is there
    and is no JSON object, or no GGUF file, UnsupportedModel for a GGUF file of an unknown kind.
    """
    if names_gguf(path):
        from infllm.engine.sources import find_gguf, model_config  # with numpy

        found = find_gguf(path, fetch=False)
        return None if found is None else model_config(found)
    local = Path(resolve_model_path(path))
    if local.is_dir():
        file = local / "config.json"
    else:
        from huggingface_hub import try_to_load_from_cache  # slow to import, rarely needed

        cached = try_to_load_from_cache(path, "config.json") if HUB_ID.fullmatch(path) else None
        if not isinstance(cached, str):
            return None
        file = Path(cached)
    if not file.is_file():
        return None
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelNotFound(f"{file} is not valid JSON: {error}") from error
    return config if isinstance(config, dict) else None


def user_file() -> Path | None:
    """The user's own settings file, whether or not it exists; None for a user without a home."""
    from platformdirs import user_config_path

    try:
        return user_config_path("infllm", appauthor=False) / "config.yaml"
    except RuntimeError:  # as in containers: neither HOME nor an entry for the user
        return None


def _is_there(path: Path) -> bool:
    """Whether there is such a file, as far as this user may know."""
    try:
        return path.is_file()
    except PermissionError:  # HOME may be another user's
        return False


def surrounding_layers(
    known: Iterable[str], environ: Mapping[str, str] | None, project: Path | None, user: Path | None
) -> tuple[list[Layer], list[str]]:
    """User file, project file and environment, lowest first, and notes. None: the usual places."""
    known = frozenset(known)
    layers = []
    user = user_file() if user is None else user
    project = Path(PROJECT_FILE) if project is None else project
    if user is not None and _is_there(user):
        layers.append(read_yaml(user, known, f"user config {user}"))
    if project.is_file():
        layers.append(read_yaml(project, known, f"project file {project}"))
    layer, notes = read_environment(os.environ if environ is None else environ, known)
    layers.append(layer)
    return layers, notes
