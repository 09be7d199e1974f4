"""A GGUF file: its metadata and where its tensors lie. Mapped, never read whole; free of torch."""

import mmap
import os
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from infllm.engine.errors import ModelFileError

MAGIC = b"GGUF"
SUFFIX = ".gguf"
PART = re.compile(r"(?P<stem>.*)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf", re.IGNORECASE)
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
STRING, ARRAY = 8, 9


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies. `shape` as torch has it, the slowest dimension first."""

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    path: Path
    start: int  # byte of the file
    nbytes: int


@dataclass(frozen=True)
class GgufFile:
    """What a GGUF file, or a set of parts, says of its model.

    `metadata` has arrays as lists; `tensors` are those of all parts.
    """

    path: Path
    parts: tuple[Path, ...]
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    @property
    def nbytes(self) -> int:
        """Bytes of all parts on the disk."""
        return sum(part.stat().st_size for part in self.parts)

    def get(self, name: str, default: Any = None) -> Any:
        """The metadata of the architecture: `get("block_count")` is `llama.block_count`."""
        return self.metadata.get(f"{self.architecture}.{name}", default)

    @property
    def quantisation(self) -> str:
        """The type that most weights are stored in, e.g. `Q4_K`."""
        sizes: dict[str, int] = {}
        for tensor in self.tensors.values():
            sizes[tensor.kind.name] = sizes.get(tensor.kind.name, 0) + tensor.nbytes
        return max(sizes, key=lambda name: sizes[name], default="")


def read_gguf(path: str | Path) -> GgufFile:
    """The file at `path`, or the set of parts that it belongs to.

    Raises ModelFileError: not there, no GGUF, cut short, of a version or byte order that is not
    read, or with a part missing.
    """
    first, *others = parts_of(Path(path))
    stamps = tuple(_stamp(part) for part in (first, *others))
    return _read(first, tuple(others), stamps)


def parts_of(path: Path) -> list[Path]:
    """All parts of the set that `path` is one of, in order; itself where it stands alone.

    Raises ModelFileError when one is missing.
    """
    found = PART.fullmatch(path.name)
    if found is None:
        return [path]
    total = int(found["parts"])
    suffix = path.name[-len(SUFFIX) :]
    parts = [
        path.with_name(f"{found['stem']}-{number:05d}-of-{total:05d}{suffix}")
        for number in range(1, total + 1)
    ]
    missing = [part.name for part in parts if not part.is_file()]
    if path.is_file() and missing:
        raise ModelFileError(
            f"{path} is part {int(found['part'])} of {total}, and {missing[0]} is missing",
            "all parts must lie in one folder: download the rest",
        )
    return parts or [path]


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return status.st_ino, status.st_size, status.st_mtime_ns


def _unreadable(path: Path, error: OSError) -> ModelFileError:
    if isinstance(error, FileNotFoundError):
        return ModelFileError(f"no model file {path}", "see what is here: infllm models list")
    return ModelFileError(f"cannot read {path}: {error.strerror or error}", "check its rights")


@lru_cache(maxsize=8)
def _read(first: Path, others: tuple[Path, ...], stamps: object) -> GgufFile:
    """`stamps`: of the parts, so that a file that was replaced is read again."""
    metadata, tensors = _read_part(first)
    for part in others:
        tensors |= _read_part(part)[1]
    counted = metadata.get("split.tensors.count")
    if isinstance(counted, int) and counted != len(tensors):
        raise ModelFileError(
            f"{first} names {counted} tensors and holds {len(tensors)}",
            "it is one part of a set whose other parts are missing, or renamed",
        )
    return GgufFile(first, (first, *others), metadata, tensors)


def _read_part(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < 24 or file.read(4) != MAGIC:
                raise ModelFileError(
                    f"{path} is not a GGUF file", "name a .gguf file, a model folder or a hub id"
                )
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise _unreadable(path, error) from error
    with mapped:
        try:
            header = _Header(path, mapped)
            return header.metadata(), header.tensors()
        except (struct.error, IndexError, MemoryError, OverflowError) as error:
            raise _cut_short(path) from error
        except UnicodeDecodeError as error:
            raise ModelFileError(
                f"{path} is damaged: its header holds a text that is not UTF-8",
                "download it again",
            ) from error


def _cut_short(path: Path) -> ModelFileError:
    return ModelFileError(
        f"{path} is cut short or damaged: {path.stat().st_size:,} bytes are here, and it speaks "
        f"of more",
        "the download did not end: download it again",
    )


class _Header:
    """Reads the header of one file from its beginning on."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.size = path, data, len(data)
        version, little = struct.unpack_from("<I", data, 4)[0], True
        if version not in VERSIONS:
            swapped = struct.unpack_from(">I", data, 4)[0]
            little = swapped not in VERSIONS
            told = f"version {version}" if little else "big-endian"
            raise ModelFileError(
                f"{path} is a GGUF file of a kind that is not read: {told}",
                "versions 2 and 3, little-endian, are: download it anew",
            )
        self.n_tensors, self.n_keys = struct.unpack_from("<QQ", data, 8)
        self.at = 24
        # The smallest key takes 13 bytes, the smallest tensor 24: a damaged count is no reason to
        # read on for hours.
        if self.n_keys * 13 + self.n_tensors * 24 > self.size:
            raise struct.error
        self.alignment = DEFAULT_ALIGNMENT

    def metadata(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(self.n_keys):
            key = self._string()
            found[key] = self._value(self._number("I"))
        alignment = found.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment <= 0 or alignment > 1 << 20:
            raise ModelFileError(
                f"{self.path} is damaged: an alignment of {alignment!r}", "download it again"
            )
        self.alignment = alignment
        return found

    def tensors(self) -> dict[str, Tensor]:
        table = []
        for _ in range(self.n_tensors):
            name, rank = self._string(), self._number("I")
            if rank > 8:
                raise struct.error
            shape = tuple(reversed([self._number("Q") for _ in range(rank)]))
            table.append((name, shape, self._number("I"), self._number("Q")))
        data = -(-self.at // self.alignment) * self.alignment
        return {
            name: self._tensor(name, shape, kind, data + offset)
            for name, shape, kind, offset in table
        }

    def _tensor(self, name: str, shape: tuple[int, ...], kind: int, start: int) -> Tensor:
        try:
            known = GGMLQuantizationType(kind)
            block, nbytes = GGML_QUANT_SIZES[known]
        except (ValueError, KeyError):
            raise ModelFileError(
                f"{self.path}: tensor {name} is of the quantisation type {kind}, which is unknown",
                "download the model in another quantisation, for example Q4_K_M or Q8_0",
            ) from None
        if shape and shape[-1] % block:
            raise ModelFileError(
                f"{self.path} is damaged: rows of {shape[-1]} values in tensor {name}, and "
                f"{known.name} has blocks of {block}",
                "download it again",
            )
        size = prod(shape) // block * nbytes
        if start + size > self.size:
            raise _cut_short(self.path)
        return Tensor(name, shape, known, self.path, start, size)

    def _number(self, code: str) -> Any:
        value = struct.unpack_from(f"<{code}", self.data, self.at)[0]
        self.at += struct.calcsize(f"<{code}")
        return value

    def _string(self) -> str:
        length = self._number("Q")
        start = self.at
        self.at += length
        if self.at > self.size:
            raise struct.error
        return self.data[start : self.at].decode("utf-8")

    def _value(self, kind: int, depth: int = 0) -> Any:
        if kind in SCALARS:
            return self._number(SCALARS[kind])
        if kind == STRING:
            return self._string()
        if kind != ARRAY or depth > 4:
            raise ModelFileError(
                f"{self.path} is damaged: a value of the type {kind} in its header",
                "download it again",
            )
        element, count = self._number("I"), self._number("Q")
        if element in SCALARS:
            width = struct.calcsize(f"<{SCALARS[element]}")
            start = self.at
            self.at += width * count
            if self.at > self.size:
                raise struct.error
            values = np.frombuffer(self.data[start : self.at], dtype=f"<{_DTYPES[element]}")
            return values.tolist()
        if count * 8 > self.size - self.at:
            raise struct.error
        return [self._value(element, depth + 1) for _ in range(count)]


_DTYPES = {
    0: "u1", 1: "i1", 2: "u2", 3: "i2", 4: "u4", 5: "i4", 6: "f4", 7: "?", 10: "u8", 11: "i8",
    12: "f8",
}  # fmt: skip


def tensor_bytes(tensors: Iterator[Tensor] | list[Tensor]) -> int:
    """Bytes that the tensors take in their files."""
    return sum(tensor.nbytes for tensor in tensors)
