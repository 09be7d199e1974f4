"""Scores by overlap with a reference: F1 of words, ROUGE, similarity of code."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
_COMMENT = re.compile(r"\s*(//|#(?!include|define|if|endif|else|pragma|!)|```|/\*|\*/)")
# What the suites' scorers take for Chinese punctuation. Ours takes all that Unicode calls so.
_ZH_PUNCTUATION = str.maketrans("", "", string.punctuation + (
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."
))  # fmt: skip

Words = Callable[[str], list[str]]


def english_words(text: str) -> list[str]:
    """Lower case, without punctuation and articles (SQuAD's normal form)."""
    return _ARTICLES.sub(" ", text.lower().translate(_ASCII_PUNCTUATION)).split()


def chinese_words(text: str) -> list[str]:
    """Words as jieba cuts them, without punctuation and white space (LongBench)."""
    words = (_bare(word) for word in _cut(text))
    return [word for word in words if word]


def chinese_characters(text: str) -> list[str]:
    """Characters, without punctuation and white space (InfiniteBench)."""
    return list(_bare(text))


def official_chinese_words(text: str) -> list[str]:
    words = ("".join(word.lower().translate(_ZH_PUNCTUATION).split()) for word in _cut(text))
    return [word for word in words if word]


def official_chinese_characters(text: str) -> list[str]:
    return list("".join(text.lower().translate(_ZH_PUNCTUATION).split()))


def _bare(text: str) -> str:
    kept = (c for c in text.lower() if unicodedata.category(c)[0] not in "PSZC")
    return "".join(kept)


def _cut(text: str) -> list[str]:
    return list(_jieba().cut(text, cut_all=False))


@cache
def _jieba() -> Any:
    import logging
    import warnings

    with warnings.catch_warnings():  # of escapes in its source, and of pkg_resources
        warnings.simplefilter("ignore")
        import jieba
    jieba.setLogLevel(logging.WARNING)
    return jieba


def f1(answer: Sequence[str], reference: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of words, counted as often as they occur."""
    same = sum((Counter(answer) & Counter(reference)).values())
    if same == 0:
        return 0.0
    return 2 * same / (len(answer) + len(reference))


def f1_or_equal(answer: str, reference: str, words: Words) -> float:
    """F1; a text of which the normal form leaves nothing ("The A") counts if it is the same."""
    ours, theirs = words(answer), words(reference)
    if not ours and not theirs:
        return float(answer.strip().lower() == reference.strip().lower())
    return f1(ours, theirs)


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L F-measure of English text, as rouge-score defines it, without stemming."""
    return _scorer(None, "rougeL").score(reference, answer)["rougeL"].fmeasure


def rouge_l_chinese(answer: str, reference: str) -> float:
    """ROUGE-L F-measure over words as jieba cuts them."""
    return _scorer("zh", "rougeL").score(reference, answer)["rougeL"].fmeasure


def rouge_lsum(answer: str, reference: str) -> float:
    """ROUGE-Lsum F-measure; a sentence is a line, as rouge-score has it."""
    return _scorer(None, "rougeLsum").score(reference, answer)["rougeLsum"].fmeasure


class _ChineseTokenizer:
    def tokenize(self, text: str) -> list[str]:
        return [word for word in _cut(text) if word.strip()]


@cache
def _scorer(language: str | None, kind: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([kind], tokenizer=_ChineseTokenizer() if language == "zh" else None)


def official_rouge_l(answer: str, reference: str) -> float:
    """LongBench's ROUGE-L, that of the package `rouge` 1.0.1.

    Sentences end at full stops; of all pairs of sentences the longest common subsequences are
    joined, and of answer, reference and join the *distinct* words are counted.
    """
    ours, theirs = _sentences(answer), _sentences(reference)
    union = {word for b in theirs for a in ours for word in _common(b, a)}
    recalled = len(union) / max(1, len({word for sentence in theirs for word in sentence}))
    precise = len(union) / max(1, len({word for sentence in ours for word in sentence}))
    return 2 * recalled * precise / (recalled + precise + 1e-8)


def official_rouge_l_chinese(answer: str, reference: str) -> float:
    return official_rouge_l(" ".join(_cut(answer)), " ".join(_cut(reference)))


def _sentences(text: str) -> list[list[str]]:
    return [" ".join(part.split()).split(" ") for part in text.split(".") if part]


def _common(x: list[str], y: list[str]) -> list[str]:
    """One longest common subsequence, the one that backtracking from the ends gives."""
    table = [[0] * (len(y) + 1) for _ in range(len(x) + 1)]
    for i, a in enumerate(x, 1):
        row, above = table[i], table[i - 1]
        for j, b in enumerate(y, 1):
            row[j] = above[j - 1] + 1 if a == b else max(above[j], row[j - 1])
    found = []
    i, j = len(x), len(y)
    while i and j:
        if x[i - 1] == y[j - 1]:
            found.append(x[i - 1])
            i, j = i - 1, j - 1
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return found


def code_similarity(answer: str, reference: str) -> float:
    """Edit similarity of the first line of code in an answer, comments and fences left out."""
    lines = (line for line in answer.splitlines() if line.strip() and not _COMMENT.match(line))
    return _ratio(next(lines, "").strip(), reference.strip())


def official_code_similarity(answer: str, reference: str) -> float:
    """LongBench's: the first line without a mark of comments anywhere in it, to whole percents."""
    lines = answer.lstrip("\n").split("\n")
    line = next((line for line in lines if not any(m in line for m in ("`", "#", "//"))), "")
    return round(100 * _ratio(line, reference)) / 100


def _ratio(answer: str, reference: str) -> float:
    from rapidfuzz import fuzz

    return fuzz.ratio(answer, reference) / 100 if answer and reference else 0.0
