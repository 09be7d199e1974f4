"""The tokenizer of the built-in model: byte-level BPE with digits in groups of up to three."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

VOCAB_SIZE = 4096
BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"

# The split pattern of Llama 3. Possessive quantifiers are left out, so that every regex engine
# (oniguruma here, fancy-regex in tiktoken) reads it the same way.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Books hold few of the thousand three-digit groups. Repeating each of them makes every one a
# single token, which is what lets so small a model copy a number in two or three steps.
# The words of the prompt form are rare in books and get the same help.
REPEATS = 4000


def _with_numbers_and_prompt(texts: Iterable[str], repeats: int) -> Iterator[str]:
    yield from texts
    groups = [f"{n:0{width}d}" for width in (1, 2, 3) for n in range(10**width)]
    lines = "\n".join([*groups, "Question: the key", "Answer: the key"])
    for _ in range(repeats):
        yield lines


def train_tokenizer(
    texts: Iterable[str], vocab_size: int = VOCAB_SIZE, repeats: int = REPEATS
) -> PreTrainedTokenizerFast:
    """Learn a vocabulary of `vocab_size` from `texts`; any string round-trips exactly.

    The tokenizer adds no special token by itself: whoever builds a prompt places `BEGIN`.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BEGIN, END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_with_numbers_and_prompt(texts, repeats), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
        model_max_length=1_000_000_000,
    )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Load the tokenizer saved in `folder`."""
    return PreTrainedTokenizerFast.from_pretrained(folder)
