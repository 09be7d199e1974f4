"""Zip archives, and folders that were one, within bounds: members against one byte budget."""

from __future__ import annotations

import abc
import lzma
import os
import posixpath
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import IO
from urllib.parse import unquote

from infllm.cli.documents.errors import COPY_AGAIN, LimitExceeded, Unreadable, UnsupportedFormat
from infllm.cli.documents.limits import MIB, Limits

BLOCK = 1 * MIB
BOOK_CONTAINER = "META-INF/container.xml"
BOOK_BYTES = 65536
UTF8_NAME = 0x800  # flag of a member whose name is UTF-8
ENCRYPTED = 0x1
# Each names what kind of package this is from the top of the archive.
LANDMARKS = frozenset({"meta-inf/container.xml", "[content_types].xml"})
VERSION_CONTROL = frozenset({".git", ".hg", ".svn", ".jj", ".bzr"})
MAC_FOLDER = "__MACOSX/"
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    OSError,
    EOFError,
    NotImplementedError,  # zipfile, of compression that it does not know
    ValueError,
)


class Members(abc.ABC):
    """Named members to be read as bytes. ``source`` names the whole in errors."""

    def __init__(self, source: str, limits: Limits):
        self.source = source
        self.limits = limits
        self.budget = limits.archive_bytes
        self.names: list[str] = []
        self.repeated: list[str] = []  # names that several members have
        self._folded: list[dict[str, str]] = []

    def __enter__(self) -> Members:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:  # noqa: B027
        """What is open is closed; by default nothing is."""

    @abc.abstractmethod
    def read(self, name: str) -> bytes:
        """Unpacked bytes of one member. Raises Unreadable, LimitExceeded, UnsupportedFormat."""

    def find(self, name: str) -> str | None:
        """The member that ``name`` means, as packages refer to their parts.

        Exactly, else whatever its Unicode form and slashes, else whatever its case, else whatever
        its percent-encoding: books are packed on file systems that do not tell these apart.
        """
        if not self._folded:
            self._folded = [_index(self.names, fold) for fold in FOLDS]
        for fold, index in zip(FOLDS, self._folded, strict=True):
            found = index.get(fold(name))
            if found is not None:
                return found
        return None

    def _collect(self, name: str, file: IO[bytes], packed: int) -> bytes:
        blocks: list[bytes] = []
        size = 0
        while block := file.read(BLOCK):
            size += len(block)
            self._charge(name, len(block), size, packed)
            blocks.append(block)
        return b"".join(blocks)

    def _charge(self, name: str, block: int, size: int, packed: int) -> None:
        self.budget -= block
        if self.budget < 0:
            raise LimitExceeded(
                f"{self.source}: unpacks to more than {self.limits.archive_bytes} bytes",
                "Unpack it and give the parts that matter.",
            )
        if size > MIB and size > self.limits.archive_ratio * max(packed, 1):
            raise LimitExceeded(
                f"{self.source}: {name} unpacks to over {self.limits.archive_ratio} times its size",
                "This looks like a decompression bomb.",
            )

    def _check_count(self, count: int) -> None:
        if count > self.limits.archive_members:
            self.close()
            raise LimitExceeded(
                f"{self.source}: {count} archive members, {self.limits.archive_members} allowed",
                "Give the parts that matter.",
            )


class Archive(Members):
    """A zip file opened for reading text members."""

    def __init__(self, path: str, source: str, limits: Limits):
        super().__init__(source, limits)
        try:
            self.zip = zipfile.ZipFile(path)
        except DAMAGE as error:
            raise Unreadable(
                f"{source}: damaged archive, its directory cannot be read ({error})",
                COPY_AGAIN,
            ) from error
        entries = self.zip.infolist()
        self._check_count(len(entries))
        members: dict[str, zipfile.ZipInfo] = {}
        for entry in entries:
            if not entry.is_dir():
                name = _name(entry)
                if name in members and name not in self.repeated:
                    self.repeated.append(name)
                members[name] = entry
        prefix = _wrapper(members)
        self.members = {name.removeprefix(prefix): entry for name, entry in members.items()}
        self.names = list(self.members)

    def close(self) -> None:
        self.zip.close()

    def read(self, name: str) -> bytes:
        entry = self.members.get(name)
        if entry is None:
            raise Unreadable(f"{self.source}: {name} is missing from the archive", COPY_AGAIN)
        if entry.flag_bits & ENCRYPTED:
            raise UnsupportedFormat(
                f"{self.source}: {name} is encrypted", "Remove the protection where it was bought."
            )
        try:
            with self.zip.open(entry) as member:
                return self._collect(name, member, entry.compress_size)
        except DAMAGE as error:
            raise Unreadable(
                f"{self.source}: archive member {name} is damaged ({error})", COPY_AGAIN
            ) from error


class Folder(Members):
    """An unpacked archive. Links are not followed."""

    def __init__(self, path: str, source: str, limits: Limits):
        super().__init__(source, limits)
        self.path = path
        for name in _files(path):
            self.names.append(name)
            self._check_count(len(self.names))
        self.names.sort()

    def read(self, name: str) -> bytes:
        if name not in self.names:
            raise Unreadable(f"{self.source}: {name} is missing from the folder", COPY_AGAIN)
        try:
            with open(os.path.join(self.path, *name.split("/")), "rb") as file:
                return self._collect(name, file, self.limits.archive_bytes)
        except OSError as error:
            raise Unreadable(
                f"{self.source}: {name}: {error.strerror}", "Check its permissions."
            ) from error


def _files(folder: str) -> Iterator[str]:
    """Names of the regular files in a folder, with forward slashes."""
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(set(folders) - VERSION_CONTROL)
        for file in files:
            whole = os.path.join(path, file)
            if os.path.isfile(whole) and not os.path.islink(whole):
                yield os.path.relpath(whole, folder).replace(os.sep, "/")


def is_unpacked_book(folder: str) -> bool:
    """Whether a folder is an EPUB out of its archive: by its type, else by its container."""
    for name, mark in (("mimetype", b"application/epub+zip"), (BOOK_CONTAINER, b"rootfile")):
        path = os.path.join(folder, *name.split("/"))
        if not os.path.isfile(path) or os.path.islink(path):
            continue
        try:
            with open(path, "rb") as file:
                if mark in file.read(BOOK_BYTES):
                    return True
        except OSError:
            continue  # walking the folder will say so
    return False


def folder_bytes(folder: str) -> int:
    """Size of the files in a folder, as far as they can be seen."""
    total = 0
    for name in _files(folder):
        try:
            total += os.lstat(os.path.join(folder, *name.split("/"))).st_size
        except OSError:
            continue  # gone meanwhile; reading it will say so
    return total


def _name(entry: zipfile.ZipInfo) -> str:
    """A member's name; UTF-8 where it is that without saying so."""
    name = entry.filename
    if not entry.flag_bits & UTF8_NAME and not name.isascii():
        try:
            return name.encode("cp437").decode("utf-8")
        except UnicodeError:
            return name
    return name


def _wrapper(names: Iterable[str]) -> str:
    """The one folder that holds the whole package, where it was packed with its folder."""
    kept = [name for name in names if not name.startswith(MAC_FOLDER)]
    top = {name.partition("/")[0] for name in kept}
    if len(top) != 1:
        return ""
    prefix = f"{top.pop()}/"
    inside = {name[len(prefix) :].lower() for name in kept}
    return prefix if inside & LANDMARKS else ""


def _as_is(name: str) -> str:
    return name


def _tidy(name: str) -> str:
    path = posixpath.normpath(unicodedata.normalize("NFC", name).replace("\\", "/"))
    while path.startswith(("../", "/")):  # above the top there is nothing: it is meant
        path = path.removeprefix("../").removeprefix("/")
    return path


def _caseless(name: str) -> str:
    return unicodedata.normalize("NFC", _tidy(name).casefold())


def _decoded(name: str) -> str:
    return _caseless(unquote(name))


FOLDS: tuple[Callable[[str], str], ...] = (_as_is, _tidy, _caseless, _decoded)


def _index(names: Iterable[str], fold: Callable[[str], str]) -> dict[str, str]:
    index: dict[str, str] = {}
    for name in names:
        index.setdefault(fold(name), name)
    return index
