"""From flags to an engine: the configuration, downloads, the model."""

import os
import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from infllm.cli.errors import ModelMissing
from infllm.cli.heap import keep_large_blocks
from infllm.cli.options import DocumentFlags, EngineChoice
from infllm.cli.output import Output
from infllm.cli.progress import Spinner
from infllm.cli.sources import read_documents
from infllm.cli.text import seconds
from infllm.cli.unpacking import unpack_model

if TYPE_CHECKING:
    from infllm.cli.documents import Collection
    from infllm.engine import Engine
    from infllm.engine.config import Config


def open_config(choice: EngineChoice) -> "Config":
    """The resolved configuration; nothing of the model is loaded.

    Raises:
        infllm.engine.errors.ConfigError: an unknown key, a wrong value, an unknown preset.
    """
    if choice.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    from infllm.engine.config import load_config

    return load_config(choice.source, choice.overrides)


def open_engine(config: "Config", choice: EngineChoice, out: Output) -> "Engine":
    """The engine with its model; says so when something will be downloaded.

    Raises:
        ModelMissing: the model is not on this machine and may not be downloaded.
        infllm.engine.errors.EngineError: whatever else keeps it from loading.
    """
    name = preset_name(config, choice)
    downloading = announce_download(config, choice, out)
    quiet_libraries(out, bars=downloading)
    keep_large_blocks()
    unpack_model(config, out)
    started = time.monotonic()
    with nullcontext() if downloading else Spinner(out, f"loading {name}"):
        from infllm.engine import load

        engine = load(config)
    for note in config.notes:
        out.detail(f"note: {note}")
    out.detail(f"loaded {name} on {engine.device} in {seconds(time.monotonic() - started)}")
    return engine


def open_all(
    choice: EngineChoice, sources: Sequence[str], documents: DocumentFlags, out: Output
) -> tuple["Collection", "Engine"]:
    """Documents and engine. What fails fast comes first: settings, then documents, then model."""
    config = open_config(choice)
    collection = read_documents(sources, documents, out)
    return collection, open_engine(config, choice, out)


def preset_name(config: "Config", choice: EngineChoice) -> str:
    """What to call the configuration: as it was named, or as the environment or a file names it."""
    if choice.source is not None:
        return choice.source
    origin = config.origins.get("model.path", "")
    return origin.removeprefix("preset ") if origin.startswith("preset ") else config.model.path


def quiet_libraries(out: Output, bars: bool = False) -> None:
    """Before their import: our own lines tell what happens, theirs would garble them.

    `bars`: keep the bars of a download, if there is a terminal for them.
    """
    if not (bars and out.live):
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    if not out.verbose:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        warnings.simplefilter("ignore")


def announce_download(
    config: "Config", choice: EngineChoice, out: Output, what: str = "model"
) -> bool:
    """Whether loading will download the model, or `what` of it; says so.

    Raises:
        ModelMissing: it would, and `--offline` was given.
    """
    from infllm.engine.config import read_model_config

    path = config.model.path
    if not path or os.path.isdir(path) or read_model_config(path) is not None:
        return False
    if choice.offline or os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        raise ModelMissing(
            f"the model {path} is not on this machine, and the network may not be used",
            "run once without --offline to download it, or give --model a local folder",
        )
    out.warn(f"{path} is not on this machine: downloading its {what} from the Hugging Face hub")
    return True
