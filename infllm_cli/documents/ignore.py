"""Which files git would leave out: those that a pattern matches, unless they are tracked."""

from __future__ import annotations

import os
from dataclasses import dataclass

from infllm.cli.documents.git import Repository, repository_at, root_around
from infllm.cli.documents.limits import MIB
from infllm.cli.documents.wildmatch import IgnorePattern, parse_pattern

IGNORE_BYTES = 1 * MIB  # an ignore file is short; a longer one is not read


@dataclass(frozen=True)
class IgnoreRules:
    """What holds in a folder: patterns, outermost first, as (folder they are relative to,
    patterns), and the repository whose index goes before them.

    ``all``: the folder itself is ignored, and only what is tracked counts in it.
    """

    levels: tuple[tuple[str, list[IgnorePattern]], ...] = ()
    repository: Repository | None = None
    all: bool = False

    @classmethod
    def above(cls, folder: str) -> IgnoreRules:
        """Rules that hold at ``folder`` from the repository it lies in, its own not included."""
        folder = os.path.realpath(folder)
        root = root_around(folder)
        if root is None:
            return cls()
        rules = cls()
        current = root
        for name in ["", *os.path.relpath(folder, root).split(os.sep)]:
            current = os.path.normpath(os.path.join(current, name))
            if current == folder:
                break
            rules = rules.enter(current, named=True)
        return rules

    def enter(self, folder: str, *, named: bool = False) -> IgnoreRules:
        """Rules inside ``folder``, which is not ignored, or holds tracked files.

        A repository inside another begins with rules of its own: the user's ignore file and its
        own info/exclude, which give way to its .gitignore files. ``named``: by the user, who wants
        to read it whatever the rules around it say.
        """
        folder = os.path.realpath(folder)
        levels, repository = self.levels, self.repository
        inside = not named and (self.all or self._matches(folder, True))
        own = repository_at(folder)
        if own is not None:
            levels, repository, inside = (), own, False
            for path in own.exclude_files:
                patterns = _read(path)
                levels = (*levels, (folder, patterns)) if patterns else levels
        path = os.path.join(folder, ".gitignore")
        patterns = [] if os.path.islink(path) else _read(path)  # as in git: no link is followed
        levels = (*levels, (folder, patterns)) if patterns else levels
        return IgnoreRules(levels, repository, inside)

    def ignores(self, path: str, is_folder: bool) -> bool:
        """Whether git leaves out ``path`` (absolute, links resolved); a folder is left out with
        all that is in it. Tracked files and submodules never are."""
        if not (self.all or self._matches(path, is_folder)):
            return False
        if self.repository is None:
            return True
        name = os.fsencode(os.path.relpath(path, self.repository.root))
        tracked = self.repository.tracked
        if is_folder:
            return name not in tracked.folders and name not in tracked.submodules
        return name not in tracked.files

    def _matches(self, path: str, is_folder: bool) -> bool:
        """By the last pattern that matches; inner files go before outer ones."""
        for folder, patterns in reversed(self.levels):
            names = os.fsencode(os.path.relpath(path, folder)).split(os.fsencode(os.sep))
            for pattern in reversed(patterns):
                if pattern.matches(names, is_folder):
                    return not pattern.negated
        return False


def _read(path: str) -> list[IgnorePattern]:
    """Patterns of an ignore file; none where there is none."""
    if not os.path.isfile(path):
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
