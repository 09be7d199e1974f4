"""A run learns, logs JSON lines, and goes on from its checkpoint as if never interrupted."""

import io
import json

import pytest
import torch

from training.data import Mix
from training.export import export
from training.optim import orthogonalized
from training.skills import SKILLS
from training.train import Phase, Trainer, phase_at, prepare, rate_at, run

PHASES = (
    Phase(0.0, 48, 4, Mix(repeats=0.6, questions=0.2), 0.0, 48),
    Phase(0.5, 64, 3, Mix(repeats=0.4, questions=0.4), 0.5, 16),
)
TOKENS = 10 * 4 * 48


@pytest.fixture
def make(corpus, tokenizer, tmp_path):
    return lambda: Trainer(tokenizer, corpus, tmp_path, seed=3, phases=PHASES)


def test_twenty_steps_lower_the_loss(make):
    trainer = make()
    losses = [trainer.step(0.1) for _ in range(20)]
    assert sum(losses[-5:]) < sum(losses[:5]) - 2.5


def test_a_resumed_run_equals_an_uninterrupted_one(make):
    whole = make()
    run(whole, None, TOKENS, {}, log=io.StringIO())
    cut = make()
    while cut.progress.tokens < TOKENS // 2:
        cut.step(cut.progress.share(None, TOKENS))
    cut.save()
    resumed = make()
    resumed.resume()
    run(resumed, None, TOKENS, {}, log=io.StringIO())
    assert resumed.progress.step == whole.progress.step
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_run_may_start_from_an_exported_model(make, tokenizer, tmp_path):
    first = make()
    first.step(0.1)
    export(first.model, tokenizer, tmp_path / "model")
    second = make()
    second.start_from(tmp_path / "model")
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one.bfloat16(), other.bfloat16())
    corpus, start = tmp_path / "books", tmp_path / "model"
    corpus.mkdir()
    (corpus / "a.txt").write_text("A line of text. " * 2000, encoding="utf-8")
    taken, _ = prepare(corpus, tmp_path / "out", start)
    assert taken.get_vocab() == tokenizer.get_vocab()


def test_evaluation_gives_shares(make, books):
    text = next(iter(books.values()))
    figures = make().evaluate(64, {"book": text})
    assert set(figures) == {*SKILLS, "bits_per_byte"}
    assert all(0 <= figures[name] <= 1 for name in ("passkey", "magic"))
    json.dumps(figures)


def test_the_phases_follow_the_budget():
    assert [phase_at(share, PHASES).length for share in (0.0, 0.49, 0.5, 1.0)] == [48, 48, 64, 64]


def test_the_rate_warms_up_and_falls():
    rates = [rate_at(share / 100) for share in range(101)]
    assert rates[0] < 0.1
    assert rates[30] == 1.0
    assert rates[100] == pytest.approx(0.02)
    assert sorted(rates[40:], reverse=True) == rates[40:]


@pytest.mark.parametrize("shape", [(2, 16, 40), (1, 40, 16)])
def test_orthogonalized_updates_have_singular_values_near_one(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalized(torch.randn(shape)))
    assert values.min() > 0.5
    assert values.max() < 1.4
