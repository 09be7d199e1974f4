"""Names in a git index, versions 2 to 4, whole or split."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from infllm.cli.documents.limits import MIB

INDEX_BYTES = 256 * MIB  # about two million files; of a larger one nothing is known
STAT_BYTES = 40  # times, device, inode, mode, owner and size of an entry, before its hash
MODE_AT = 24
EXTENDED, NAME_LENGTH = 0x4000, 0x0FFF
GITLINK = 0o160000


@dataclass(frozen=True)
class Tracked:
    """Paths below the work tree's root: of files, of folders that hold some, and of submodules."""

    files: frozenset[bytes] = frozenset()
    folders: frozenset[bytes] = frozenset()
    submodules: frozenset[bytes] = frozenset()


def read_index(folder: str, hash_bytes: int) -> Tracked:
    """What the index in ``folder`` (GIT_DIR) tracks; nothing where there is none that is whole."""
    try:
        entries = _read(os.path.join(folder, "index"), folder, hash_bytes)
    except (OSError, ValueError, IndexError, struct.error):
        return Tracked()
    files = frozenset(name for name, mode in entries if mode != GITLINK)
    submodules = frozenset(name for name, mode in entries if mode == GITLINK)
    folders: set[bytes] = set()
    for name, _ in entries:
        while (cut := name.rfind(b"/")) > 0:
            name = name[:cut]
            if name in folders:
                break
            folders.add(name)
    return Tracked(files, frozenset(folders), submodules)


def _read(path: str, folder: str | None, hash_bytes: int) -> list[tuple[bytes, int]]:
    """Names and modes. ``folder`` holds the file that a split index shares; None for that file.

    Raises OSError, ValueError, IndexError and struct.error.
    """
    with open(path, "rb") as file:
        data = file.read(INDEX_BYTES + 1)
    if len(data) > INDEX_BYTES:
        raise ValueError
    signature, version, count = struct.unpack_from(">4sII", data)
    if signature != b"DIRC" or version not in (2, 3, 4):
        raise ValueError
    entries: list[tuple[bytes, int]] = []
    at, name = 12, b""
    fixed = STAT_BYTES + hash_bytes + 2
    for _ in range(count):
        start = at
        (mode,) = struct.unpack_from(">I", data, at + MODE_AT)
        (flags,) = struct.unpack_from(">H", data, at + fixed - 2)
        at += fixed + (2 if flags & EXTENDED else 0)
        if version == 4:
            stripped, at = _varint(data, at)
            if stripped > len(name):
                raise ValueError
            name = name[: len(name) - stripped]
        else:
            name = b""
        # The length in the flags says where a name may end; those of 4095 bytes and more run on.
        skipped = flags & NAME_LENGTH if version < 4 else 0
        end = data.index(b"\0", at + skipped)
        name += data[at:end]
        at = end + 1 if version == 4 else start + (end - start + 8) // 8 * 8
        entries.append((name, mode))
    return _joined(data, at, entries, folder, hash_bytes)


def _joined(
    data: bytes, at: int, own: list[tuple[bytes, int]], folder: str | None, hash_bytes: int
) -> list[tuple[bytes, int]]:
    """The entries with those of the file that a split index shares, where it is split."""
    while folder is not None and at + 8 <= len(data) - hash_bytes:
        kind, size = struct.unpack_from(">4sI", data, at)
        body = data[at + 8 : at + 8 + size]
        at += 8 + size
        if kind != b"link" or not any(body[:hash_bytes]):
            continue
        shared = os.path.join(folder, f"sharedindex.{body[:hash_bytes].hex()}")
        gone = _bits(body[hash_bytes:]) if len(body) > hash_bytes else set()
        base = _read(shared, None, hash_bytes)
        kept = [entry for number, entry in enumerate(base) if number not in gone]
        # An entry without a name replaces one of the base, which has the name.
        return kept + [entry for entry in own if entry[0]]
    return own


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """git's offset encoding, and where it ends."""
    byte = data[at]
    value = byte & 127
    while byte & 128:
        at += 1
        byte = data[at]
        value = (value + 1) << 7 | byte & 127
    return value, at + 1


def _bits(data: bytes) -> set[int]:
    """The bits that are set in a bitmap compressed as EWAH."""
    _, words = struct.unpack_from(">II", data)
    found: set[int] = set()
    at, bit = 8, 0
    end = at + 8 * words
    while at < end:
        (marker,) = struct.unpack_from(">Q", data, at)
        at += 8
        run, literals = marker >> 1 & 0xFFFFFFFF, marker >> 33
        if 64 * run > 8 * INDEX_BYTES:  # more bits than there can be entries
            raise ValueError
        if marker & 1:
            found.update(range(bit, bit + 64 * run))
        bit += 64 * run
        for _ in range(literals):
            (word,) = struct.unpack_from(">Q", data, at)
            at += 8
            found.update(bit + i for i in range(64) if word >> i & 1)
            bit += 64
    return found
