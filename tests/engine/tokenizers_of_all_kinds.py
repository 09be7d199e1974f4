"""Small tokenizers of the kinds that models come with, trained on the spot."""

import json
from collections.abc import Callable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

LLAMA_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BEGIN, END, CALL = "<|begin|>", "<|end|>", "<tool_call>"
TEXT = """The lighthouse keeper's daughter counted 128 ships in 1874, and 3 of them didn't return.
"We'll wait," she said; "it isn't winter yet!" -- naïve, perhaps: Übermut, señor, русский, 東京.
    def count(ships):\n        return [s for s in ships if s.name != 'Ada']  # 1,000,000 = 10**6
"""


def _byte_level(split: str | None, normalizer: normalizers.Normalizer | None = None) -> Tokenizer:
    core = Tokenizer(models.BPE())
    if normalizer is not None:
        core.normalizer = normalizer  # pyright: ignore[reportAttributeAccessIssue]
    if split is None:
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    else:
        core.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore
            [
                pre_tokenizers.Split(Regex(split), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    core.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        [TEXT] * 3,
        trainers.BpeTrainer(vocab_size=500, special_tokens=[BEGIN, END], initial_alphabet=alphabet),
    )
    return core


def llama_like() -> Tokenizer:
    """Byte-level BPE with Llama 3's split and merges: the kind of the built-in model."""
    return _byte_level(LLAMA_SPLIT)


def gpt2_like() -> Tokenizer:
    return _byte_level(None)


def qwen_like() -> Tokenizer:
    return _byte_level(LLAMA_SPLIT.replace("{1,3}", ""), normalizers.NFC())


def ignoring_merges() -> Tokenizer:
    """Whole words straight from the vocabulary, and every split of a token listed as a merge."""
    core = _byte_level(LLAMA_SPLIT)
    vocab = core.get_vocab()
    made = sorted((t for t in vocab if len(t) > 1 and t not in (BEGIN, END)), key=vocab.__getitem__)
    splits = [
        (token[:i], token[i:])
        for token in made
        for i in range(1, len(token))
        if vocab.get(token[:i], 1 << 30) < vocab[token]
        and vocab.get(token[i:], 1 << 30) < vocab[token]
    ]
    core.model = models.BPE(vocab=vocab, merges=splits, ignore_merges=True)
    return core


def metaspace_bpe() -> Tokenizer:
    """SentencePiece-like BPE with byte fallback: the kind of Llama 2 and Mistral."""
    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)  # pyright: ignore
    core.decoder = decoders.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    names = ["<unk>", BEGIN, END, *(f"<0x{byte:02X}>" for byte in range(256))]
    words = [f" {word}" for word in TEXT.split()]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=names)
    core.train_from_iterator(words * 3, trainer)
    # The bytes' names belong to the vocabulary alone; the trainer adds them as tokens too.
    spec = json.loads(core.to_str())
    spec["added_tokens"] = [t for t in spec["added_tokens"] if not t["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(spec))


def prepending_bpe() -> Tokenizer:
    """The same with the older normalizers, which put a mark after every control token too."""
    core = metaspace_bpe()
    core.pre_tokenizer = None  # pyright: ignore[reportAttributeAccessIssue]
    core.normalizer = normalizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    return core


def unigram() -> Tokenizer:
    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Metaspace()  # pyright: ignore[reportAttributeAccessIssue]
    core.decoder = decoders.Metaspace()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<unk>", BEGIN, END], unk_token="<unk>"
    )
    core.train_from_iterator([TEXT] * 3, trainer)
    return core


KINDS: dict[str, Callable[[], Tokenizer]] = {
    kind.__name__: kind
    for kind in (
        llama_like,
        gpt2_like,
        qwen_like,
        ignoring_merges,
        metaspace_bpe,
        prepending_bpe,
        unigram,
    )
}
BYTE_LEVEL = ("llama_like", "gpt2_like", "qwen_like", "ignoring_merges")


def transformers_tokenizer(core: Tokenizer, bos: bool = True) -> PreTrainedTokenizerFast:
    """As transformers hands it out: BOS put before every text, one non-special added token."""
    if bos:
        core.post_processor = TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
            single=f"{BEGIN} $A", special_tokens=[(BEGIN, core.token_to_id(BEGIN))]
        )
    core.add_tokens([CALL])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token=BEGIN, eos_token=END)
