"""The real text: books from a folder, some held out entirely for evaluation."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

HELD_OUT = ("frankenstein", "the-moonstone", "walden-and-on-the-duty-of-civil-disobedience",
            "the-war-of-the-worlds")  # fmt: skip

_WRAP = re.compile(r"(?<=\S)\n(?=\S)")


def training_books(folder: Path) -> dict[str, str]:
    """Text by slug of every `*.txt` in `folder` that is not held out."""
    paths = sorted(p for p in folder.glob("*.txt") if p.stem not in HELD_OUT)
    if not paths:
        raise FileNotFoundError(f"no training books (*.txt) in {folder}")
    return {p.stem: p.read_text(encoding="utf-8") for p in paths}


def held_out_books(folder: Path) -> dict[str, str]:
    """Text by slug of the books that no training step may see."""
    return {
        slug: (folder / f"{slug}.txt").read_text(encoding="utf-8")
        for slug in HELD_OUT
        if (folder / f"{slug}.txt").exists()
    }


def unwrapped(text: str) -> str:
    """Join the hard-wrapped lines of each paragraph into one line."""
    return _WRAP.sub(" ", text)


@dataclass
class Corpus:
    """Tokenized books and the words met in them.

    ids: uint16 [n], every book twice over a coin: hard-wrapped as printed or one line a paragraph.
    sentence_ends: int64 [m], positions right after a token that ends a sentence.
    words: common lower-case words; names: words that stand capitalised within sentences.
    """

    ids: np.ndarray
    sentence_ends: np.ndarray
    words: list[str]
    names: list[str]

    @classmethod
    def build(cls, books: dict[str, str], tokenizer: PreTrainedTokenizerFast) -> "Corpus":
        ids: list[int] = []
        for position, text in enumerate(books.values()):
            shown = text if position % 2 else unwrapped(text)
            paragraphs = re.split(r"(?<=\n\n)", shown)
            for encoding in tokenizer.backend_tokenizer.encode_batch(paragraphs):
                ids.extend(encoding.ids)
        array = np.array(ids, dtype=np.uint16)
        ends = [
            token
            for token, index in tokenizer.get_vocab().items()
            if tokenizer.decode([index]).rstrip("\n”\"'’").endswith((".", "!", "?"))
        ]
        is_end = np.isin(array, tokenizer.convert_tokens_to_ids(ends))
        words, names = _vocabulary(books)
        return cls(array, np.flatnonzero(is_end) + 1, words, names)

    def save(self, path: Path) -> None:
        np.savez(
            path,
            ids=self.ids,
            sentence_ends=self.sentence_ends,
            words=np.array(self.words),
            names=np.array(self.names),
        )

    @classmethod
    def load(cls, path: Path) -> "Corpus":
        with np.load(path) as data:
            return cls(
                data["ids"],
                data["sentence_ends"],
                data["words"].tolist(),
                data["names"].tolist(),
            )


def _vocabulary(books: dict[str, str]) -> tuple[list[str], list[str]]:
    """Words to draw entities from: frequent enough to be words, rare enough to tell apart."""
    lower: Counter[str] = Counter()
    upper: Counter[str] = Counter()
    for text in books.values():
        lower.update(re.findall(r"(?<![A-Za-z'’-])[a-z]{4,10}(?![a-z'’-])", text))
        upper.update(re.findall(r"(?<=[a-z,] )[A-Z][a-z]{3,10}(?![a-z'’-])", text))
    words = sorted(word for word, count in lower.items() if 30 <= count <= 3000)
    names = sorted(
        word for word, count in upper.items() if count >= 8 and lower[word.lower()] < count // 4
    )
    return words, names
