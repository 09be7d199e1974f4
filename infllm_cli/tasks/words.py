"""What the words of a question and of its answer are worth in a text."""

import math
import re

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

    `told_share` is the answer's part of the support that a sentence can give; `worth` is by word,
    in lower case.
    """

    def __init__(self, text: str, question: str, answer: str, told_share: float) -> None:
        lowered = text.lower()
        asked, told = words_of(question), words_of(answer)
        total = max(2, len(text) // 6)  # words of the text, about
        self.worth = {
            # Substrings count, which makes short words cheap, as they should be.
            word: max(0.0, math.log(total / (1 + lowered.count(word))))
            * (ASKING_WORTH if word in ASKING else 1)
            for word in asked | told
        }
        self._asked = sum(self.worth[word] for word in asked)
        self._told = sum(self.worth[word] for word in told)
        self._asked_words, self._told_words = asked, told
        self._told_share = told_share
        whole = " ".join(answer.lower().split()).strip(" .")
        # Not inside of a longer word or number, where the script tells words apart.
        apart = rf"(?<![a-z0-9]){re.escape(whole)}(?![a-z0-9])"
        self._answer = re.compile(apart) if whole else None

    def support(self, sentence: str) -> float:
        """How much of the question's and of the answer's words `sentence` has, 0..1."""
        found = words_of(sentence)
        asked = sum(self.worth[w] for w in self._asked_words & found) / (self._asked or 1.0)
        told = sum(self.worth[w] for w in self._told_words & found) / (self._told or 1.0)
        if self._answer and self._answer.search(" ".join(sentence.lower().split())):
            told = 1.0
        share = self._told_share
        return (1 - share) * asked + share * told if self._told_words else asked
