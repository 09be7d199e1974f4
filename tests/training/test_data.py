"""Samples are seeded, of exact length, and hold the facts that they ask for."""

from random import Random

import numpy as np
import pytest

from training.corpus import HELD_OUT, training_books, unwrapped
from training.data import ANSWER_WEIGHT, Mix, Sampler
from training.facts import Draw, attributes, magic_numbers, passkey, relations


@pytest.fixture(scope="module")
def sampler(corpus, tokenizer) -> Sampler:
    return Sampler(corpus, tokenizer)


def test_the_same_seed_gives_the_same_batch(sampler):
    mix = Mix(repeats=0.3, questions=0.5)
    first, again = (sampler.batch("7", 6, 128, mix) for _ in range(2))
    other = sampler.batch("8", 6, 128, mix)
    assert np.array_equal(first.ids, again.ids)
    assert np.array_equal(first.weights, again.weights)
    assert not np.array_equal(first.ids, other.ids)


@pytest.mark.parametrize("length", [128, 257, 1000])
def test_a_document_asks_only_for_what_it_says(sampler, tokenizer, length):
    batch = sampler.batch("seed", 12, length, Mix(repeats=0.0, questions=1.0))
    assert batch.ids.shape == (12, length)
    assert (batch.ids[:, 0] == tokenizer.bos_token_id).all()
    assert batch.answers.any(axis=1).sum() >= 10  # a fact too long for its sample is left out
    assert (batch.weights[batch.answers] == ANSWER_WEIGHT).all()
    for ids, answers in zip(batch.ids, batch.answers, strict=True):
        edges = np.flatnonzero(np.diff(answers.astype(int))) + 1
        spans = np.split(ids, edges)[1::2]
        document = tokenizer.decode(ids[: edges[0]] if len(edges) else ids)
        for span in spans:
            assert span[-1] == tokenizer.eos_token_id
            assert tokenizer.decode(span[:-1]).strip() in document


@pytest.mark.parametrize("kind", [magic_numbers, attributes, relations])
def test_facts_of_one_document_are_drawn_fresh(corpus, kind):
    draws = [Draw(Random(seed), corpus.words, corpus.names) for seed in range(40)]
    statements = [fact.statement for draw in draws for fact in kind(draw, 4)]
    assert len(set(statements)) > 0.95 * len(statements)
    for draw in draws[:5]:
        for fact in kind(draw, 6):
            assert fact.answer in fact.statement
            assert fact.answer not in fact.question


def test_passkeys_are_of_three_to_seven_digits(corpus):
    keys = [passkey(Draw(Random(seed), corpus.words, corpus.names)).answer for seed in range(300)]
    assert {len(key) for key in keys} == {3, 4, 5, 6, 7}
    assert len(set(keys)) > 280


def test_held_out_books_are_not_trained_on(tmp_path):
    for slug in ("some-book", HELD_OUT[0]):
        (tmp_path / f"{slug}.txt").write_text("A line\nof a book.\n\nAnother.", encoding="utf-8")
    assert list(training_books(tmp_path)) == ["some-book"]


def test_a_folder_without_books_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="no training books"):
        training_books(tmp_path)


def test_unwrapping_keeps_paragraphs():
    assert unwrapped("a line\nof text\n\nnext\n") == "a line of text\n\nnext\n"
