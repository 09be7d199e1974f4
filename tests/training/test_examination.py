"""Examination documents hold what they ask for, and marks are fair."""

import json
from random import Random

import pytest

from infllm.engine import attach
from training.data import Sampler
from training.examination import (
    KINDS,
    Mark,
    Question,
    definition_documents,
    examine,
    score,
    summary,
)
from training.facts import NOT_SAID, Fact
from training.model import pocket_config


@pytest.fixture(scope="module")
def sampler(corpus, tokenizer) -> Sampler:
    return Sampler(corpus, tokenizer)


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_states_what_it_is_asked_for(sampler, tokenizer, kind):
    document = KINDS[kind](sampler, Random(5), 6000)
    assert len(document.ids) <= 6000
    assert len(document.ids) > 5900
    text = tokenizer.decode(document.ids)
    for question in document.questions:
        for statement in question.fact.statements:
            assert statement in text
        assert question.fact.statements or question.fact.answer == NOT_SAID


def test_a_document_too_short_for_its_facts_is_refused(sampler):
    with pytest.raises(ValueError, match="too few"):
        KINDS["facts"](sampler, Random(5), 500)


def test_definitions_stand_where_the_book_has_them(sampler, tokenizer, books):
    found = list(definition_documents(sampler, books["book-0"], 2000))
    assert sum(len(document.questions) for document in found) > 10
    for document in found:
        for question in document.questions:
            assert question.fact.answer in tokenizer.decode(document.ids)


def test_marks():
    single = Question("passkey", Fact(("x",), "q", "12345"))
    assert score(single, "12345.") == 1
    assert score(single, "123456") == 0
    listed = Question("needle, multi-value", Fact(("x",), "q", "12, 34", values=("12", "34")))
    assert score(listed, "34 and 99") == 0.5
    sentence = Question("what is X", Fact(("x",), "q", "A cat is a small animal of the house."))
    assert score(sentence, "A cat is a small animal of the field.") == 1
    assert score(sentence, "The dog was there.") == 0


def test_a_summary_counts_by_skill_and_tells_false_alarms():
    said = Question("latest", Fact(("x",), "q", "12"))
    unsaid = Question("not said", Fact((), "q", NOT_SAID))
    marks = [
        Mark(said, 0, 1.0, "12"), Mark(said, 1, 0.0, NOT_SAID), Mark(unsaid, 0, 1.0, NOT_SAID),
    ]  # fmt: skip
    figures = summary(marks, Random(0))
    assert figures["latest"]["score"] == 0.5
    assert figures["latest"]["interval"] == [0.0, 1.0]
    assert figures["false alarms"]["score"] == 0.5
    assert figures["not said"] == {
        "score": 1.0, "interval": [1.0, 1.0], "questions": 1, "documents": 1,
    }  # fmt: skip
    json.dumps(figures)


def test_a_document_is_read_once_and_every_question_asked(sampler, tokenizer):
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM(pocket_config(len(tokenizer), 0, 1, 2)).eval()
    document = KINDS["json"](sampler, Random(1), 400)
    with attach(model, tokenizer, "pocket") as engine:
        marks = examine(engine, sampler, document, 7, {"n_local": 64, "exc_block_size": 32})
    assert [mark.question for mark in marks] == document.questions
    assert {mark.document for mark in marks} == {7}
