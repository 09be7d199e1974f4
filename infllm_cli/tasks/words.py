"""What the words of a question are worth in a text, and where they stand together."""

import math
import re

import numpy as np

SPAN = 160  # characters: places are looked for in steps of this
PLACES = 3
FREQUENT = 4096  # a word that stands in a text more often says too little to be looked for

# English words that ask, and that a text may have rarely: they tell of the form alone.
_ASKING = """
a an and any are at be been by can could did do does for from had has have how i in is it its many
me mentioned much of on or provided tell text that the their there these they this to was we were
what when where which who whom whose why will with would you your
"""
ASKING = frozenset(_ASKING.split())
ASKING_WORTH = 0.25  # of another word's

_WORD = re.compile(r"\w+(?:[-'\u2019]\w+)*")


def words_of(text: str) -> set[str]:
    """The words of a text, in lower case; hyphens and apostrophes inside belong to them."""
    return set(_WORD.findall(text.lower()))


class Words:
    """What the words of a question and its answer are worth: the rarer in the text, the more.

    `told_share` is the answer's part of the support that a sentence can give.
    """

    def __init__(self, text: str, question: str, answer: str, told_share: float) -> None:
        self._lowered = _lower(text)
        asked, told = words_of(question), words_of(answer)
        total = max(2, len(text) // 6)  # words of the text, about
        # Substrings count, which makes short words cheap, as they should be.
        self._occurrences = {word: self._lowered.count(word) for word in asked | told}
        self._worth = {
            word: max(0.0, math.log(total / (1 + count))) * (ASKING_WORTH if word in ASKING else 1)
            for word, count in self._occurrences.items()
        }
        self._asked = sum(self._worth[word] for word in asked)
        self._told = sum(self._worth[word] for word in told)
        self._asked_words, self._told_words = asked, told
        self._told_share = told_share
        whole = " ".join(answer.lower().split()).strip(" .")
        # Not inside of a longer word or number, where the script tells words apart.
        apart = rf"(?<![a-z0-9]){re.escape(whole)}(?![a-z0-9])"
        self._answer = re.compile(apart) if whole else None

    def support(self, sentence: str) -> float:
        """How much of the question's and of the answer's words `sentence` has, 0..1."""
        found = words_of(sentence)
        asked = sum(self._worth[w] for w in self._asked_words & found) / (self._asked or 1.0)
        told = sum(self._worth[w] for w in self._told_words & found) / (self._told or 1.0)
        if self._answer and self._answer.search(" ".join(sentence.lower().split())):
            told = 1.0
        share = self._told_share
        return (1 - share) * asked + share * told if self._told_words else asked

    def places(self, limit: int = PLACES) -> list[tuple[int, int]]:
        """Where most of the question's words stand near each other, best first.

        Ranges of characters; none where no word of the question is rare enough to tell anything.
        """
        looked_for = [
            word
            for word in sorted(self._asked_words - ASKING)
            if 0 < self._occurrences[word] <= FREQUENT
        ]
        if not looked_for:
            return []
        worth = np.zeros(len(self._lowered) // SPAN + 2)
        for word in looked_for:
            here = np.zeros(len(worth), dtype=bool)
            here[[at // SPAN for at in _whole(self._lowered, word)]] = True
            here[:-1] |= here[1:]  # a place is two steps long
            worth[here] += self._worth[word]
        found: list[tuple[int, int]] = []
        while len(found) < limit and worth.max() > 0:
            best = int(worth.argmax())
            found.append((best * SPAN, min((best + 2) * SPAN, len(self._lowered))))
            worth[max(0, best - 1) : best + 2] = 0
        return found


def _lower(text: str) -> str:
    """In lower case, each character where it was."""
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered
    return "".join(low if len(low := c.lower()) == 1 else c for c in text)


def _whole(text: str, word: str) -> list[int]:
    """Where `word` begins, not as a part of a longer one."""
    found, at = [], text.find(word)
    while at >= 0:
        before, after = text[at - 1 : at], text[at + len(word) : at + len(word) + 1]
        if not (before.isalnum() or after.isalnum()):
            found.append(at)
        at = text.find(word, at + len(word))
    return found
