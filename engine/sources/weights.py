"""The weights of a GGUF file as a safetensors file: renamed, dequantised, written piece by piece.

Quantised values are stored as float16: what a block's scale gives fits it within a part in two
thousand, eight times closer than bfloat16, at half the bytes of float32. Norms and biases stay as
they are. Free of torch.
"""

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGMLQuantizationType as Kind
from gguf.quants import dequantize

from infllm.engine.errors import ModelFileError, UnsupportedModel
from infllm.engine.sources.architectures import OUTER, Architecture, architecture_of, model_config
from infllm.engine.sources.gguf_file import GgufFile, Tensor

KEPT = {Kind.F32: "F32", Kind.F16: "F16", Kind.BF16: "BF16"}
ITEMSIZE = {"F32": 4, "F16": 2, "BF16": 2}
# Scalings of positions, which config.json has.
IN_CONFIG = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
PIECE = 1 << 21  # values dequantised at a time


@dataclass(frozen=True)
class Weight:
    """One tensor on its way: `heads` of rows that are interleaved, `offset` that was added."""

    name: str
    tensor: Tensor
    dtype: str  # of safetensors
    heads: int = 0
    offset: float = 0.0

    @property
    def nbytes(self) -> int:
        return prod(self.tensor.shape) * ITEMSIZE[self.dtype]


def plan_weights(file: GgufFile, wide: bool = False) -> list[Weight]:
    """What the model's weights are made of. `wide`: float32 where float16 overflows.

    Raises UnsupportedModel for a tensor that the architecture does not know, ModelFileError for
    one that is missing.
    """
    architecture = architecture_of(file)
    config = model_config(file)
    names = _names(file, architecture)
    weights = []
    for name, tensor in file.tensors.items():
        if name in IN_CONFIG or name.rpartition(".")[0].endswith("attn.rot_embd"):
            continue
        if name not in names:
            raise UnsupportedModel(
                f"{file.path}: the tensor {name} is unknown in the architecture "
                f"{file.architecture!r}",
                "give the model by its Hugging Face id",
            )
        weights.append(_weight(names[name], tensor, architecture, config, wide))
    given = {weight.tensor.name for weight in weights}
    optional = {"output.weight"}
    for name in names:
        if name.endswith(".weight") and name not in given and name not in optional:
            raise ModelFileError(
                f"{file.path} lacks the tensor {name}", "the file is incomplete: download it again"
            )
    return weights


def _names(file: GgufFile, architecture: Architecture) -> dict[str, str]:
    """transformers' name of every tensor that a file of the architecture may hold."""
    names: dict[str, str] = {}
    for kind in ("weight", "bias"):
        names |= {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in OUTER.items()}
        for layer in range(file.get("block_count")):
            names |= {
                f"blk.{layer}.{theirs}.{kind}": f"model.layers.{layer}.{ours}.{kind}"
                for theirs, ours in architecture.layer.items()
            }
    return names


def _weight(
    name: str, tensor: Tensor, architecture: Architecture, config: dict[str, Any], wide: bool
) -> Weight:
    dtype = KEPT.get(tensor.kind, "F32" if wide else "F16")
    heads = 0
    if architecture.permuted and ".self_attn.q_proj." in name:
        heads = config["num_attention_heads"]
    if architecture.permuted and ".self_attn.k_proj." in name:
        heads = config["num_key_value_heads"]
    is_norm = name.endswith("norm.weight")
    if is_norm and tensor.kind is Kind.F16:
        dtype = "F32"  # an offset is taken from it, and there are few
    return Weight(name, tensor, dtype, heads, architecture.norm_offset if is_norm else 0.0)


def planned_bytes(weights: list[Weight]) -> int:
    """Bytes of the weights when written."""
    return sum(weight.nbytes for weight in weights)


class Overflow(Exception):
    """A dequantised value does not fit float16."""


def write_weights(
    weights: list[Weight], path: Path, told: Callable[[int], None] = lambda nbytes: None
) -> None:
    """Write a safetensors file to `path`, which must not be there; brought to the disk.

    `told` hears the bytes of each piece. Raises Overflow, OSError.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for weight in weights:
        header[weight.name] = {
            "dtype": weight.dtype,
            "shape": list(weight.tensor.shape),
            "data_offsets": [at, at + weight.nbytes],
        }
        at += weight.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
    try:
        os.truncate(descriptor, start + at)
        os.pwrite(descriptor, len(text).to_bytes(8, "little") + text, 0)
        _fill(descriptor, start, weights, told)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fill(descriptor: int, start: int, weights: list[Weight], told: Callable[[int], None]) -> None:
    """All weights, a few pieces at a time on all processors."""
    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        running: set[Future[int]] = set()
        try:
            for weight, first, rows, at in _pieces(start, weights):
                if len(running) >= 2 * workers:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    told(sum(future.result() for future in done))
                running.add(pool.submit(_write_piece, descriptor, weight, first, rows, at))
            for future in running:
                told(future.result())
        except BaseException:
            for future in running:
                future.cancel()
            raise


def _pieces(start: int, weights: list[Weight]) -> Iterator[tuple[Weight, int, int, int]]:
    """Of each weight, some whole rows: weight, first row, number of rows, byte of the output."""
    for weight in weights:
        rows, width = _rows(weight.tensor)
        step = max(1, PIECE // max(1, width))
        if weight.heads:  # whole heads, whose rows are reordered among themselves
            size = rows // weight.heads
            step = max(1, step // size) * size
        for first in range(0, rows, step):
            count = min(step, rows - first)
            yield weight, first, count, start + first * width * ITEMSIZE[weight.dtype]
        start += weight.nbytes


def _rows(tensor: Tensor) -> tuple[int, int]:
    """Rows and their width; a vector is one row, but for reordering, where values are rows."""
    if len(tensor.shape) < 2:
        return prod(tensor.shape), 1
    return prod(tensor.shape[:-1]), tensor.shape[-1]


def _write_piece(descriptor: int, weight: Weight, first: int, rows: int, at: int) -> int:
    tensor = weight.tensor
    total, _ = _rows(tensor)
    stride = tensor.nbytes // total if total else 0
    raw = np.fromfile(
        tensor.path, np.uint8, rows * stride, offset=tensor.start + first * stride
    ).reshape(rows, stride)
    if weight.heads:
        raw = _grouped(raw, weight.heads * rows // total)
    values = _decoded(raw, weight)
    os.pwrite(descriptor, np.ascontiguousarray(values).data.cast("B"), at)
    return int(values.nbytes)


def _grouped(raw: "np.ndarray[Any, Any]", heads: int) -> "np.ndarray[Any, Any]":
    """Rows [heads, pairs, 2] as [heads, 2, pairs]: the halves of a head that rotate together."""
    rows, stride = raw.shape
    return raw.reshape(heads, -1, 2, stride).swapaxes(1, 2).reshape(rows, stride)


def _decoded(raw: "np.ndarray[Any, Any]", weight: Weight) -> "np.ndarray[Any, Any]":
    """Rows of bytes as values of the weight's dtype (bfloat16 as 16-bit words)."""
    kind = weight.tensor.kind
    if not weight.offset and KEPT.get(kind) == weight.dtype:
        return raw
    if kind is Kind.F32:
        values = raw.view(np.float32)
    elif kind is Kind.F16:
        values = raw.view(np.float16).astype(np.float32)
    else:
        try:
            values = dequantize(_joined(raw), kind).reshape(len(raw), -1)
        except NotImplementedError:
            raise UnsupportedModel(
                f"{weight.tensor.path}: the quantisation {kind.name} is not read",
                "download the model in another one, for example Q4_K_M or Q8_0",
            ) from None
    if weight.offset:
        values = values - np.float32(weight.offset)
    if weight.dtype == "BF16":
        return _bfloat16(values)
    if weight.dtype == "F16":
        with np.errstate(over="ignore"):
            narrow = values.astype(np.float16)
        if not np.isfinite(narrow).all():
            if not np.isfinite(values).all():
                raise ModelFileError(
                    f"{weight.tensor.path} is damaged: {weight.tensor.name} holds values that "
                    f"are no numbers",
                    "download it again",
                )
            raise Overflow(weight.name)
        return narrow
    return values


def _joined(raw: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Neighbouring rows as one, since the gguf package works on 16 rows at a time: with 256 in a
    piece it is twice as fast as with thousands. Blocks stay as they are."""
    rows = len(raw)
    joined = max(n for n in range(1, max(1, rows // 256) + 1) if rows % n == 0)
    return raw.reshape(rows // joined, -1)


def _bfloat16(values: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """The nearest bfloat16 of each float32, as 16-bit words."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
