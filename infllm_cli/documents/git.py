"""Git repositories, as far as choosing files needs them: where they lie, what they track, and
where their patterns of files to ignore are.

git itself is not run: a repository's configuration may name programs that git would start.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property

from infllm.cli.documents.git_index import Tracked, read_index
from infllm.cli.documents.limits import KIB, MIB

POINTER_BYTES = 4 * KIB  # a .git file, or commondir: one path
CONFIG_BYTES = 1 * MIB
SECTION = re.compile(r"\[\s*([\w.-]+)\s*(?:\"((?:[^\"\\]|\\.)*)\"\s*)?\]")
SETTING = re.compile(r"([A-Za-z][\w-]*)\s*(?:=\s*(.*))?$", re.S)
ESCAPES = {"n": "\n", "t": "\t", "b": "\b", '"': '"', "\\": "\\"}


@dataclass(frozen=True)
class Repository:
    """A work tree. ``folder`` is what git calls GIT_DIR, ``common`` is shared by all its worktrees;
    all with links resolved."""

    root: str
    folder: str
    common: str

    @cached_property
    def tracked(self) -> Tracked:
        """What the index holds; nothing where there is none or it cannot be read."""
        return read_index(self.folder, self._hash_bytes)

    @property
    def exclude_files(self) -> list[str]:
        """Ignore files beside .gitignore, the one that gives way first."""
        return [*self._of_user, os.path.join(self.common, "info", "exclude")]

    @property
    def _of_user(self) -> list[str]:
        named = self._setting("core", "excludesfile")
        if named is None:
            base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
            return [os.path.join(base, "git", "ignore")]
        return [os.path.join(self.root, os.path.expanduser(named))] if named else []

    @property
    def _hash_bytes(self) -> int:
        return 32 if self._setting("extensions", "objectformat") == "sha256" else 20

    def _setting(self, section: str, name: str) -> str | None:
        """Of the user's and the repository's configuration, where the last word counts."""
        value = None
        for path in [*_user_configs(), os.path.join(self.common, "config")]:
            value = _read_config(path).get((section, name), value)
        return value


def repository_at(folder: str) -> Repository | None:
    """The repository whose work tree has its root at ``folder`` (links resolved)."""
    place = os.path.join(folder, ".git")
    if not os.path.lexists(place):
        return None
    if os.path.isfile(place):
        pointer = _read_line(place)
        if not pointer.startswith("gitdir: "):
            return None
        place = os.path.join(folder, pointer.removeprefix("gitdir: "))
    place = os.path.realpath(place)
    common = os.path.realpath(os.path.join(place, _read_line(os.path.join(place, "commondir"))))
    if not is_git_folder(place, common):
        return None
    return Repository(folder, place, common)


def is_git_folder(folder: str, common: str | None = None) -> bool:
    """Whether git's own files lie in ``folder``, as in a bare repository."""
    common = common or folder
    return (
        os.path.lexists(os.path.join(folder, "HEAD"))
        and os.path.isdir(os.path.join(common, "objects"))
        and os.path.isdir(os.path.join(common, "refs"))
    )


def root_around(folder: str) -> str | None:
    """Root of the work tree that ``folder`` lies in: of a repository, or, where there is none, what
    was one on another machine, since its ignore files still say what is not for reading."""
    likely = None
    while True:
        if repository_at(folder) is not None:
            return folder
        if likely is None and os.path.lexists(os.path.join(folder, ".git")):
            likely = folder
        parent = os.path.dirname(folder)
        if parent == folder:
            return likely
        folder = parent


def _read_line(path: str) -> str:
    """The first line of a short file; empty where there is none."""
    try:
        with open(path, "rb") as file:
            data = file.read(POINTER_BYTES)
    except OSError:
        return ""
    return os.fsdecode(data.split(b"\n")[0].rstrip(b"\r"))


def _user_configs() -> list[str]:
    files = []
    if os.environ.get("GIT_CONFIG_NOSYSTEM", "0").lower() in ("", "0", "false", "no", "off"):
        files.append(os.environ.get("GIT_CONFIG_SYSTEM") or "/etc/gitconfig")
    named = os.environ.get("GIT_CONFIG_GLOBAL")
    if named is not None:
        return [*files, named]
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return [*files, os.path.join(base, "git", "config"), os.path.expanduser("~/.gitconfig")]


def _read_config(path: str) -> dict[tuple[str, str], str]:
    """Settings of a configuration file by section and name; what it includes is not followed."""
    try:
        with open(path, "rb") as file:
            text = os.fsdecode(file.read(CONFIG_BYTES))
    except OSError:
        return {}
    settings: dict[tuple[str, str], str] = {}
    section = ""
    for line in re.sub(r"\\\r?\n", "", text).split("\n"):
        rest = line.strip()
        found = SECTION.match(rest)
        if found:
            section = found[1].lower() + (f".{found[2]}" if found[2] is not None else "")
            rest = rest[found.end() :].strip()
        setting = SETTING.match(rest)
        if setting:
            value = _value(setting[2]) if setting[2] is not None else "true"
            settings[section, setting[1].lower()] = value
    return settings


def _value(raw: str) -> str:
    """A value without its quotes, escapes and comment."""
    kept, quoted, solid, position = [], False, 0, 0
    while position < len(raw):
        char = raw[position]
        position += 1
        if char == "\\" and position < len(raw):
            kept.append(ESCAPES.get(raw[position], raw[position]))
            position += 1
            solid = len(kept)
        elif char == '"':
            quoted = not quoted
            solid = len(kept)
        elif char in "#;" and not quoted:
            break
        else:
            kept.append(char)
            if quoted or not char.isspace():
                solid = len(kept)
    return "".join(kept[:solid])
