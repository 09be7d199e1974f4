"""Sets of words, written as the words."""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())
