"""From a GGUF file to a model folder that transformers loads, kept in the user's cache."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from infllm.engine.errors import ModelFileError, UnsupportedModel
from infllm.engine.sources.architectures import model_config
from infllm.engine.sources.cache import (
    FROM_GGUF,
    WEIGHTS,
    folder_of,
    make_folder,
    need_room,
    write_json,
    write_whole,
)
from infllm.engine.sources.gguf_file import GgufFile
from infllm.engine.sources.gguf_tokenizer import generation_config, tokenizer_config, tokenizer_json
from infllm.engine.sources.weights import (
    Overflow,
    Weight,
    plan_weights,
    planned_bytes,
    write_weights,
)

TOKENIZER = "tokenizer.json"
Told = Callable[[str], None]
Progress = Callable[[int, int], None]  # bytes done, and all


def tokenizer_folder(file: GgufFile) -> Path:
    """A folder with the file's tokenizer and config.json, made where it is not there.

    Raises UnsupportedModel, ModelFileError.
    """
    folder = _described(file)
    if not (folder / TOKENIZER).is_file():
        _write_all(
            folder,
            {
                "generation_config.json": generation_config(file),
                "tokenizer_config.json": tokenizer_config(file),
                TOKENIZER: tokenizer_json(file),  # last: with it the tokenizer counts
            },
        )
    return folder


def _described(file: GgufFile) -> Path:
    """The copy's folder, with config.json at least."""
    config = model_config(file)
    folder, digest = folder_of(file.parts)
    if not (folder / FROM_GGUF).is_file():
        about = {
            "path": str(file.path.resolve()),
            "sha256": digest,
            "architecture": file.architecture,
            "quantisation": file.quantisation,
            "name": file.metadata.get("general.name"),
            "license": file.metadata.get("general.license"),
        }
        _write_all(folder, {"config.json": config, FROM_GGUF: about})
    return folder


def _write_all(folder: Path, contents: dict[str, dict[str, Any]]) -> None:
    try:
        make_folder(folder)
        for name, content in contents.items():
            write_json(folder / name, content)
    except OSError as error:
        raise _unwritten(folder, error) from error


def model_folder(
    file: GgufFile,
    told: Told = lambda sentence: None,
    progress: Progress = lambda done, total: None,
) -> Path:
    """A folder with the whole model, dequantised if that was not done before.

    `told` hears, before anything large is written, what will be; `progress` bytes done and all.
    Raises UnsupportedModel, ModelFileError.
    """
    plan = plan_weights(file)
    folder = _described(file)
    with suppress(UnsupportedModel, ModelFileError):  # told when it is asked for: another may be
        tokenizer_folder(file)
    if (folder / WEIGHTS).is_file():
        return folder
    for wide in (False, True):
        plan = plan_weights(file, wide)
        total = planned_bytes(plan)
        try:
            need_room(folder, total)
            told(
                f"unpacking {file.path.name} once, {_size(file.nbytes)} of {file.quantisation}, "
                f"to {_size(total)} in {folder} (infllm models prune empties it)"
            )
            write_whole(folder / WEIGHTS, partial(_write, plan, total, progress))
            return folder
        except Overflow:
            continue
        except OSError as error:
            raise _unwritten(folder, error) from error
    raise ModelFileError(f"{file.path} cannot be dequantised", "choose another quantisation")


def _write(plan: list[Weight], total: int, progress: Progress, beside: Path) -> None:
    done = 0

    def add(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        progress(done, total)

    write_weights(plan, beside, add)


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.0f} MB"


def _unwritten(folder: Path, error: OSError) -> ModelFileError:
    return ModelFileError(
        f"cannot write {folder}: {error.strerror or error}",
        "free some room, or name another place with INFLLM_CACHE_DIR",
    )
