"""Which files git would ignore."""

from __future__ import annotations

import os
from dataclasses import dataclass

from infllm.cli.documents.limits import MIB
from infllm.cli.documents.wildmatch import IgnorePattern, parse_pattern

IGNORE_BYTES = 1 * MIB  # an ignore file is short; a longer one is not read


@dataclass(frozen=True)
class IgnoreRules:
    """Patterns that hold in a folder, outermost first: (folder they are relative to, patterns)."""

    levels: tuple[tuple[str, list[IgnorePattern]], ...] = ()

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
            patterns = _read(os.path.join(folder, name))
            if patterns:
                levels = (*levels, (folder, patterns))
        return IgnoreRules(levels)

    def ignores(self, path: str, is_folder: bool) -> bool:
        """Whether git ignores ``path`` (absolute, links resolved), inside folders not ignored.

        The last pattern that matches decides, and inner files go before outer ones.
        """
        for folder, patterns in reversed(self.levels):
            names = os.fsencode(os.path.relpath(path, folder)).split(os.fsencode(os.sep))
            for pattern in reversed(patterns):
                if pattern.matches(names, is_folder):
                    return not pattern.negated
        return False


def _repository(folder: str) -> str | None:
    while True:
        if os.path.exists(os.path.join(folder, ".git")):
            return folder
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent


def _read(path: str) -> list[IgnorePattern]:
    """Patterns of an ignore file; none where there is none. As in git, a link is not followed."""
    if os.path.islink(path) or not os.path.isfile(path):
        return []
    try:
        with open(path, "rb") as file:
            data = file.read(IGNORE_BYTES + 1)
    except OSError:
        return []
    if len(data) > IGNORE_BYTES:
        return []
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return [pattern for pattern in map(parse_pattern, lines) if pattern is not None]
