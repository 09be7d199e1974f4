"""What results depend on, told beside them; results of another making are never mixed in."""

import hashlib
import os
import platform
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from infllm.cli.bench.results import FORMAT
from infllm.cli.errors import UsageError

if TYPE_CHECKING:
    from infllm.cli.bench.suites import Task
    from infllm.engine import Engine

PACKAGES = ("infllm", "torch", "transformers", "tokenizers")
# Told for the reader: the same model may be named in several ways.
NOT_COMPARED = ("preset",)


def describe_engine(engine: "Engine") -> dict[str, Any]:
    """What answers depend on: model, tokenizer, settings, device and versions.

    The policy is left out: each has a folder of its own.
    """
    from infllm.engine.files import settings_key

    config = engine.config
    settings = settings_key(config.model, config.chunk_size, engine.dtype)
    settings.pop("model.type")
    settings |= {"max_len": config.max_len, "truncation": config.truncation}
    settings |= {"conv_type": config.conv_type, "chat_template": config.chat_template}
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "device": engine.device.type,
        **engine.digests,
        "settings": settings,
    }


def describe_task(task: "Task", files: Sequence[Path]) -> dict[str, Any]:
    """A task's version, the digest of what its YAML asks, and digests of its data files."""
    definition = task.model_dump_json(exclude={"published", "title", "source"}).encode()
    return {
        "version": task.version,
        "definition": hashlib.sha256(definition).hexdigest(),
        "data": {name: _file_digest(path) for name, path in _named(files).items()},
    }


def _named(files: Sequence[Path]) -> dict[str, Path]:
    """Files by what tells them apart and says nothing of where they lie."""
    if len({path.name for path in files}) == len(files):
        return {path.name: path for path in files}
    common = os.path.commonpath([path.parent for path in files])
    return {path.relative_to(common).as_posix(): path for path in files}


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_manifest(
    preset: str,
    engine: Mapping[str, Any],
    seed: int,
    official: bool,
    tasks: Mapping[str, Any],
    readers: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """The manifest of a run, in a fixed order and without times or places.

    `readers`: of those that are used, what their answers depend on.
    """
    return {
        "format": FORMAT,
        "preset": preset,
        "seed": seed,
        "scoring": "official" if official else "corrected",
        **engine,
        "tasks": dict(sorted(tasks.items())),
        **({"readers": dict(sorted(readers.items()))} if readers else {}),
    }


def merge_manifest(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The old manifest with the new one's tasks and readers added.

    Raises:
        UsageError: they differ in what results depend on; names each difference.
    """
    then, now, merged = {**old}, {**new}, {**old}
    for part in ("tasks", "readers"):
        before, after = old.get(part, {}), new.get(part, {})
        shared = before.keys() & after.keys()
        then[part] = {name: before[name] for name in shared}
        now[part] = {name: after[name] for name in shared}
        if before or after:
            merged[part] = dict(sorted({**before, **after}.items()))
    changed = differences(then, now, NOT_COMPARED)
    if changed:
        raise UsageError(
            f"the results in {folder} were made otherwise: {', '.join(changed)}",
            "run as they were made, name another --output, or begin anew with --restart",
        )
    return merged


def differences(
    then: Mapping[str, Any], now: Mapping[str, Any], not_compared: Collection[str] = ()
) -> list[str]:
    """What differs between two descriptions, in words, by the keys on the way to it."""
    old, new = _flat(then), _flat(now)
    return [
        f"{key} {_short(old.get(key))} (now {_short(new.get(key))})"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key) and key not in not_compared
    ]


def _flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in fields.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}/")
        else:
            flat[prefix + key] = value
    return flat


def _short(value: Any) -> str:
    text = str(value)
    digest = len(text) == 64 and not set(text) - set("0123456789abcdef")
    return text[:12] if digest else text
