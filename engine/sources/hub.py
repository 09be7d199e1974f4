"""GGUF files of the Hugging Face hub, and what of the hub is on this machine."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from infllm.engine.errors import ModelNotFound
from infllm.engine.sources.gguf_file import PART, SUFFIX


@dataclass(frozen=True)
class Held:
    """A repository in the hub's cache. `files`: the GGUF models in it; `folder`: of one revision,
    None where the repository holds no model that transformers loads."""

    name: str
    bytes: int
    folder: Path | None
    files: tuple[Path, ...]


def is_offline() -> bool:
    """Whether the network may not be used."""
    return os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")


def find(name: str, *, fetch: bool = True) -> Path | None:
    """The file of ORG/REPO:FILE.gguf, from the hub's cache or, with `fetch`, from the hub.

    Raises ModelNotFound: no such name, or not here and not to be had.
    """
    repo, colon, file = name.partition(":")
    if not colon or repo.count("/") != 1 or not file.lower().endswith(SUFFIX):
        raise ModelNotFound(
            f"hf:{name} is not ORG/REPO:FILE.gguf",
            "write for example hf:ggml-org/gemma-3-270m-GGUF:gemma-3-270m-Q8_0.gguf",
        )
    found = [_fetched(repo, part, fetch) for part in parts_of_name(file)]
    return None if None in found else found[0]


def parts_of_name(file: str) -> list[str]:
    """All files of the set that a name belongs to."""
    part = PART.fullmatch(file)
    if part is None:
        return [file]
    total, suffix = int(part["parts"]), file[-len(SUFFIX) :]
    return [f"{part['stem']}-{i:05d}-of-{total:05d}{suffix}" for i in range(1, total + 1)]


def _fetched(repo: str, file: str, fetch: bool) -> Path | None:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(repo, file)
    if isinstance(cached, str):
        return Path(cached)
    if not fetch:
        return None
    if is_offline():
        raise ModelNotFound(
            f"hf:{repo}:{file} is not on this machine, and the network may not be used",
            "run once without --offline to download it",
        )
    try:
        return Path(hf_hub_download(repo, file))
    except Exception as error:
        if not isinstance(error, (ValueError, *network_errors())):
            raise
        raise ModelNotFound(
            f"hf:{repo}:{file} cannot be had: {first_line(error)}",
            "check the name, and that the network is there",
        ) from error


def network_errors() -> tuple[type[Exception], ...]:
    """What the hub's library raises when something is wrong with the network or the hub.

    It has changed the library it speaks HTTP with, and lets that one's errors through.
    """
    from huggingface_hub.errors import HfHubHTTPError

    ours = ("builtins", "huggingface_hub")
    theirs = [kind for kind in HfHubHTTPError.__mro__ if kind.__module__.split(".")[0] not in ours]
    return (OSError, HfHubHTTPError, *theirs)


def first_line(error: Exception) -> str:
    """The first line of an error's text that says something."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def models_of_hub() -> Iterator[Held]:
    """The repositories in the hub's cache that hold a language model."""
    from huggingface_hub import constants, scan_cache_dir

    if not Path(constants.HF_HUB_CACHE).is_dir():
        return
    cache = scan_cache_dir(constants.HF_HUB_CACHE)
    for repo in sorted(cache.repos, key=lambda repo: repo.repo_id):
        if repo.repo_type != "model" or not repo.revisions:
            continue
        newest = max(repo.revisions, key=lambda revision: revision.last_modified)
        names = {file.file_name: file.file_path for file in newest.files}
        weights = any(name.endswith(".safetensors") for name in names)
        folder = newest.snapshot_path if weights and "config.json" in names else None
        files = tuple(path for name, path in sorted(names.items()) if _is_model(name))
        if folder is not None or files:
            yield Held(repo.repo_id, repo.size_on_disk, folder, files)


def _is_model(name: str) -> bool:
    from infllm.engine.sources.lmstudio import is_model_name

    return name.lower().endswith(SUFFIX) and is_model_name(name)
