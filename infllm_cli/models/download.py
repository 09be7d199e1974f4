"""Models fetched from the Hugging Face hub: said before, resumed, and checked by their digests."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infllm.cli.errors import InfllmError, ModelMissing, UsageError
from infllm.cli.output import Output
from infllm.cli.progress import Spinner
from infllm.cli.text import plural, size

# What a model needs; other formats of the same weights are left on the hub.
WANTED = (".json", ".safetensors", ".model", ".txt", ".jinja", ".tiktoken")
UNWANTED = ("onnx/", "openvino/", "original/", "runs/", "coreml/")


@dataclass(frozen=True)
class Target:
    """A repository of the hub, or one GGUF file (or set of parts) of it."""

    repo: str
    file: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository. `sha256` is None for a small one, which has none on the hub."""

    name: str
    bytes: int
    sha256: str | None


def target_of(name: str) -> Target:
    """What of the hub a preset's name, a hub id or `hf:ORG/REPO:FILE.gguf` means.

    Raises UsageError for anything else.
    """
    from infllm import presets
    from infllm.cli.models.shelf import preset_alone
    from infllm.engine.config import HUB_ID

    revision = None
    if name in presets.names():
        config = preset_alone(name)
        name, revision = config.model.path, config.model.revision
        if Path(name).is_dir():
            raise UsageError("that model is built in", "nothing is to be fetched")
    repo, colon, file = name.removeprefix("hf:").partition(":")
    if HUB_ID.fullmatch(repo) and bool(colon) == bool(file):
        return Target(repo, file or None, revision)
    near = presets.suggestions(name)
    raise UsageError(
        f"{name!r} is neither a preset nor a hub id",
        f"did you mean {near[0]!r}?" if near else "see: infllm models list",
    )


def fetch_model(target: Target, out: Output, offline: bool = False) -> dict[str, Any]:
    """Fetch what of `target` is not here, and check it.

    Raises:
        ModelMissing: the network may not be used, or does not answer, or there is no such model.
        InfllmError: not enough room, or a file that came is not the one that is there.
    """
    from infllm.engine.sources import is_offline

    if offline or is_offline():
        raise ModelMissing(
            f"{target.repo} would be fetched, and the network may not be used",
            "leave out --offline, and unset HF_HUB_OFFLINE",
        )
    from huggingface_hub import constants

    revision, files = _wanted(target)
    missing = [f for f in files if _cached(target.repo, f.name, revision) is None]
    total = sum(file.bytes for file in missing)
    where = Path(constants.HF_HUB_CACHE)
    _need_room(where, total)
    if missing:
        out.note(f"fetching {plural(len(missing), 'file')}, {size(total)}, into {where}")
    else:
        out.note(f"{target.repo} is here already")
    paths = []
    for file in files:
        out.detail(f"{file.name}, {size(file.bytes)}")
        path = _fetched(target.repo, file, revision)
        if file in missing and file.sha256 is not None:
            _check(path, file, target.repo, out)
        paths.append(path)
    return {
        "model": target.repo,
        "file": target.file,
        "revision": revision,
        "bytes": sum(file.bytes for file in files),
        "bytes_fetched": total,
        "path": str(paths[0] if target.file else paths[0].parent),
    }


def _wanted(target: Target) -> tuple[str, list[RemoteFile]]:
    """Revision and files; raises ModelMissing, UsageError."""
    from huggingface_hub import HfApi

    with _hub_errors(target.repo):
        info: Any = HfApi().repo_info(target.repo, revision=target.revision, files_metadata=True)
    there = [
        RemoteFile(
            sibling.rfilename,
            sibling.size or 0,
            getattr(sibling.lfs, "sha256", None) if sibling.lfs else None,
        )
        for sibling in info.siblings or []
    ]
    revision = str(info.sha)
    if target.file is not None:
        return revision, _gguf_files(target, there)
    wanted = [file for file in there if _is_wanted(file.name)]
    if not any(file.name.endswith(".safetensors") for file in wanted):
        ggufs = [file.name for file in there if file.name.lower().endswith(".gguf")]
        if ggufs:
            shown = ", ".join(ggufs[:8])
            raise UsageError(
                f"{target.repo} holds GGUF files: name one of them",
                f"for example: infllm models get hf:{target.repo}:{ggufs[0]} (there are: {shown})",
            )
        raise ModelMissing(
            f"{target.repo} holds no safetensors", "choose a model that has them, or a GGUF file"
        )
    return revision, wanted


def _is_wanted(name: str) -> bool:
    if name.startswith(UNWANTED) or "training_args" in name:
        return False
    return name.endswith(WANTED) and not name.endswith(".index.json.bak")


def _gguf_files(target: Target, there: Sequence[RemoteFile]) -> list[RemoteFile]:
    from infllm.engine.sources import parts_of_name

    assert target.file is not None
    known = {file.name: file for file in there}
    names = parts_of_name(target.file)
    absent = [name for name in names if name not in known]
    if absent:
        ggufs = ", ".join(name for name in known if name.lower().endswith(".gguf"))
        raise ModelMissing(
            f"{target.repo} has no file {absent[0]}", f"there are: {ggufs or 'no GGUF files'}"
        )
    return [known[name] for name in names]


def _cached(repo: str, name: str, revision: str) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, name, revision=revision)
    return found if isinstance(found, str) else None


def _fetched(repo: str, file: RemoteFile, revision: str) -> Path:
    """The hub's library goes on where a broken download ended."""
    from huggingface_hub import hf_hub_download

    with _hub_errors(repo):
        return Path(hf_hub_download(repo, file.name, revision=revision))


def _check(path: Path, file: RemoteFile, repo: str, out: Output) -> None:
    """Raises InfllmError, and removes the file, where its digest is not the hub's."""
    from infllm.engine.sources import sha256_of

    with Spinner(out, f"checking {file.name}"):
        same = sha256_of(path) == file.sha256
    if same:
        return
    real = path.resolve()
    path.unlink(missing_ok=True)
    real.unlink(missing_ok=True)
    raise InfllmError(
        f"{file.name} of {repo} came damaged: its checksum is not the hub's",
        "it was removed: run the same command again",
    )


def _need_room(where: Path, nbytes: int) -> None:
    there = where
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if nbytes > free:
        raise InfllmError(
            f"the model takes {size(nbytes)}, and {size(free)} are free in {where}",
            "free some, or name another place with HF_HOME",
        )


@contextmanager
def _hub_errors(repo: str) -> Iterator[None]:
    """Turns what goes wrong with the hub into a ModelMissing that says so."""
    from huggingface_hub import errors

    from infllm.engine.sources import first_line, network_errors

    try:
        yield
    except Exception as error:
        if isinstance(error, errors.GatedRepoError):
            raise ModelMissing(
                f"{repo} asks that its licence be accepted first",
                "accept it on its page of the hub, then log in with: hf auth login",
            ) from error
        if isinstance(error, (errors.RepositoryNotFoundError, errors.RevisionNotFoundError)):
            raise ModelMissing(
                f"the hub has no model {repo}", "check the name; for private ones: hf auth login"
            ) from error
        if isinstance(error, network_errors()):
            raise ModelMissing(
                f"{repo} cannot be fetched: {first_line(error)}",
                "check that the network is there; what has come stays, and the next try goes on",
            ) from error
        raise


def remove_from_hub(repo: str) -> int:
    """Remove a repository from the hub's cache; gives the bytes freed. 0 where it is not there."""
    from huggingface_hub import constants, scan_cache_dir

    if not Path(constants.HF_HUB_CACHE).is_dir():
        return 0
    cache = scan_cache_dir(constants.HF_HUB_CACHE)
    for held in cache.repos:
        if held.repo_id == repo and held.repo_type == "model":
            strategy = cache.delete_revisions(*(r.commit_hash for r in held.revisions))
            paths = [path for path in held.repo_path.rglob("*") if not path.is_symlink()]
            freed = sum(path.stat().st_size for path in paths if path.is_file())
            strategy.execute()
            return freed
    return 0


def allow_bars(out: Output) -> None:
    """Before the hub's library is imported: its bars, if there is a terminal for them."""
    if not out.live:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
