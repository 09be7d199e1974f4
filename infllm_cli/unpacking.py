"""A GGUF file on its way into the cache, told on stderr."""

from typing import TYPE_CHECKING

from infllm.cli.output import Output
from infllm.cli.progress import Spinner
from infllm.cli.text import size

if TYPE_CHECKING:
    from infllm.engine.config import Config


def unpack_model(config: "Config", out: Output) -> None:
    """Unpack the configuration's model where it is a GGUF file and was not unpacked yet.

    Raises:
        infllm.engine.errors.ModelFileError: the file is missing, damaged or no model.
        infllm.engine.errors.UnsupportedModel: it is of a kind that is not read.
    """
    from infllm.engine.sources import local_folder, names_gguf

    if not names_gguf(config.model.path):
        return
    with Spinner(out, "reading the model's file") as spinner:

        def progress(done: int, total: int) -> None:
            spinner.update(f"unpacking the model: {size(done)} of {size(total)}")

        local_folder(config.model.path, out.note, progress)
