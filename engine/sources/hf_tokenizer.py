"""The tokenizer of a model folder, by transformers."""

from pathlib import Path
from typing import Any

from infllm.engine.sources.cache import FROM_GGUF


def open_tokenizer(path: str | Path, revision: str | None = None) -> Any:
    """What `AutoTokenizer` gives; for a folder made from a GGUF file, its tokenizer.json as it is.

    AutoTokenizer would put a class of the model's type in its place, with rules of its own.
    """
    if (Path(path) / FROM_GGUF).is_file():
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast.from_pretrained(str(path))
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(path), revision=revision)
