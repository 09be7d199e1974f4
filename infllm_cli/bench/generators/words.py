"""Words, keys and values to hide: drawn fresh, never twice in a context."""

import uuid
from collections.abc import Iterator
from functools import cache
from random import Random


@cache
def word_list(*parts: str) -> tuple[str, ...]:
    """English words of the given parts of speech (noun, adjective, verb), sorted."""
    from wonderwords import RandomWord

    words = RandomWord().filter(include_categories=list(parts))
    return tuple(sorted({word for word in words if word.isascii() and word.isalpha()}))


def word_pair(rng: Random) -> str:
    """Such as "vague-harbor"; there are some millions."""
    return f"{rng.choice(word_list('adjective'))}-{rng.choice(word_list('noun'))}"


def number(rng: Random, digits: int = 7) -> str:
    return str(rng.randrange(10 ** (digits - 1), 10**digits))


def uuid4(rng: Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def digit_runs(rng: Random) -> str:
    """Ten digits in runs of two to four, such as "7773300999"."""
    text = ""
    while len(text) < 10:
        digit = rng.choice([d for d in "0123456789" if not text.endswith(d)])
        text += digit * rng.choice([2, 3, 3, 4])
    return text[:10]


KINDS = {
    "words": word_pair,
    "numbers": number,
    "uuids": uuid4,
    "digit_runs": digit_runs,
    "passkeys": lambda rng: number(rng, 5),
}


def fresh(kind: str, rng: Random, seen: set[str]) -> str:
    """A key or value of a kind in KINDS that is not in `seen`, where it is noted."""
    draw = KINDS[kind]
    while (text := draw(rng)) in seen:
        pass
    seen.add(text)
    return text


def distinct_words(rng: Random) -> Iterator[str]:
    """Words without end, each once: all single ones in a random order, then pairs."""
    singles = list(word_list("noun", "adjective", "verb"))
    rng.shuffle(singles)
    yield from singles
    seen: set[str] = set()
    while True:
        yield fresh("words", rng, seen)
