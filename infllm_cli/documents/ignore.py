"""Which files git would ignore."""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass

from pathspec import GitIgnoreSpec

from infllm.cli.documents.limits import MIB

IGNORE_BYTES = 1 * MIB  # an ignore file is short; a longer one is not read


@dataclass(frozen=True)
class IgnoreRules:
    """Patterns that hold in a folder, outermost first: (folder they are relative to, patterns)."""

    levels: tuple[tuple[str, GitIgnoreSpec], ...] = ()

    @classmethod
    def above(cls, folder: str) -> IgnoreRules:
        """Rules that hold at ``folder`` from the repository it lies in, its own not included."""
        folder = os.path.realpath(folder)
        root = _repository(folder)
        if root is None:
            return cls()
        rules = cls()
        current = root
        for name in ["", *os.path.relpath(folder, root).split(os.sep)]:
            current = os.path.normpath(os.path.join(current, name))
            if current == folder:
                break
            rules = rules.enter(current)
        return rules

    def enter(self, folder: str) -> IgnoreRules:
        """Rules inside ``folder``: its .gitignore, and .git/info/exclude of a repository's root,
        which gives way to the .gitignore files."""
        folder = os.path.realpath(folder)
        levels = self.levels
        for name in (os.path.join(".git", "info", "exclude"), ".gitignore"):
            spec = _read(os.path.join(folder, name))
            if spec is not None:
                levels = (*levels, (folder, spec))
        return IgnoreRules(levels)

    def ignores(self, path: str, is_folder: bool) -> bool:
        """Whether git ignores ``path`` (absolute, links resolved), inside folders not ignored.

        The last pattern that matches decides, and inner files go before outer ones.
        """
        for folder, spec in reversed(self.levels):
            relative = posixpath.join(*os.path.relpath(path, folder).split(os.sep))
            verdict = spec.check_file(relative + "/" if is_folder else relative).include
            if verdict is not None:
                return verdict
        return False


def _repository(folder: str) -> str | None:
    while True:
        if os.path.exists(os.path.join(folder, ".git")):
            return folder
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent


def _read(path: str) -> GitIgnoreSpec | None:
    """Patterns of an ignore file; None where there is none. As in git, a link is not followed."""
    if os.path.islink(path) or not os.path.isfile(path):
        return None
    try:
        with open(path, "rb") as file:
            data = file.read(IGNORE_BYTES + 1)
    except OSError:
        return None
    if len(data) > IGNORE_BYTES:
        return None
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="surrogateescape")
    patterns = []
    for line in text.split("\n"):
        line = line.removesuffix("\r")
        try:
            GitIgnoreSpec.from_lines([line])
        except ValueError:
            continue  # git passes over a pattern that it cannot read
        patterns.append(line)
    return GitIgnoreSpec.from_lines(patterns)
