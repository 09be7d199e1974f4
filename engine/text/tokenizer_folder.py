"""The tokenizer.json of a folder, where transformers would use it as it stands."""

import json
from pathlib import Path
from typing import Any

import tokenizers

from infllm.engine.sources import FROM_GGUF

# Classes that take tokenizer.json as it stands; others build their own rules around its vocabulary.
GENERIC = ("TokenizersBackend", "PreTrainedTokenizerFast")
# Model types for which transformers never puts a class of its own in place of these.
FREE_MODEL_TYPES = ("llama",)
# Settings of tokenizer_config.json without a say in how plain text is cut into tokens.
WITHOUT_SAY = frozenset(
    {
        "add_bos_token",
        "add_eos_token",
        "backend",
        "chat_template",
        "clean_up_tokenization_spaces",
        "is_local",
        "local_files_only",
        "model_input_names",
        "model_max_length",
        "padding_side",
        "tokenizer_class",
        "truncation_side",
    }
)
NAMED_TOKENS = frozenset(f"{name}_token" for name in ("bos", "eos", "unk", "pad"))
OLDER_FILES = ("added_tokens.json", "special_tokens_map.json")  # may add tokens


def read_tokenizer(folder: str) -> tokenizers.Tokenizer | None:
    """The tokenizer of a model folder, the one of `AutoTokenizer` as far as plain text goes.

    Reading it takes no transformers. None where that one could differ, or where there is none:
    then transformers is to load it, or to say what is wrong.
    """
    path = Path(folder)
    if not folder or any((path / name).exists() for name in OLDER_FILES):
        return None
    if (path / FROM_GGUF).is_file():
        return tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
    settings = _read_object(path / "tokenizer_config.json")
    model = _read_object(path / "config.json")
    if settings is None or settings.get("tokenizer_class") not in GENERIC:
        return None
    if model is None or model.get("model_type") not in FREE_MODEL_TYPES:
        return None
    try:
        core = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
    except Exception:  # the library raises no other type; transformers meets it too, and says so
        return None
    return core if _adds_nothing(settings, core) else None


def _adds_nothing(settings: dict[str, Any], core: tokenizers.Tokenizer) -> bool:
    """Whether tokenizer_config.json names only tokens of tokenizer.json, as they are there."""
    added = {i: _fields(token) for i, token in core.get_added_tokens_decoder().items()}
    contents = {token["content"] for token in added.values()}
    for key, value in settings.items():
        if key in NAMED_TOKENS:
            content = value.get("content") if isinstance(value, dict) else value
            if content is not None and content not in contents:
                return False
        elif key == "added_tokens_decoder":
            if any(token != added.get(int(n)) for n, token in value.items()):
                return False
        elif key not in WITHOUT_SAY:
            return False
    return True


def _fields(token: tokenizers.AddedToken) -> dict[str, Any]:
    """An added token as tokenizer_config.json spells it."""
    names = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    return {name: getattr(token, name) for name in names}


def _read_object(file: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
