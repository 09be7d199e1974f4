"""Folders and source repositories: which of their files are worth reading, and why not the rest."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

from infllm.cli.documents.archive import folder_bytes, is_unpacked_book
from infllm.cli.documents.document import Skipped
from infllm.cli.documents.errors import LimitExceeded, Unreadable
from infllm.cli.documents.git import is_git_folder
from infllm.cli.documents.ignore import IgnoreRules
from infllm.cli.documents.limits import Limits
from infllm.cli.documents.words import words
from infllm.engine.files import MANIFEST, OURS

VERSION_CONTROL = frozenset({".git", ".hg", ".svn", ".jj", ".bzr"})
# Folders of other people's or machine-made files, commonly left out of .gitignore in bare copies.
MACHINE_MADE = frozenset(
    {"node_modules", "__pycache__", ".tox", ".nox", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
)
LOCK_FILES = words(
    """package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml bun.lock bun.lockb deno.lock
    cargo.lock poetry.lock pdm.lock uv.lock pixi.lock pipfile.lock conda-lock.yml composer.lock
    gemfile.lock go.sum go.work.sum flake.lock mix.lock pubspec.lock podfile.lock cartfile.resolved
    package.resolved packages.lock.json project.assets.json gradle.lockfile paket.lock
    .terraform.lock.hcl elm-stuff"""
)
MINIFIED_NAME = re.compile(r"[.-]min\.(?:js|mjs|cjs|css)$|\.(?:js|css|mjs)\.map$", re.I)
MINIFIED_SUFFIXES = frozenset({".js", ".mjs", ".cjs", ".css"})
MINIFIED_LINE = 2000  # characters; hand-written lines are shorter
GENERATED_NAME = re.compile(
    r"_pb2(?:_grpc)?\.pyi?$|\.pb(?:\.gw)?\.(?:go|cc|h)$|\.g\.(?:dart|cs)$|\.designer\.cs$", re.I
)
# The marks that generators agree on, in a comment near the top.
GENERATED_MARK = re.compile(
    rb"@generated\b|code generated .{0,100}?do not edit|"
    rb"(?:auto-?generated|automatically generated|generated (?:by|from)).{0,200}?do not edit|"
    rb"do not edit.{0,200}?(?:auto-?generated|automatically generated|generated (?:by|from))",
    re.I | re.S,
)
GENERATED_BYTES = 1024
VANISHED = "deleted while the sources were read"
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class Found:
    """A file to read. ``source`` is its name for users; ``named`` if they gave it themselves."""

    path: str
    source: str
    bytes: int
    named: bool = False


def walk(folder: str, limits: Limits) -> Iterator[Found | Skipped]:
    """Files of a folder in order of their names, and what is left out, with the reason.

    What git would leave out is left out, links are not followed, and a file that vanishes
    meanwhile is told. Raises Unreadable and LimitExceeded.
    """
    # Entries on the stack: path, name for users, depth, rules that hold inside.
    stack: list[tuple[str, str, int, IgnoreRules]] = [
        (folder, folder, 0, IgnoreRules.above(folder))
    ]
    entries = 0
    while stack:
        path, shown, depth, rules = stack.pop()
        try:
            rules = rules.enter(path, named=depth == 0)
            with os.scandir(path) as scan:
                found = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            if depth == 0:
                raise Unreadable(f"{shown}: {error.strerror}", "Check its permissions.") from error
            yield Skipped(shown, _refused(error))
            continue
        entries += len(found)
        if entries > limits.files:
            raise LimitExceeded(
                f"{folder}: more than {limits.files} files and folders",
                "Give the folders inside it that matter.",
            )
        real = os.path.realpath(path)
        folders = []
        for entry in found:
            if entry.name in VERSION_CONTROL:  # a folder, or the file of a worktree or submodule
                continue
            source = os.path.normpath(os.path.join(shown, entry.name))
            try:
                reason = _reason(entry, real, rules)
                is_folder = not reason and entry.is_dir(follow_symlinks=False)
                size = entry.stat(follow_symlinks=False).st_size
            except OSError as error:
                yield Skipped(source, _refused(error))
                continue
            if reason:
                yield Skipped(source, reason)
            elif not is_folder:
                yield Found(entry.path, source, size)
            elif is_unpacked_book(entry.path):
                yield Found(entry.path, source, folder_bytes(entry.path))
            elif depth + 1 > limits.depth:
                yield Skipped(source, f"more than {limits.depth} folders deep")
            else:
                folders.append((entry.path, source, depth + 1, rules))
        stack.extend(reversed(folders))


def _refused(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):  # its name had been there
        return VANISHED
    return error.strerror or "cannot be read"


def _reason(entry: os.DirEntry[str], folder: str, rules: IgnoreRules) -> str | None:
    """Why an entry is left out, as far as its name and type tell."""
    is_folder = entry.is_dir(follow_symlinks=False)
    if entry.is_symlink():
        return "symbolic link"
    if not is_folder and not entry.is_file(follow_symlinks=False):
        return "not a regular file"
    if rules.ignores(os.path.join(folder, entry.name), is_folder):
        return "ignored by .gitignore"
    if is_folder:
        if entry.name in MACHINE_MADE or os.path.exists(os.path.join(entry.path, "pyvenv.cfg")):
            return "installed or machine-made files"
        if is_git_folder(entry.path):
            return "files of git's own"
        if is_memory(entry.path):
            return "a memory of documents"
        return None
    if entry.name.lower() in LOCK_FILES:
        return "lock file"
    if MINIFIED_NAME.search(entry.name):
        return "minified"
    if GENERATED_NAME.search(entry.name):
        return "generated"
    return None


def is_memory(path: str) -> bool:
    """Whether a path is a memory's folder, in whatever state: the names in it tell."""
    try:
        names = os.listdir(path)
    except (OSError, ValueError):
        return False
    return MANIFEST in names and any(OURS.fullmatch(name) for name in names)


def content_reason(head: bytes, name: str, kind: str, size: int, limits: Limits) -> str | None:
    """Why a file met in a folder is left out, as far as its first bytes tell."""
    if size == 0:
        return "empty"
    if head.startswith(LFS_POINTER):
        return "Git LFS pointer (run git lfs pull)"
    if kind == "code" and size > limits.code_bytes:
        return f"data or generated code of {size} bytes (name the file to read it)"
    if kind not in ("code", "text", "markdown", "rst", "html"):
        return None
    if GENERATED_MARK.search(head[:GENERATED_BYTES]):
        return "generated"
    if PurePath(name).suffix.lower() in MINIFIED_SUFFIXES and any(
        len(line) > MINIFIED_LINE for line in head.split(b"\n")
    ):
        return "minified"
    return None


def open_regular(path: str, source: str) -> tuple[int, os.stat_result]:
    """File descriptor and status of a regular file. Raises Unreadable.

    Opened without waiting: a named pipe would block until somebody writes to it.
    """
    try:
        descriptor = os.open(
            path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        )
    except OSError as error:
        raise Unreadable(f"{source}: {error.strerror}", "Check its permissions.") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise Unreadable(
            f"{source}: not a regular file", f"Pipe it in instead: cat {source} | infllm ask - ..."
        )
    return descriptor, status
