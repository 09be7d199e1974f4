"""What models are on this machine, and whether they fit it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from infllm.cli.progress import available_memory_bytes

BUILT_IN, HUB, OLLAMA, LM_STUDIO, NOWHERE = "built in", "hub cache", "Ollama", "LM Studio", ""


@dataclass(frozen=True)
class Row:
    """A model. `name` is what --preset or --model takes; `place` is empty where it is not here.

    `bytes` on the disk; `trained` in tokens; `kv_bytes` a token, of layers that keep all of them;
    `fits`: weights and a window in the memory that is free now. None where it is not known.
    `problem`: why it cannot be used.
    """

    name: str
    place: str
    path: str
    bytes: int | None = None
    license: str = ""
    trained: int | None = None
    kv_bytes: int | None = None
    needs_bytes: int | None = None
    fits: bool | None = None
    problem: str = ""

    @property
    def fields(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "here": bool(self.place),
            "place": self.place or None,
            "path": self.path,
            "bytes": self.bytes,
            "license": self.license or None,
            "trained_tokens": self.trained,
            "kv_bytes_per_token": self.kv_bytes,
            "memory_bytes": self.needs_bytes,
            "fits": self.fits,
            "problem": self.problem or None,
        }


def rows() -> Iterator[Row]:
    """Presets, then what else is here: of the hub, of Ollama, of LM Studio."""
    from infllm.engine.sources import models_of_hub, models_of_lmstudio, models_of_ollama

    on_hub = {held.name: held for held in models_of_hub()}
    named = set()
    for name in _preset_names():
        row = _of_preset(name, on_hub)
        named.add(row.path)
        yield row
    for held in on_hub.values():
        if held.folder is not None and held.name not in named:
            yield _of_config(held.name, HUB, held.name, held.bytes, _card_license(held.folder))
        for file in held.files:
            yield _of_gguf(f"hf:{held.name}:{_name_in(file)}", HUB, file)
    for model in models_of_ollama():
        yield _of_gguf(f"ollama:{model.name}", OLLAMA, model.path)
    for model in models_of_lmstudio():
        yield _of_gguf(f"lmstudio:{model.name}", LM_STUDIO, model.path)


def _preset_names() -> list[str]:
    from infllm import presets

    return presets.names()


def preset_alone(name: str) -> Any:
    """A preset's configuration without what this user, folder or environment says."""
    from infllm.engine.config import load_config

    nowhere = Path("/nonexistent")
    return load_config(name, environ={}, project=nowhere, user=nowhere)


def _of_preset(name: str, on_hub: dict[str, Any]) -> Row:
    config = preset_alone(name)
    path = config.model.path
    if Path(path).is_dir():
        held = sum(file.stat().st_size for file in Path(path).iterdir() if file.is_file())
        return _of_config(name, BUILT_IN, path, held, config.license)
    if path in on_hub and on_hub[path].folder is not None:
        return _of_config(name, HUB, path, on_hub[path].bytes, config.license)
    return Row(name, NOWHERE, path, license=config.license)


def _name_in(file: Path) -> str:
    """A file's name within its repository: what follows snapshots/REVISION/."""
    parts = file.parts
    return "/".join(parts[parts.index("snapshots") + 2 :]) if "snapshots" in parts else file.name


def _of_gguf(name: str, place: str, path: Path) -> Row:
    from infllm.engine.errors import EngineError
    from infllm.engine.sources import read_gguf

    try:
        file = read_gguf(path)
        license = str(file.metadata.get("general.license") or "")
        return _of_config(name, place, str(path), file.nbytes, license)
    except EngineError as error:
        size = path.stat().st_size if path.is_file() else None
        return Row(name, place, str(path), size, problem=error.message)


def _of_config(name: str, place: str, path: str, held: int, license: str) -> Row:
    from infllm.engine.config import read_model_config, trained_length
    from infllm.engine.errors import EngineError

    try:
        spec = read_model_config(path)
    except EngineError as error:
        return Row(name, place, path, held, license, problem=error.message)
    if spec is None:
        return Row(name, place, path, held, license)
    kv, needs = _sizes(spec)
    room = _room()
    fits = None if needs is None or room is None else needs <= room
    return Row(name, place, path, held, license, trained_length(spec), kv, needs, fits)


def _sizes(spec: dict[str, Any]) -> tuple[int | None, int | None]:
    """KV bytes a token, and bytes of weights with a window, in this machine's dtype."""
    from infllm.cli.estimate import layer_shapes
    from infllm.cli.work import parameters
    from infllm.engine.config import trained_length

    spec = spec.get("text_config") or spec
    try:
        shapes = layer_shapes(spec, *_device())
        stored = parameters(spec, shapes).stored
    except (KeyError, TypeError, ZeroDivisionError):  # a config of another form than a decoder's
        return None, None
    itemsize = shapes[0].dtype.itemsize
    kv = [2 * s.n_kv_heads * s.head_dim * itemsize for s in shapes if s.sliding_window is None]
    window = min(4096, trained_length(spec) or 4096)
    return sum(kv), stored * itemsize + 2 * window * sum(kv)


@cache
def _device() -> tuple[str, int]:
    """Kind of the device that a run would take, and bytes of a number there."""
    from infllm.engine.config import device_name, dtype_name

    kind = device_name("auto").partition(":")[0]
    return kind, 4 if dtype_name("auto", kind) == "float32" else 2


@cache
def _room() -> int | None:
    """Bytes that a model may take now."""
    if _device()[0] == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    return available_memory_bytes()


def _card_license(folder: Path) -> str:
    """What the model card in a folder says of the licence."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")[:4000]
    except OSError:
        return ""
    found = re.search(r"^license:\s*([\w.-]+)", text, re.MULTILINE)
    return found[1] if found and text.startswith("---") else ""
