"""Texts for the built-in model: short, the same every time, with facts that it is able to find."""

import random

NAMES = ("Ada Finch", "Bert Stone", "Cleo Marsh", "Dora Vale", "Emil Birch", "Fay Holt")
VERBS = ("walked along", "looked over", "swept", "painted", "measured", "left")
THINGS = ("the quay", "the long pier", "the boat house", "the market", "the mill", "the bridge")
TIMES = ("in the morning", "at noon", "before the rain", "after supper", "all day", "late at night")


def story(sentences: int, *facts: str, seed: int = 0) -> str:
    """So many sentences of about 15 tokens, and facts at equal distances among them."""
    chance = random.Random(seed)
    told = [
        f"{chance.choice(NAMES)} {chance.choice(VERBS)} {chance.choice(THINGS)} "
        f"{chance.choice(TIMES)}."
        for _ in range(sentences)
    ]
    for number, fact in enumerate(facts, start=1):
        told.insert(number * len(told) // (len(facts) + 1), fact)
    return " ".join(told) + "\n"


def fact(place: str, number: str) -> str:
    return f"The special magic number for {place} is {number}."


def question(place: str) -> str:
    return f"What is the special magic number for {place} mentioned in the provided text?"
