"""The real text: books from a folder, some held out entirely for evaluation."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

HELD_OUT = ("frankenstein", "the-moonstone", "walden-and-on-the-duty-of-civil-disobedience",
            "the-war-of-the-worlds")  # fmt: skip

# "A|An|The subject is|are|means a|an|the ... ." as a whole sentence.
_DEFINITION = re.compile(
    r"(?:(?<=[.!?;] )|(?<=\n))(?:(?P<article>An?|The) )?"
    r"(?P<subject>[A-Za-z][a-z]+(?:[ -][a-z]+){0,3}) (?:is|are|was|means) (?:an?|the|that)"
    r" [^.!?;:\n\"“”_\[\]]{25,150}(?<!Mr)(?<!Mrs)(?<!Dr)\."
)
# Words that make a subject mean nothing by itself.
_VAGUE = frozenset(
    re.split(
        r"\s+",
        """it he she this that these those there here what who which i you we they such one nothing
        everything all another other first second third last next same only and or but so if when
        where why how then yet as for in on at to of by with from his her their its my our your
        him them me us not no some any each every more most many much thing things case question
        answer point fact matter reason result consequence rest whole latter former following
        truth idea chief great greatest best whose now never nor perhaps indeed thus hence
        therefore mine yours hers theirs ours""",
    )
)

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
    definitions: what a sentence says that something is, and the sentence.
    """

    ids: np.ndarray
    sentence_ends: np.ndarray
    words: list[str]
    names: list[str]
    definitions: list[tuple[str, str]]

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
        definitions = [pair for text in books.values() for pair in definitions_in(text)]
        return cls(array, np.flatnonzero(is_end) + 1, words, names, definitions)

    def save(self, path: Path) -> None:
        np.savez(
            path,
            ids=self.ids,
            sentence_ends=self.sentence_ends,
            words=np.array(self.words),
            names=np.array(self.names),
            definitions=np.array(self.definitions, dtype=str).reshape(-1, 2),
        )

    @classmethod
    def load(cls, path: Path) -> "Corpus":
        with np.load(path) as data:
            return cls(
                data["ids"],
                data["sentence_ends"],
                data["words"].tolist(),
                data["names"].tolist(),
                [(subject, sentence) for subject, sentence in data["definitions"].tolist()],
            )


def definitions_in(text: str) -> list[tuple[str, str]]:
    """Subject and sentence of each plain definition in `text`: "A republic is a government in
    which ..." gives "republic"; each subject once."""
    found: dict[str, str] = {}
    for match in _DEFINITION.finditer(unwrapped(text)):
        subject = match["subject"]
        if match["article"] is None and not subject[0].isupper():
            continue
        words = subject.lower().split()
        if not _VAGUE.isdisjoint(words):
            continue
        found.setdefault(subject if match["article"] is None else subject.lower(), match[0].strip())
    return list(found.items())


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
