"""Preset model configurations (YAML) and the built-in model."""

from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

# The package is installed unpacked (weights are memory-mapped), so its resources are plain files.
FOLDER = Path(str(files(__package__ or "infllm.presets")))


def names() -> list[str]:
    """All preset names, sorted, the default `pocket` first."""
    found = sorted(entry.stem for entry in FOLDER.glob("*.yaml"))
    return sorted(found, key=lambda name: name != "pocket")


def path(name: str) -> Path:
    """The YAML file of preset `name`; KeyError with near matches when there is none."""
    if name not in names():
        near = suggestions(name)
        raise KeyError(f"no preset {name!r}" + (f"; near: {', '.join(near)}" if near else ""))
    return FOLDER / f"{name}.yaml"


def text(name: str) -> str:
    """The YAML text of preset `name`; KeyError as for `path`."""
    return path(name).read_text(encoding="utf-8")


def suggestions(name: str) -> list[str]:
    """Up to three preset names that resemble `name`, best first."""
    lowered = name.lower()
    near = get_close_matches(lowered, names(), n=3, cutoff=0.6)
    return near or [known for known in names() if lowered and lowered in known][:3]


def builtin(name: str) -> Path:
    """The folder of the built-in model `name` (config, weights, tokenizer)."""
    return FOLDER / name
