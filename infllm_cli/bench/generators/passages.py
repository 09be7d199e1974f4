"""Questions about passages among passages (RULER qa), from a file in SQuAD or HotpotQA format."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Literal

from infllm.cli.bench.generators.base import Fill, Generator, Made, Order, Question
from infllm.cli.bench.generators.filler import cut
from infllm.cli.errors import ExitCode, InfllmError, UsageError

SHORTEST = 12  # characters of a passage that is cut to fill up a context


@dataclass(frozen=True)
class Asked:
    """A question, its answers, and the passages (by number) it needs and those near to them."""

    question: str
    answers: tuple[str, ...]
    needed: tuple[int, ...]
    near: tuple[int, ...] = ()


class Passages(Generator):
    """All that a question needs, other passages around it, numbered, in a random order."""

    TAIL: ClassVar = frozenset({"query"})

    format: Literal["squad", "hotpotqa"]

    def uses_qa(self) -> bool:
        return True

    def plan(self, rng: Random, order: Order) -> Fill:
        path = order.source.qa
        if path is None:
            raise UsageError(
                "this task asks questions from a file of yours, and none was given",
                f"give --qa a JSON file in the format of {self.format}",
            )
        questions, texts = read_passages(path, self.format)
        shuffled = list(range(len(questions)))
        Random(order.source.seed).shuffle(shuffled)
        asked = questions[shuffled[order.index % len(questions)]]
        near = [i for i in asked.near if i not in asked.needed]
        far = [i for i in range(len(texts)) if i not in {*asked.needed, *near}]
        rng.shuffle(near)
        rng.shuffle(far)
        others = near + far
        seed = rng.random()
        question = Question({"query": asked.question}, asked.answers)

        def fill(characters: int) -> Made:
            chosen = [texts[i] for i in asked.needed]
            used = sum(len(text) + _around(i) for i, text in enumerate(chosen))
            taken = 0
            while others:
                text = texts[others[taken % len(others)]]
                size = len(text) + _around(len(chosen))
                if used + size > characters:
                    text = cut(text, characters - used - _around(len(chosen)))
                    if len(text) >= SHORTEST:
                        chosen.append(text)
                    break
                chosen.append(text)
                used += size
                taken += 1
            Random(seed).shuffle(chosen)
            numbered = [f"Document {i}:\n{text}" for i, text in enumerate(chosen, 1)]
            return Made("\n\n".join(numbered), (question,))

        return fill


def _around(index: int) -> int:
    return len(f"Document {index + 1}:\n") + 2


@lru_cache(maxsize=2)
def read_passages(path: Path, format: str) -> tuple[list[Asked], list[str]]:
    """Questions and the distinct passages of a file.

    Raises:
        InfllmError: the file is missing, is not JSON or not of that format.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        questions, texts = (_squad if format == "squad" else _hotpotqa)(data)
    except (OSError, ValueError) as error:
        raise InfllmError(f"{path}: {error}", code=ExitCode.UNREADABLE) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise InfllmError(
            f"{path}: not in the format of {format}: {type(error).__name__} {error}",
            "the file is the one that the data set publishes, train or dev",
            ExitCode.UNREADABLE,
        ) from error
    if not questions:
        raise InfllmError(f"{path}: holds no question with an answer", code=ExitCode.UNREADABLE)
    return questions, texts


def _squad(data: Any) -> tuple[list[Asked], list[str]]:
    articles = [[p["context"] for p in article["paragraphs"]] for article in data["data"]]
    texts = sorted({text for article in articles for text in article})
    number = {text: i for i, text in enumerate(texts)}
    questions = []
    for article in data["data"]:
        near = tuple(dict.fromkeys(number[p["context"]] for p in article["paragraphs"]))
        for p in article["paragraphs"]:
            for qa in p["qas"]:
                answers = tuple(dict.fromkeys(answer["text"] for answer in qa["answers"]))
                if answers and not qa.get("is_impossible", False):
                    questions.append(Asked(qa["question"], answers, (number[p["context"]],), near))
    return questions, texts


def _hotpotqa(data: Any) -> tuple[list[Asked], list[str]]:
    passages = [[f"{title}\n{''.join(said)}" for title, said in each["context"]] for each in data]
    texts = sorted({text for each in passages for text in each})
    number = {text: i for i, text in enumerate(texts)}
    questions = [
        Asked(each["question"], (each["answer"],), tuple(number[text] for text in own))
        for each, own in zip(data, passages, strict=True)
    ]
    return questions, texts
