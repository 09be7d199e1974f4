"""Where in a text the words of a question and of its answer stand together."""

from collections import defaultdict
from collections.abc import Mapping

STRETCH = 200  # characters; about a sentence or two
LIMIT = 16  # stretches
MOST = 5000  # a word that stands more often leads nowhere


def stretches(text: str, worth: Mapping[str, float], limit: int = LIMIT) -> list[tuple[int, int]]:
    """The ranges of characters whose words are worth most together, at most `limit`, best first.

    `worth`: of words in lower case, 0 and more; one counts once in a stretch.
    """
    lowered = text.lower()
    if len(lowered) != len(text):  # a few letters have two in lower case
        lowered = "".join(low if len(low := c.lower()) == 1 else c for c in text)
    scores: defaultdict[int, float] = defaultdict(float)
    for word, value in worth.items():
        if value > 0.0:
            for number in _stretches_of(lowered, word):
                scores[number] += value
    # A sentence may lie across the end of one: the better neighbour counts, too.
    both = {
        number: score + max(scores.get(number - 1, 0.0), scores.get(number + 1, 0.0)) / 2
        for number, score in scores.items()
    }
    best = sorted(both, key=lambda number: (-both[number], number))[:limit]
    return [(number * STRETCH, min(len(text), (number + 1) * STRETCH)) for number in best]


def _stretches_of(lowered: str, word: str) -> set[int]:
    """Numbers of the stretches in which a word begins; none for one that stands everywhere."""
    found: set[int] = set()
    at, count = lowered.find(word), 0
    while at >= 0:
        stop = at + len(word)
        before, behind = lowered[at - 1 : at], lowered[stop : stop + 1]
        if not (_joins(before, word[0]) or _joins(behind, word[-1])):
            found.add(at // STRETCH)
        count += 1
        if count > MOST:
            return set()
        at = lowered.find(word, stop)
    return found


def _joins(neighbour: str, end: str) -> bool:
    """Whether a word goes on beyond its end, where the script tells words apart."""
    return neighbour.isascii() and neighbour.isalnum() and end.isascii()
