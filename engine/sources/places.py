"""Models by the names that people have for them: a GGUF file, `ollama:`, `lmstudio:`, `hf:`.

Nothing of other programs' folders is ever written. Free of torch, and of what reads GGUF files
until there is one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from infllm.engine.errors import ModelFileError

if TYPE_CHECKING:
    from infllm.engine.sources.gguf_file import GgufFile


NAMES = re.compile(r"(ollama|lmstudio|hf):.*|.*\.gguf", re.IGNORECASE | re.DOTALL)


def names_gguf(path: str) -> bool:
    """Whether a model's path names a GGUF file: by its form, or by how the file begins."""
    if NAMES.fullmatch(path):
        return True
    try:
        with Path(path).expanduser().open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return False


def find_gguf(path: str, *, fetch: bool = True) -> GgufFile | None:
    """The file that `path` names; None where it is on the hub and not here, and `fetch` is off.

    Raises ModelNotFound, ModelFileError.
    """
    from infllm.engine.sources import hub, lmstudio, ollama
    from infllm.engine.sources.gguf_file import read_gguf

    scheme, _, rest = path.partition(":")
    if scheme == "hf":
        found = hub.find(rest, fetch=fetch)
        return None if found is None else read_gguf(found)
    if scheme == "ollama":
        return read_gguf(ollama.find(rest))
    if scheme == "lmstudio":
        return read_gguf(lmstudio.find(rest))
    local = Path(path).expanduser()
    if local.is_dir():
        raise ModelFileError(f"{local} is a folder, not a GGUF file", "name the file in it")
    return read_gguf(local)


def local_folder(
    path: str,
    told: Callable[[str], None] = lambda sentence: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> str:
    """A folder or hub id for transformers: a GGUF file is unpacked into the cache, once.

    `told` and `progress`: as for `model_folder`.
    """
    if not names_gguf(path):
        return path
    from infllm.engine.sources.conversion import model_folder

    file = find_gguf(path)
    assert file is not None  # it was to be fetched
    return str(model_folder(file, told, progress))


def local_tokenizer(path: str) -> str:
    """As `local_folder`, for the tokenizer alone: no weights are unpacked."""
    if not names_gguf(path):
        return path
    from infllm.engine.sources.conversion import tokenizer_folder

    file = find_gguf(path)
    assert file is not None
    return str(tokenizer_folder(file))
