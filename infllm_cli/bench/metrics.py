"""How an answer is scored: every metric of the suites by name, ours and the official one.

Where an official scorer has a defect, ours is right and the other reproduces it; README.md
beside this file lists each such difference with an example.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from infllm.cli.bench import choices, matches, overlap
from infllm.cli.bench.sample import Asked, Turn

Options = Mapping[str, Any]
Scorer = Callable[[str, Turn, Options], float]


@dataclass(frozen=True)
class Metric:
    """A scorer of ours and the suites' own; `options` it takes, `libraries` it imports."""

    ours: Scorer
    official: Scorer
    libraries: tuple[str, ...] = ()
    options: frozenset[str] = frozenset({"first_line"})
    extra: frozenset[str] = frozenset()  # keys that a turn's `extra` must have


def score(task: Asked, turn: Turn, answer: str, official: bool = False) -> float:
    """How right an answer is, 0 to 1. An answer never raises: what says nothing scores 0."""
    metric = METRICS[task.metric]
    if task.metric_options.get("first_line"):
        answer = (answer.lstrip("\n") if official else answer.strip()).split("\n")[0]
    if not answer.strip():
        return 0.0
    scorer = metric.official if official else metric.ours
    return min(1.0, max(0.0, float(scorer(answer, turn, task.metric_options))))


def check_options(name: str, options: Options) -> None:
    """Raises ValueError for a metric that does not exist or an option that it does not take."""
    if name not in METRICS:
        raise ValueError(f"metric: no metric {name!r}; there are: {', '.join(METRICS)}")
    unknown = sorted(options.keys() - METRICS[name].options)
    if unknown:
        raise ValueError(f"metric_options: {name} takes no {unknown[0]!r}")


def _best(scorer: Callable[[str, str], float]) -> Scorer:
    """The best score over the references."""
    return lambda answer, turn, _: max(scorer(answer, reference) for reference in turn.references)


def _listed(scorer: Callable[[str, tuple[str, ...]], float]) -> Scorer:
    """A scorer that looks at all references at once."""
    return lambda answer, turn, _: scorer(answer, turn.references)


def _f1(words: overlap.Words) -> Scorer:
    return _best(lambda answer, reference: overlap.f1_or_equal(answer, reference, words))


def _official_f1(words: overlap.Words) -> Scorer:
    return _best(lambda answer, reference: overlap.f1(words(answer), words(reference)))


def _classes(scorer: Callable[[str, str, Any], float]) -> Scorer:
    return lambda answer, turn, _: max(
        scorer(answer, reference, turn.extra["all_classes"]) for reference in turn.references
    )


def _labels(scorer: Callable[[str, str, str, Any], float]) -> Scorer:
    return lambda answer, turn, options: max(
        scorer(answer, reference, turn.extra["question"], options["labels"])
        for reference in turn.references
    )


METRICS: dict[str, Metric] = {
    "qa_f1": Metric(_f1(overlap.english_words), _official_f1(overlap.english_words)),
    "qa_f1_zh": Metric(
        _f1(overlap.chinese_words), _official_f1(overlap.official_chinese_words), ("jieba",)
    ),
    "qa_f1_characters": Metric(
        _f1(overlap.chinese_characters), _official_f1(overlap.official_chinese_characters)
    ),
    "rouge_l": Metric(_best(overlap.rouge_l), _best(overlap.official_rouge_l), ("rouge_score",)),
    "rouge_l_zh": Metric(
        _best(overlap.rouge_l_chinese),
        _best(overlap.official_rouge_l_chinese),
        ("rouge_score", "jieba"),
    ),
    "rouge_lsum": Metric(_best(overlap.rouge_lsum), _best(overlap.rouge_lsum), ("rouge_score",)),
    "classification": Metric(
        _classes(choices.class_named),
        _classes(choices.official_class_named),
        extra=frozenset({"all_classes"}),
    ),
    "code_sim": Metric(
        _best(overlap.code_similarity), _best(overlap.official_code_similarity), ("rapidfuzz",)
    ),
    "share_of_numbers": Metric(
        _listed(matches.share_of_numbers), _listed(matches.share_of_numbers)
    ),
    "choice": Metric(_listed(choices.right_choice), _listed(choices.official_longbench2_choice)),
    "book_choice": Metric(_listed(choices.right_choice), _listed(choices.official_book_choice)),
    "code_choice": Metric(_listed(choices.right_choice), _listed(choices.official_code_choice)),
    "string_match_all": Metric(_listed(matches.all_held), _listed(matches.official_all_held)),
    "string_match_part": Metric(_listed(matches.one_held), _listed(matches.official_one_held)),
    "first_number": Metric(_listed(matches.first_number), _listed(matches.official_first_number)),
    "word": Metric(_listed(matches.word), _listed(matches.word)),
    "last_integer": Metric(_listed(matches.last_integer), _listed(matches.official_last_integer)),
    "first_value": Metric(_listed(matches.first_value), _listed(matches.official_first_value)),
    "values_in_order": Metric(
        _listed(matches.values_in_order), _listed(matches.official_values_in_order)
    ),
    "name": Metric(_listed(matches.name_said), _listed(matches.official_name_said)),
    "only_label": Metric(
        _labels(choices.only_label),
        _labels(choices.official_only_label),
        options=frozenset({"first_line", "labels"}),
        extra=frozenset({"question"}),
    ),
    "exact": Metric(_listed(matches.same), _listed(matches.same)),
}
