"""A suite's files from the Hugging Face hub: at one revision, with their sums checked."""

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from infllm.cli.bench.suites import Hub, suite, suites
from infllm.cli.errors import InfllmError, ModelMissing, UsageError

RECORD = "fetched.json"
PIECE = 1 << 20


@dataclass(frozen=True)
class Remote:
    """A file of a repository; `sum` is its SHA-256, or git's SHA-1 where it is a small one."""

    name: str
    bytes: int
    sum: str
    kind: str  # "sha256" or "git"


def fetch_suite(name: str, data: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    """Files of a suite into `data`/NAME; those that are there with the right sum are kept.

    Gives what was fetched: repository, revision, files with their sums. `tell` hears of each step.

    Raises:
        UsageError: the suite's samples are generated. ModelMissing: the hub cannot be reached;
        says which files to put where. InfllmError: a file came with a wrong sum.
    """
    hub = suite(name).hub
    if hub is None:
        raise UsageError(
            f"{name} has no files to fetch: its samples are generated",
            f"infllm bench run {name} --len 4K,64K",
        )
    folder = data / name
    with _reaching(name, hub, folder):
        revision, files = _look_up(hub)
    if hub.revision is None:
        tell(f"{hub.repository}: no revision is known beforehand; pinned to {revision}")
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        path = folder / file.name
        if path.is_file() and _right(path, file):
            tell(f"{file.name} is there")
        else:
            tell(f"fetching {file.name}")
            with _reaching(name, hub, folder):
                _download(hub.repository, revision, file.name, folder)
            if not _right(path, file):
                path.unlink()
                raise InfllmError(
                    f"{file.name} of {hub.repository} came with a wrong checksum",
                    "run the same command again; if it stays so, the hub's copy is damaged",
                )
        if path.suffix == ".zip":
            for member in _unpack(path, folder):
                tell(f"unpacked {member}")
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the hub client's notes
    record = {
        "repository": hub.repository,
        "revision": revision,
        "files": {file.name: {"bytes": file.bytes, file.kind: file.sum} for file in files},
    }
    _write(folder / RECORD, record)
    return record


def places(name: str, folder: Path) -> str:
    """Which files to put where by hand, in one sentence."""
    hub = suite(name).hub
    assert hub is not None
    named = [task.data.files[0] for task in suites()[name].values() if task.data is not None]
    revision = f" at revision {hub.revision}" if hub.revision else ""
    return (
        f"from a machine that is online, put these into {folder}: {', '.join(named)} "
        f"(data set {hub.repository} on the Hugging Face hub{revision})"
    )


@contextmanager
def _reaching(name: str, hub: Hub, folder: Path) -> Iterator[None]:
    """Turns what can go wrong between here and the hub into errors of ours.

    Raises:
        ModelMissing: not reached, or not allowed to.
    """
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    # The base of all errors of the HTTP client, whichever this version of the hub's library has.
    http_error: type[Exception] = HfHubHTTPError.__mro__[1]
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise ModelMissing(
            f"{name}: its files are not here, and the network may not be used",
            places(name, folder),
        ) from error
    except HfHubHTTPError as error:
        raise ModelMissing(
            f"{name}: the hub does not give {hub.repository}: {error}", places(name, folder)
        ) from error
    except (http_error, ConnectionError, TimeoutError) as error:
        raise ModelMissing(
            f"{name}: the Hugging Face hub cannot be reached: {error}", places(name, folder)
        ) from error


def _look_up(hub: Hub) -> tuple[str, list[Remote]]:
    """The commit and the wanted files, by what the hub says of them.

    Raises:
        InfllmError: the repository has none of them, or one differs from the sum known here.
    """
    from huggingface_hub import HfApi

    info = HfApi().dataset_info(hub.repository, revision=hub.revision, files_metadata=True)
    files = []
    for sibling in info.siblings or []:
        name = sibling.rfilename
        if not any(fnmatch(name, pattern) for pattern in hub.files):
            continue
        if sibling.lfs is not None:
            remote = Remote(name, sibling.lfs.size, sibling.lfs.sha256, "sha256")
        else:
            remote = Remote(name, sibling.size or 0, sibling.blob_id or "", "git")
        known = hub.sha256.get(name)
        if known is not None and remote.kind == "sha256" and remote.sum != known:
            raise InfllmError(f"{name} of {hub.repository} is not the file known here: {known}")
        files.append(remote)
    if not files:
        raise InfllmError(f"{hub.repository} has no file like {', '.join(hub.files)}")
    return str(info.sha), files


def _download(repository: str, revision: str, name: str, folder: Path) -> None:
    from huggingface_hub import hf_hub_download

    hf_hub_download(
        repository, name, repo_type="dataset", revision=revision, local_dir=folder,
        force_download=(folder / name).exists(),
    )  # fmt: skip


def _right(path: Path, file: Remote) -> bool:
    """Whether a file has the sum that the hub gives, by content."""
    if path.stat().st_size != file.bytes:
        return False
    digest = hashlib.sha256() if file.kind == "sha256" else hashlib.sha1(usedforsecurity=False)
    if file.kind == "git":
        digest.update(b"blob %d\0" % file.bytes)
    with path.open("rb") as stream:
        while piece := stream.read(PIECE):
            digest.update(piece)
    return digest.hexdigest() == file.sum


def _unpack(archive: Path, folder: Path) -> Iterator[str]:
    """The data files of an archive, by their own names, into `folder`.

    Raises:
        InfllmError: it is no whole archive.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in opened.infolist():
                name = PurePosixPath(member.filename).name
                if member.is_dir() or not name.endswith((".jsonl", ".json", ".parquet")):
                    continue
                path = folder / name
                if path.is_file() and path.stat().st_size == member.file_size:
                    continue
                part = path.with_name(f"{name}.part")
                with opened.open(member) as source, part.open("wb") as target:
                    shutil.copyfileobj(source, target, PIECE)
                os.replace(part, path)
                yield name
    except zipfile.BadZipFile as error:
        raise InfllmError(f"{archive}: {error}", "remove it and fetch again") from error


def _write(path: Path, record: dict[str, Any]) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)
