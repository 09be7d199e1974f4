"""A small corpus made of nothing but a seed, with the tokenizer learnt from it."""

from random import Random

import pytest

from training.corpus import Corpus
from training.tokenizer import train_tokenizer

_SYLLABLES = ("ka", "lo", "mi", "ren", "sta", "vor", "del", "bi", "nu", "tor", "ash", "wen")


def _word(rng: Random) -> str:
    return "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(2, 3)))


def _book(seed: int) -> str:
    rng = Random(seed)
    words = [_word(rng) for _ in range(60)]
    names = [_word(rng).capitalize() + "ia" for _ in range(12)]
    sentences = []
    for _ in range(1500):
        body = [rng.choice(words) for _ in range(rng.randint(4, 9))]
        body.insert(2, rng.choice(names))
        sentences.append(" ".join([body[0].capitalize(), *body[1:]]) + ".")
    for index in range(0, len(sentences), 50):
        predicate = " ".join(rng.choice(words) for _ in range(8))
        sentences[index] = f"The {rng.choice(words)} is a {predicate}."
    paragraphs = [" ".join(sentences[i : i + 5]) for i in range(0, len(sentences), 5)]
    return "\n\n".join(paragraphs)


@pytest.fixture(scope="session")
def books() -> dict[str, str]:
    return {f"book-{seed}": _book(seed) for seed in range(3)}


@pytest.fixture(scope="session")
def tokenizer(books):
    return train_tokenizer(books.values(), vocab_size=1600, repeats=400)


@pytest.fixture(scope="session")
def corpus(books, tokenizer) -> Corpus:
    return Corpus.build(books, tokenizer)
