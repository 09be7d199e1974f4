"""Text to hide things in: sentences of a text, or one sentence over and over, at any size."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
_SENTENCE_GAP = re.compile(r"(?<=[.!?]) +")


class Filler:
    """Pieces in a row, begun again when they run out, joined by `joint`."""

    def __init__(self, pieces: Sequence[str], joint: str) -> None:
        self.pieces = list(pieces)
        self.joint = joint
        self.ends = list(accumulate(len(piece) + len(joint) for piece in self.pieces))

    def take(self, characters: int) -> list[str]:
        """Pieces that are `characters` long when joined, or a word less: the last may be cut."""
        if characters <= 0:
            return []
        whole, rest = divmod(characters, self.ends[-1])
        count = bisect_right(self.ends, rest)
        taken = self.pieces * whole + self.pieces[:count]
        left = rest - (self.ends[count - 1] if count else 0)
        last = cut(self.pieces[count], left)
        return [*taken, last] if last else taken

    def hide(self, hidden: Sequence[tuple[float, str]], characters: int) -> str:
        """`hidden` (depth 0 to 1, text; in order of depth) among pieces, `characters` in all."""
        room = characters - sum(len(text) + len(self.joint) for _, text in hidden)
        pieces = self.take(room)
        parts: list[str] = []
        start = 0
        for depth, text in hidden:
            end = round(depth * len(pieces))
            parts += [*pieces[start:end], text]
            start = end
        return self.joint.join([*parts, *pieces[start:]])


def cut(text: str, characters: int) -> str:
    """The beginning of `text`, at most `characters` long, ended where a word ends."""
    if len(text) <= characters:
        return text
    if characters <= 0:
        return ""
    return text[: text.rfind(" ", 0, characters + 1)] if " " in text[: characters + 1] else ""


def noise(joint: str = "\n") -> Filler:
    """The sentences about grass, sky and sun that passkey tests use."""
    return Filler([NOISE], joint)


@lru_cache(maxsize=2)
def sentences(text: str) -> Filler:
    """The sentences of a text whose white space is single blanks."""
    return Filler(_SENTENCE_GAP.split(text), " ")
