"""Zip archives within bounds: members are streamed against one byte budget."""

from __future__ import annotations

import zipfile
import zlib

from infllm.cli.documents.errors import LimitExceeded, Unreadable, UnsupportedFormat
from infllm.cli.documents.limits import MIB, Limits

BLOCK = 1 * MIB


class Archive:
    """A zip file opened for reading text members. ``source`` names it in errors."""

    def __init__(self, path: str, source: str, limits: Limits):
        self.source = source
        self.limits = limits
        self.budget = limits.archive_bytes
        try:
            self.zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
            raise Unreadable(
                f"{source}: damaged archive, its directory cannot be read ({error})",
                "Download or copy the file again.",
            ) from error
        self.names = set(self.zip.namelist())
        if len(self.names) > limits.archive_members:
            self.zip.close()
            raise LimitExceeded(
                f"{source}: {len(self.names)} archive members, {limits.archive_members} allowed",
                "Unpack it and give the folder.",
            )

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *exc: object) -> None:
        self.zip.close()

    def read(self, name: str) -> bytes:
        """Unpacked bytes of one member. Raises Unreadable, LimitExceeded, UnsupportedFormat."""
        try:
            info = self.zip.getinfo(name)
        except KeyError as error:
            raise Unreadable(f"{self.source}: {name} is missing from the archive") from error
        if info.flag_bits & 1:
            raise UnsupportedFormat(
                f"{self.source}: {name} is encrypted", "Remove the protection where it was bought."
            )
        blocks: list[bytes] = []
        size = 0
        try:
            with self.zip.open(info) as member:
                while block := member.read(BLOCK):
                    size += len(block)
                    self._charge(name, len(block), size, info.compress_size)
                    blocks.append(block)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError) as error:
            raise Unreadable(
                f"{self.source}: archive member {name} is damaged ({error})"
            ) from error
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
