"""Passkey retrieval: a number hidden in filler of a wanted length, asked for at the end."""

import re
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from infllm.cli.errors import UsageError
from infllm.cli.options import Sampling
from infllm.cli.progress import Progress
from infllm.cli.reading import feed
from infllm.cli.tasks.answer import generate_answer
from infllm.cli.tasks.policies import session_overrides

if TYPE_CHECKING:
    from infllm.engine import Engine
    from infllm.engine.text import Tokenizer

HEAD = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize "
    "them. I will quiz you about the important information there.\n\n"
)
FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
NEEDLE = "The pass key is {key}. Remember it. {key} is the pass key."
QUESTION = "What is the pass key?"
ANSWER_TOKENS = 24
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True)
class Case:
    """One document to read: its prompt is `length` tokens or a few less, the key at `depth` %."""

    length: int
    depth: float
    trial: int
    key: str


@dataclass(frozen=True)
class Trial:
    """The outcome of one case under one policy. `tokens` were read in `seconds`."""

    length: int
    depth: float
    policy: str
    expected: str
    got: str
    correct: bool
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Score:
    """Right answers of one policy, over all trials and by length."""

    accuracy: float
    correct: int
    trials: int
    by_length: dict[int, float]


def plan_cases(
    lengths: Sequence[int], depths: Sequence[float], trials: int, digits: int, seed: int
) -> list[Case]:
    """`trials` cases per length. Without `depths` they are spread evenly over 0 to 100 %.

    A case depends on the seed, its length and its number alone, so that adding lengths, policies
    or trials changes no other case.
    """
    cases = []
    for length in lengths:
        for trial in range(trials):
            if depths:
                depth = depths[trial % len(depths)]
            else:
                depth = 100 * trial / (trials - 1) if trials > 1 else 50.0
            rng = Random(f"passkey {seed} {length} {trial} {digits}")
            key = str(rng.randrange(10 ** (digits - 1), 10**digits))
            cases.append(Case(length, round(depth, 2), trial, key))
    return cases


class Haystack:
    """Filler as token ids, cut to any length and opened at sentence ends.

    The filler is tokenized once; a million tokens of it are copies of these ids.
    """

    def __init__(self, tokenizer: "Tokenizer", filler: str = FILLER):
        if not filler.strip():
            raise UsageError("the filler has no text", "give --filler a text file, or 'classic'")
        text = " " + filler.strip()
        self.tokenizer = tokenizer
        self.ids = tokenizer.encode(text)
        ends = {match.start() for match in _SENTENCE_END.finditer(text)}
        starts = {match.end() for match in _SENTENCE_END.finditer(text)}
        # A sentence ends before the token that begins with the white space after it, or, where
        # white space is a token of its own, before the first token of the next sentence.
        offsets = tokenizer.offsets(text, self.ids)
        self.breaks = [i for i, at in enumerate(offsets) if i and (at in ends or at in starts)]
        self.breaks.append(len(self.ids))

    def document(self, case: Case, around: int) -> list[int]:
        """Head, filler and needle: with `around` prompt tokens at most `case.length` tokens.

        Raises:
            UsageError: the length holds not even the key.
        """
        head = self.tokenizer.encode(HEAD)
        needle = self.tokenizer.encode(" " + NEEDLE.format(key=case.key))
        room = case.length - around - len(head) - len(needle)
        if room < 0:
            raise UsageError(
                f"a length of {case.length} tokens is too short: the prompt without filler takes "
                f"{case.length - room}",
                "choose a longer --len",
            )
        whole, rest = divmod(room, len(self.ids))
        filler = self.ids * whole + self.ids[:rest]
        at = self._break_near(round(room * case.depth / 100), room)
        return [*head, *filler[:at], *needle, *filler[at:]]

    def _break_near(self, wanted: int, room: int) -> int:
        """The sentence end nearest to `wanted`, or the beginning of the filler."""
        cycle = len(self.ids)
        near = {0}
        for turn in (wanted // cycle - 1, wanted // cycle, wanted // cycle + 1):
            offset = wanted - turn * cycle
            i = bisect_left(self.breaks, offset)
            near.update(turn * cycle + at for at in self.breaks[max(0, i - 1) : i + 1])
        return min((at for at in near if 0 <= at <= room), key=lambda at: abs(at - wanted))


def run_passkey(
    engine: "Engine",
    cases: Sequence[Case],
    policies: Sequence[str],
    haystack: Haystack,
    progress: Progress,
) -> Iterator[Trial]:
    """Every case under every policy, each in a fresh session, as soon as it is done.

    Raises:
        Interrupted: Ctrl-C.
    """
    from infllm.engine.text import build_prompt

    tokenizer = engine.tokenizer
    prompt = build_prompt(tokenizer, engine.config, "passkey", question=QUESTION)
    around = len(prompt.head_ids) + len(prompt.tail_ids)
    sampling = Sampling(max_new_tokens=ANSWER_TOKENS)
    for case in cases:
        document = [*prompt.head_ids, *haystack.document(case, around)]
        for policy in policies:
            progress.rename(f"{policy} {case.length:,} at {case.depth:g}%")
            started = time.monotonic()
            session = engine.session(overrides=session_overrides(policy))
            feed(session, document, engine.config.chunk_size, progress)
            feed(session, prompt.tail_ids, engine.config.chunk_size, progress)
            answer = generate_answer(session, tokenizer, sampling)
            if answer.finish == "interrupted":
                raise KeyboardInterrupt
            got = first_number(answer.text)
            yield Trial(
                case.length,
                case.depth,
                policy,
                case.key,
                got,
                got == case.key,
                len(document) + len(prompt.tail_ids),
                round(time.monotonic() - started, 3),
            )


def first_number(text: str) -> str:
    """The first run of digits in an answer, or the answer itself where there is none."""
    found = re.search(r"\d+", text)
    return found.group() if found else text.strip()


def score(trials: Sequence[Trial]) -> dict[str, Score]:
    """Scores by policy, in the order in which the policies first appear."""
    scores = {}
    for policy in dict.fromkeys(trial.policy for trial in trials):
        mine = [trial for trial in trials if trial.policy == policy]
        lengths = dict.fromkeys(trial.length for trial in mine)
        by_length = {n: _accuracy([t for t in mine if t.length == n]) for n in lengths}
        right = sum(trial.correct for trial in mine)
        scores[policy] = Score(_accuracy(mine), right, len(mine), by_length)
    return scores


def _accuracy(trials: Sequence[Trial]) -> float:
    return sum(trial.correct for trial in trials) / len(trials)
