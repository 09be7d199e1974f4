"""The tokenizer that a GGUF file describes, as the contents of a tokenizer.json.

Two kinds: `gpt2`, byte-level BPE with a split into words that the file names, and `llama`,
SentencePiece's BPE, whose merges follow from the scores of the tokens.
"""

from typing import Any

from infllm.engine.byte_level import byte_of_char
from infllm.engine.errors import ModelFileError, UnsupportedModel
from infllm.engine.sources.gguf_file import GgufFile
from infllm.engine.sources.pretokenizers import (
    BEGINS_WITH_BOS,
    SPLITS,
    WHOLE_WORDS,
    pre_tokenizer,
)

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
NAMED = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
# Spellings of tokens that end an answer, where a file names but one of several.
ENDS = frozenset({
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>",
    "<EOT>", "<|eom_id|>", "<|return|>", "<|call|>", "<end_of_utterance>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
})  # fmt: skip


class Vocabulary:
    """The tokens of a file: `tokens` spelled as in a tokenizer.json, each once, and `types`."""

    def __init__(self, file: GgufFile) -> None:
        self.file = file
        self.metadata = file.metadata
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        if not isinstance(tokens, list) or not tokens:
            raise ModelFileError(
                f"{file.path} holds no vocabulary",
                "name a tokenizer beside it: --set model.tokenizer_path=FOLDER_OR_HUB_ID",
            )
        self.types = list(self.metadata.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens))
        if len(self.types) < len(tokens):
            raise ModelFileError(
                f"{file.path} is damaged: {len(self.types)} token types for {len(tokens)} tokens",
                "download it again",
            )
        self.ids: dict[str, int] = {}
        self.tokens: list[str] = []
        for number, token in enumerate(tokens):
            if not token or token in self.ids:  # out of every text's reach, and yet an id
                token = f" [{'DOUBLE' if token else 'EMPTY'}_{number}]"
            self.ids[token] = number
            self.tokens.append(token)
        self.pre = str(self.metadata.get("tokenizer.ggml.pre") or "default")

    @property
    def kind(self) -> str:
        return str(self.metadata.get("tokenizer.ggml.model", ""))

    def id_of(self, name: str) -> int | None:
        """The id of `bos`, `eos`, `unk` or `pad`, `eot`, `eom`; None where the file has none."""
        found = self.metadata.get(f"tokenizer.ggml.{NAMED.get(name, name)}_token_id")
        return found if isinstance(found, int) and 0 <= found < len(self.tokens) else None

    @property
    def adds_bos(self) -> bool:
        """Whether every text begins with BOS."""
        default = self.kind == "llama" or (self.kind == "gpt2" and self.pre in BEGINS_WITH_BOS)
        wanted = bool(self.metadata.get("tokenizer.ggml.add_bos_token", default))
        return wanted and self.id_of("bos") is not None

    @property
    def end_ids(self) -> list[int]:
        """Ids of all tokens that end an answer."""
        found = {self.id_of(name) for name in ("eos", "eot", "eom")}
        found |= {
            number
            for token, number in self.ids.items()
            if token in ENDS and self.types[number] in (CONTROL, USER_DEFINED)
        }
        return sorted(number for number in found if number is not None)

    def added(self) -> list[dict[str, Any]]:
        """Tokens that are found in a text before it is cut: control and user-defined ones."""
        named = {self.id_of(name) for name in ("bos", "eos", "pad", "eot", "eom")}
        return [
            {
                "id": number,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": self.types[number] == CONTROL or number in named,
            }
            for number, token in enumerate(self.tokens)
            if self.types[number] in (CONTROL, USER_DEFINED) or number in named
        ]


def tokenizer_json(file: GgufFile) -> dict[str, Any]:
    """The contents of a tokenizer.json.

    Raises UnsupportedModel for a kind of vocabulary, or a split into words, that is unknown;
    ModelFileError for a file without a vocabulary.
    """
    vocabulary = Vocabulary(file)
    if vocabulary.kind == "gpt2":
        spec = _byte_level(vocabulary)
    elif vocabulary.kind == "llama":
        spec = _sentencepiece(vocabulary)
    else:
        raise UnsupportedModel(
            f"{file.path}: tokenizers of the kind {vocabulary.kind!r} are not read from GGUF files",
            "name one beside it: --set model.tokenizer_path=FOLDER_OR_HUB_ID",
        )
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": vocabulary.added(),
        "post_processor": _bos_first(vocabulary),
        **spec,
    }


def tokenizer_config(file: GgufFile) -> dict[str, Any]:
    """The contents of a tokenizer_config.json: named tokens and the chat template."""
    vocabulary = Vocabulary(file)
    named = {}
    for name in NAMED:
        number = vocabulary.id_of(name)
        if number is not None and (name != "bos" or vocabulary.adds_bos):
            named[f"{name}_token"] = vocabulary.tokens[number]
    template = file.metadata.get("tokenizer.chat_template")
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": file.get("context_length"),
        **named,
        **({"chat_template": template} if isinstance(template, str) and template else {}),
    }


def generation_config(file: GgufFile) -> dict[str, Any]:
    """The contents of a generation_config.json: which tokens end an answer."""
    vocabulary = Vocabulary(file)
    found: dict[str, Any] = {"eos_token_id": vocabulary.end_ids}
    for name in ("bos", "pad"):
        if (number := vocabulary.id_of(name)) is not None:
            found[f"{name}_token_id"] = number
    return found


def _byte_level(vocabulary: Vocabulary) -> dict[str, Any]:
    if vocabulary.pre not in SPLITS:
        raise UnsupportedModel(
            f"{vocabulary.file.path}: the tokenizer splits text as {vocabulary.pre!r} does, which "
            f"is unknown",
            "name one beside it: --set model.tokenizer_path=FOLDER_OR_HUB_ID",
        )
    alphabet = byte_of_char().keys()
    spelling = {byte: char for char, byte in byte_of_char().items()}
    vocab = {}
    for number, token in enumerate(vocabulary.tokens):
        plain = vocabulary.types[number] in (NORMAL, UNUSED, UNKNOWN)
        if plain and not token.startswith(" ") and not alphabet >= set(token):
            token = "".join(spelling[byte] for byte in token.encode())
        vocab[token] = number
    merges = []
    for merge in vocabulary.metadata.get("tokenizer.ggml.merges") or []:
        at = merge.find(" ", 1)
        left, right = merge[:at], merge[at + 1 :]
        if left in vocab and right in vocab and left + right in vocab:
            merges.append([left, right])
    return {
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer(vocabulary.pre),
        "decoder": {
            "type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True,
        },
        "model": _bpe(vocab, merges, ignore_merges=vocabulary.pre in WHOLE_WORDS),
    }  # fmt: skip


def _sentencepiece(vocabulary: Vocabulary) -> dict[str, Any]:
    prefixed = bool(vocabulary.metadata.get("tokenizer.ggml.add_space_prefix", True))
    blank = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    before = [{"type": "Prepend", "prepend": "\u2581"}] if prefixed else []
    after = [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        *([{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefixed else []),
    ]
    unknown = vocabulary.id_of("unk")
    if unknown is None:
        unknown = next((i for i, t in enumerate(vocabulary.types) if t == UNKNOWN), None)
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*before, blank]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": after},
        "model": _bpe(
            dict(vocabulary.ids),
            _merges_of_scores(vocabulary),
            unk_token=None if unknown is None else vocabulary.tokens[unknown],
            fuse_unk=True,
            byte_fallback=True,
        ),
    }


def _merges_of_scores(vocabulary: Vocabulary) -> list[list[str]]:
    """All pairs of tokens whose union is a token, the best scored union first.

    SentencePiece joins, again and again, the neighbours whose union scores best.
    """
    scores = vocabulary.metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) < len(vocabulary.tokens):
        raise ModelFileError(
            f"{vocabulary.file.path} is damaged: its tokens have no scores", "download it again"
        )
    made_of = {NORMAL, USER_DEFINED, UNUSED}
    known = {t for t, number in vocabulary.ids.items() if vocabulary.types[number] in made_of}
    ids = vocabulary.ids
    pairs = []
    for token in known:
        score = -scores[ids[token]]
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in known and right in known:
                pairs.append((score, ids[token], ids[left], ids[right], left, right))
    pairs.sort()
    return [[left, right] for *_, left, right in pairs]


def _bpe(vocab: dict[str, int], merges: list[list[str]], **settings: Any) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        **settings,
        "vocab": vocab,
        "merges": merges,
    }


def _bos_first(vocabulary: Vocabulary) -> dict[str, Any] | None:
    """What begins every text with BOS, and ends it with EOS, where the file wants that."""
    wants_eos = bool(vocabulary.metadata.get("tokenizer.ggml.add_eos_token", False))
    first = vocabulary.id_of("bos") if vocabulary.adds_bos else None
    last = vocabulary.id_of("eos") if wants_eos else None
    used = [number for number in (first, last) if number is not None]
    if not used:
        return None

    def special(number: int) -> list[dict[str, Any]]:
        return [{"SpecialToken": {"id": vocabulary.tokens[number], "type_id": 0}}]

    before = special(first) if first is not None else []
    after = special(last) if last is not None else []
    return {
        "type": "TemplateProcessing",
        "single": [*before, {"Sequence": {"id": "A", "type_id": 0}}, *after],
        "pair": [
            *before,
            {"Sequence": {"id": "A", "type_id": 0}},
            *after,
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {
            token: {"id": token, "ids": [number], "tokens": [token]}
            for number, token in ((number, vocabulary.tokens[number]) for number in used)
        },
    }  # fmt: skip
