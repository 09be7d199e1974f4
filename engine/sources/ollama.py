"""Models that Ollama keeps: manifests name the blobs they are made of. Read only."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from infllm.engine.errors import ModelFileError, ModelNotFound, UnsupportedModel

REGISTRY, LIBRARY, LATEST = "registry.ollama.ai", "library", "latest"
SYSTEM = Path("/usr/share/ollama/.ollama/models")
MODEL = "application/vnd.ollama.image.model"
ADAPTER = "application/vnd.ollama.image.adapter"
LICENCE = "application/vnd.ollama.image.license"
TENSOR = "application/vnd.ollama.image.tensor"
DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")


@dataclass(frozen=True)
class Held:
    """A model of Ollama's: the name it has there, and the file of its weights."""

    name: str
    path: Path


def roots() -> list[Path]:
    """The folders that Ollama may keep models in, the user's first."""
    named = os.environ.get("OLLAMA_MODELS")
    user = Path(named).expanduser() if named else Path("~/.ollama/models").expanduser()
    return [path for path in dict.fromkeys([user, SYSTEM]) if _is_folder(path / "manifests")]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # the system's folder may be closed to us
        return False


def find(name: str) -> Path:
    """The GGUF blob of NAME[:TAG].

    Raises ModelNotFound when Ollama has no such model, ModelFileError for a manifest that cannot
    be read or a blob that is gone, UnsupportedModel for one that is no GGUF file, or is changed by
    an adapter.
    """
    places = roots()
    for root in places:
        manifest = root / "manifests" / _place(name)
        if _inside(manifest, root) and manifest.is_file():
            return _model_blob(manifest, root, name)
    if not places:
        raise ModelNotFound(
            f"no models of Ollama are here: neither in {Path('~/.ollama/models').expanduser()} "
            f"nor in {SYSTEM}",
            "set OLLAMA_MODELS where they lie elsewhere",
        )
    here = [held.name for held in models_of_ollama()]
    near = get_close_matches(name, here, n=1, cutoff=0.5)
    if near:
        hint = f"did you mean ollama:{near[0]}?"
    else:
        hint = f"these are here: {', '.join(here[:8])}" if here else "get it with: ollama pull"
    raise ModelNotFound(f"Ollama has no model {name!r}", hint)


def _inside(path: Path, root: Path) -> bool:
    """Whether a name stays in the folder of manifests."""
    return ".." not in path.relative_to(root).parts


def _place(name: str) -> Path:
    """Where the manifest of [HOST/][NAMESPACE/]NAME[:TAG] lies."""
    path, _, tag = name.partition(":")
    parts = [part for part in path.split("/") if part]
    if not parts:
        raise ModelNotFound("ollama: names no model", "write for example ollama:qwen2.5:0.5b")
    if len(parts) == 1:
        parts = [LIBRARY, *parts]
    if len(parts) == 2:
        parts = [REGISTRY, *parts]
    return Path(*parts) / (tag or LATEST)


def _layers(manifest: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        layers = content["layers"]
        return [layer for layer in layers if isinstance(layer, dict)]
    except OSError as error:
        raise ModelFileError(
            f"cannot read {manifest}: {error.strerror or error}", "check its rights"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError(
            f"{manifest} is no manifest of Ollama's", "get the model again: ollama pull"
        ) from error


def _model_blob(manifest: Path, root: Path, name: str) -> Path:
    layers = _layers(manifest)
    kinds = {str(layer.get("mediaType", "")).partition(";")[0] for layer in layers}
    if ADAPTER in kinds:
        raise UnsupportedModel(
            f"ollama:{name} is changed by an adapter (LoRA), which is not read",
            "use the model that it changes",
        )
    if TENSOR in kinds and MODEL not in kinds:
        raise UnsupportedModel(
            f"ollama:{name} is not stored as a GGUF file", "give it by its Hugging Face id"
        )
    for layer in layers:
        if str(layer.get("mediaType", "")).partition(";")[0] == MODEL:
            return _blob(root, str(layer.get("digest", "")), name)
    raise UnsupportedModel(
        f"ollama:{name} has no weights: it runs on another machine",
        "choose another: infllm models list",
    )


def _blob(root: Path, digest: str, name: str) -> Path:
    found = DIGEST.fullmatch(digest)
    if found is None:
        raise ModelFileError(f"ollama:{name} names no file", "get the model again: ollama pull")
    path = root / "blobs" / f"sha256-{found[1]}"
    older = root / "blobs" / f"sha256:{found[1]}"
    if not path.is_file() and older.is_file():
        return older
    if not path.is_file():
        raise ModelFileError(
            f"ollama:{name} is not whole: {path.name[:19]}... is missing",
            f"get the model again: ollama pull {name}",
        )
    return path


def models_of_ollama() -> Iterator[Held]:
    """All models whose weights are here as a GGUF file."""
    told: set[str] = set()
    for root in roots():
        manifests = root / "manifests"
        for manifest in sorted(path for path in manifests.rglob("*") if path.is_file()):
            parts = manifest.relative_to(manifests).parts
            if len(parts) != 4:
                continue
            name = _short_name(parts)
            if name in told:
                continue
            try:
                path = _model_blob(manifest, root, name)
            except (ModelNotFound, UnsupportedModel):  # to be told when it is asked for
                continue
            told.add(name)
            yield Held(name, path)


def _short_name(parts: tuple[str, ...]) -> str:
    host, namespace, model, tag = parts
    if host == REGISTRY:
        return f"{model}:{tag}" if namespace == LIBRARY else f"{namespace}/{model}:{tag}"
    return f"{host}/{namespace}/{model}:{tag}"
