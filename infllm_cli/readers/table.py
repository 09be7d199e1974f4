"""The readers by name. Free of torch: a reader is imported when it is used."""

import hashlib
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

from infllm.cli.errors import UsageError
from infllm.cli.output import Output

if TYPE_CHECKING:
    from infllm.cli.readers.base import Reader
    from infllm.engine import Engine
    from infllm.engine.config import Config

READERS = ("infiniretri", "homer")


def check_reader(name: str) -> str:
    """The name as it is known here. Raises UsageError for another, with the nearest one."""
    known = name.lower().replace("-", "").replace("_", "")
    if known in READERS:
        return known
    near = get_close_matches(known, READERS, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(READERS)}"
    raise UsageError(f"unknown reader {name!r}", hint)


def reader_of(name: str) -> "Reader":
    """The reader called `name`, one of `READERS`."""
    reader: Reader = getattr(import_module(f"infllm.cli.readers.{name}"), f"read_{name}")
    return reader


def prepare_reader(name: str, engine: "Engine", config: "Config", out: Output) -> None:
    """Find out whether a reader can read with this model, and say what it lacks.

    Raises:
        infllm.engine.errors.UnsupportedModel, ConfigError: it cannot, by name and with the reason.
    """
    if name == "homer":
        merging = engine.merging(config.homer)
        merging.check_layers()
        if merging.bias is None:
            out.note(
                "homer is not calibrated for this model: what is near the question seems to "
                "matter more (infllm calibrate MODEL)"
            )


def describe_reader(name: str, engine: "Engine") -> dict[str, Any]:
    """What a reader's answers depend on beside model and prompt."""
    settings = dict(getattr(engine.config, name))
    if name == "homer":  # the table itself, wherever it lies
        bias = engine.merging().bias
        settings["calibration"] = (
            None if bias is None else hashlib.sha256(bias.numpy().tobytes()).hexdigest()
        )
    return settings
