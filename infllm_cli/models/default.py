"""Which model is used where none is named: a line in the user's config.yaml."""

import os
import re
from pathlib import Path
from typing import Any

from infllm.cli.errors import InfllmError, UsageError


def set_default(name: str) -> Path:
    """Name `name`, a preset or what --model takes, in the user's file; gives the file.

    What else is in the file stays as it is, comments too, unless the file is written in a way that
    cannot be changed line by line: then the old one is kept beside it as config.yaml.bak.

    Raises:
        UsageError: no such model, or the file holds no settings.
    """
    import yaml

    from infllm.engine.config import user_file

    wanted = _wanted(name)
    path = user_file()
    if path is None:
        raise InfllmError(
            "this user has no home folder for settings", "set XDG_CONFIG_HOME to a folder"
        )
    old = path.read_text(encoding="utf-8-sig") if path.is_file() else ""
    try:
        settings = yaml.safe_load(old)
    except yaml.YAMLError as error:
        raise UsageError(
            f"{path} is not valid YAML: {' '.join(str(error).split())}", "mend or remove it"
        ) from error
    if settings is None:
        settings = {}
    if not isinstance(settings, dict):
        raise UsageError(f"{path}: settings are a mapping of keys to values", "mend or remove it")
    target = _changed(settings, wanted)
    text = _edited(old, wanted)
    try:
        kept = yaml.safe_load(text) == target
    except yaml.YAMLError:
        kept = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not kept:
            text = yaml.safe_dump(target, allow_unicode=True, sort_keys=False)
            path.with_name(f"{path.name}.bak").write_text(old, encoding="utf-8")
        _write(path, text)
    except OSError as error:
        raise InfllmError(
            f"cannot write {path}: {error.strerror or error}", "check the rights of its folder"
        ) from error
    return path


def _write(path: Path, text: str) -> None:
    """The whole file or nothing; a link stays a link, and rights stay as they are."""
    real = path.resolve()
    beside = real.with_name(f".{real.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        if real.exists():
            beside.chmod(real.stat().st_mode & 0o777)
        os.replace(beside, real)
    finally:
        beside.unlink(missing_ok=True)


def _wanted(name: str) -> tuple[str, str]:
    """`preset` or `model.path`, and its value. Raises UsageError for what names no model."""
    from infllm import presets
    from infllm.engine.config import load_config

    nowhere = Path("/nonexistent")
    config = load_config(name, environ={}, project=nowhere, user=nowhere)
    if name in presets.names():
        return "preset", name
    local = Path(name).expanduser()
    if local.suffix in (".yaml", ".yml"):
        raise UsageError(
            f"{name} is a file of settings, and the default is a preset or a model",
            f"name its model: infllm models use {config.model.path}",
        )
    return "model.path", str(local.resolve()) if local.exists() else name


def _changed(settings: dict[str, Any], wanted: tuple[str, str]) -> dict[str, Any]:
    """The settings with the model named, and nothing left that named another."""
    key, value = wanted
    found = {k: v for k, v in settings.items() if k != "preset"}
    section = found.get("model")
    if isinstance(section, dict):
        section = {k: v for k, v in section.items() if k not in _OF_A_MODEL}
        found["model"] = section
        if not section:
            del found["model"]
    if key == "preset":
        return {**found, "preset": value}
    return {**found, "model": {**(found.get("model") or {}), "path": value}}


_OF_A_MODEL = ("path", "tokenizer_path", "revision")


def _edited(old: str, wanted: tuple[str, str]) -> str:
    """The text with the lines that name a model replaced."""
    lines = [line for line in old.splitlines() if not re.match(r"preset\s*:", line)]
    kept: list[str] = []
    inside, head = False, None
    for line in lines:
        if re.match(r"\S", line) and not line.startswith("#"):
            inside = re.match(r"model\s*:\s*(#.*)?$", line) is not None
            if inside:
                head = len(kept)
        if inside and re.match(rf"\s+({'|'.join(_OF_A_MODEL)})\s*:", line):
            continue
        kept.append(line)
    key, value = wanted
    if key == "preset":
        kept.append(f"preset: {_quoted(value)}")
        if head is not None and not _has_children(kept, head):
            del kept[head]
    elif head is None:
        kept += ["model:", f"  path: {_quoted(value)}"]
    else:
        kept.insert(head + 1, f"{_indent(kept, head)}path: {_quoted(value)}")
    return "\n".join(kept) + "\n"


def _has_children(lines: list[str], head: int) -> bool:
    return head + 1 < len(lines) and re.match(r"\s+[^\s#]", lines[head + 1]) is not None


def _indent(lines: list[str], head: int) -> str:
    for line in lines[head + 1 :]:
        found = re.match(r"(\s+)[^\s#]", line)
        if found:
            return found[1]
        if re.match(r"\S", line) and not line.startswith("#"):
            break
    return "  "


def _quoted(value: str) -> str:
    """A YAML scalar on one line."""
    import yaml

    text = yaml.safe_dump(value, allow_unicode=True, default_flow_style=True, width=10**9)
    return text.splitlines()[0]


def current_default() -> tuple[str, str]:
    """What is used where nothing is named, and where that is said."""
    from infllm.engine.config import load_config

    config = load_config(None)
    origin = config.origins.get("model.path", "default")
    if origin.startswith("preset "):
        return origin.removeprefix("preset "), "preset"
    return config.model.path, origin
