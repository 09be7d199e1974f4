"""Samples are seeded, of exact length, and hold the facts that they ask for."""

import json
import re
from random import Random

import numpy as np
import pytest

from training.corpus import HELD_OUT, definitions_in, training_books, unwrapped
from training.data import ANSWER_WEIGHT, PLANTED, SHORT_KINDS, TEXT_WEIGHT, Mix, Sampler
from training.facts import NOT_SAID, passkey, unsaid


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


def spans(ids: np.ndarray, answers: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """What stands before the first answer, and each answer, of one sample."""
    edges = np.flatnonzero(np.diff(answers.astype(int), prepend=0, append=0))
    return [(ids[: edges[0]], ids[a:b]) for a, b in edges.reshape(-1, 2)]


@pytest.mark.parametrize("length", [128, 257, 1000])
def test_a_document_answers_what_it_asks(sampler, tokenizer, length):
    batch = sampler.batch("seed", 12, length, Mix(repeats=0.0, questions=0.6, json=0.4))
    assert batch.ids.shape == (12, length)
    assert (batch.ids[:, 0] == tokenizer.bos_token_id).all()
    assert batch.answers.any(axis=1).sum() >= 9  # a fact too long for its sample is left out
    assert (batch.weights[batch.answers] == ANSWER_WEIGHT).all()
    for ids, answers in zip(batch.ids, batch.answers, strict=True):
        for before, answer in spans(ids, answers):
            assert answer[-1] == tokenizer.eos_token_id
            said = tokenizer.decode(answer[:-1]).strip()
            parts = re.split(r", and |, | and |(?<=\.) ", said) if said != NOT_SAID else []
            # of a list every item; of a sentence with such words in it every part
            assert all(part in tokenizer.decode(before) for part in parts)


def test_text_is_predicted_in_part_and_answers_always(sampler):
    batch = sampler.batch("7", 8, 512, Mix(repeats=0.0, questions=1.0))
    text = batch.weights[~batch.answers]
    assert set(np.unique(text)) == {0.0, TEXT_WEIGHT}
    assert 0.2 < (text > 0).mean() < 0.3
    whole = sampler.batch("7", 8, 512, Mix(repeats=0.5, questions=0.5, text=1.0))
    assert (whole.weights > 0).all()


def test_what_is_not_said_comes_by_its_share(sampler):
    def denied(unsaid: float) -> float:
        mix = Mix(repeats=0.0, questions=1.0, kinds=SHORT_KINDS, unsaid=unsaid)
        drawn = [sampler.facts(Random(seed), 256, mix) for seed in range(100)]
        facts = [fact for facts in drawn for fact in facts]
        return sum(fact.answer == NOT_SAID for fact in facts) / len(facts)

    assert denied(0.0) == 0.0
    assert 0.0 < denied(0.2) < denied(0.6)


@pytest.mark.parametrize("kind", PLANTED)
def test_facts_of_one_document_are_drawn_fresh(sampler, kind):
    draws = [sampler.draw(Random(seed)) for seed in range(40)]
    made = [fact for draw in draws for fact in PLANTED[kind](draw, 4)]
    statements = [fact.statements for fact in made]
    fresh = 0.5 if kind == "definitions" else 0.95  # a quarter of these are as in the book
    assert len(set(statements)) > fresh * len(statements)
    for fact in made:
        assert all(any(part in said for said in fact.statements) for part in fact.parts)
        assert not any(part in fact.question for part in fact.parts)


def test_the_last_statement_of_a_changing_fact_counts(sampler):
    rng = Random(3)
    facts = PLANTED["latest"](sampler.draw(rng), 6)
    told = [[sampler.encode(f" {s}") for s in fact.statements] for fact in facts]
    text = sampler.core.decode(sampler.hidden(rng, told, 200))
    for fact in facts:
        places = [text.index(statement) for statement in fact.statements]
        assert places == sorted(places)
        assert fact.answer in fact.statements[-1]


def test_what_is_not_said_is_not_in_the_document(sampler, tokenizer):
    fact = unsaid(PLANTED["magic"](sampler.draw(Random(1)), 1)[0])
    told = PLANTED["magic"](sampler.draw(Random(2)), 3)
    ids, mask = sampler.document(Random(3), 800, [*told, fact])
    answers = [
        tokenizer.decode(answer[:-1]).strip() for _, answer in spans(np.array(ids), np.array(mask))
    ]
    assert sorted(answers) == sorted([*(f.answer for f in told), NOT_SAID])


def test_a_json_document_is_json(sampler, tokenizer):
    ids, mask = sampler.json_document(Random(1), 700)
    before = spans(np.array(ids), np.array(mask))[0][0]
    text = tokenizer.decode(before)
    entries = json.loads(text[text.index("{") : text.rindex("}") + 1])
    assert len(entries) >= 5
    for _, answer in spans(np.array(ids), np.array(mask)):
        assert tokenizer.decode(answer[:-1]).strip().strip('"') in entries.values()


def test_definitions_are_found_in_real_text():
    text = (
        "He sat down. A republic is a government in which the people rule by\n"
        "those they choose. It is a thing of some\nuse to all who see it.\n\n"
        "The Kirwin was a magistrate of some standing in the town. There is a way."
    )
    assert definitions_in(text) == [
        (
            "republic",
            "A republic is a government in which the people rule by those they choose.",
        ),
        ("kirwin", "The Kirwin was a magistrate of some standing in the town."),
    ]


def test_passkeys_are_of_three_to_seven_digits(sampler):
    keys = [passkey(sampler.draw(Random(seed))).answer for seed in range(300)]
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


def test_short_books_are_read_again_where_more_filler_is_wanted(sampler):
    books = sampler.corpus.ids.tolist()
    ids, ends = sampler.filler(Random(0), 2 * len(books) + 100)
    assert len(ids) == 2 * len(books) + 100
    twice = 2 * books
    start = next(
        i for i in range(len(books))
        if twice[i : i + 9] == ids[:9] and twice[i : i + len(books)] == ids[: len(books)]
    )  # fmt: skip
    wanted = [(start + end) % len(books) for end in ends]
    assert set(wanted) <= {end % len(books) for end in sampler.corpus.sentence_ends.tolist()}
    assert len(ends) > 2 * len(sampler.corpus.sentence_ends) - 2
