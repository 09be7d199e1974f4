"""How byte-level vocabularies cut text into words, by the name that a GGUF file gives."""

from typing import Any

from infllm.engine.byte_level import GPT2_DIGITS_SPLIT, GPT2_SPLIT, LLAMA3_SPLIT

_CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_FIRST = r"[^\r\n\p{L}\p{N}]?"


def _cased(after: str, digits: str) -> str:
    """Words end where lower case is followed by upper case; `after`: a contraction, or nothing."""
    return (
        f"{_FIRST}{_UPPER}*{_LOWER}+{after}|{_FIRST}{_UPPER}+{_LOWER}*{after}|{digits}"
        rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_BLANKS}"
    )


_QWEN2 = LLAMA3_SPLIT.replace("{1,3}", "")
_QWEN35 = (
    rf"{_CONTRACTION}|{_FIRST}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*"
    rf"|{_BLANKS}"
)
_SEED = rf"{_CONTRACTION}|{_FIRST}\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_BLANKS}"
_BAILING = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
_DEEPSEEK_CODER = (
    "[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", r"\p{N}",
)  # fmt: skip
_DEEPSEEK_3 = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"
    r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|" + _BLANKS,
)
_FALCON = (r"[\p{P}\$\+<=>\^~\|`]+", GPT2_SPLIT, "[0-9][0-9][0-9]")
_DEFAULT = (r"[\p{P}\$\+<=>\^~\|]+", GPT2_SPLIT, r"\p{N}+", "[0-9][0-9][0-9]")

# Regular expressions that are applied one after the other, each to the pieces of those before.
SPLITS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0",
            "lfm2", "dbrx", "smaug-bpe", "chatglm-bpe", "glm4",
        ),
        (LLAMA3_SPLIT,),
    ),
    **dict.fromkeys(
        (
            "gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4",
            "gigachat", "a.x-4.0", "mellum",
        ),
        (GPT2_SPLIT,),
    ),
    **dict.fromkeys(
        (
            "smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b",
            "mellum2",
        ),
        (GPT2_DIGITS_SPLIT,),
    ),
    **dict.fromkeys(
        (
            "qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez", "kormo", "solar-open",
            "grok-2",
        ),
        (_QWEN2,),
    ),
    "qwen35": (_QWEN35,),
    **dict.fromkeys(
        ("gpt-4o", "llama4", "kanana2", "minimax-m2"), (_cased(f"{_CONTRACTION}?", r"\p{N}{1,3}"),)
    ),
    "tekken": (_cased("", r"\p{N}"),),
    "seed-coder": (_SEED,),
    **dict.fromkeys(("bailingmoe", "bailingmoe2", "llada-moe"), (_BAILING,)),
    "deepseek-coder": _DEEPSEEK_CODER,
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense", "joyai-llm"), _DEEPSEEK_3),
    "falcon": _FALCON,
    "default": _DEFAULT,
}  # fmt: skip
# A word that is a token is taken whole, however its merges would spell it.
WHOLE_WORDS = frozenset({
    "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
    "tekken",
})  # fmt: skip
# Files without a say in it begin a text with BOS for these.
BEGINS_WITH_BOS = WHOLE_WORDS


def pre_tokenizer(name: str) -> dict[str, Any]:
    """The `pre_tokenizer` of a tokenizer.json for one of `SPLITS`; KeyError for any other."""
    steps = [_split(regex) for regex in SPLITS[name]]
    steps.append(
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    )
    return {"type": "Sequence", "pretokenizers": steps}


def _split(regex: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
