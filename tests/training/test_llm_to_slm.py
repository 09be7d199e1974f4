"""The experiment of LLM-to-SLM: its data, its controls, and what counts as a success."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from infllm.engine.attachment import load_parts
from infllm.engine.config import load_config
from infllm.engine.guide import Encoder, Guide, Projector
from tests.engine.tiny_models import build
from training.llm_to_slm import (
    answer_losses,
    encoder_nats,
    figures,
    find_examples,
    interval,
    nats,
    read_prompts,
    shifted,
    train,
)

WORDS = ("the", "of", "and", "to", "in", "harbour", "light", "keeper", "ship", "stone", "water")


def setting() -> tuple[Any, ...]:
    """A tiny model, the built-in one's tokenizer, an encoder of another size, and examples."""
    _, tokenizer = load_parts(load_config("pocket", environ={}).model)
    draw = torch.Generator().manual_seed(0)
    paragraphs = [
        " ".join(WORDS[i] for i in torch.randint(11, (60,), generator=draw).tolist())
        for _ in range(24)
    ]
    examples = find_examples(["\n\n".join(paragraphs)], tokenizer, 20, 16, 4, seed=0)
    size = {"vocab_size": tokenizer.vocab_size}
    encoder = Encoder(build("llama", size, seed=1), tokenizer, 1)
    return build("llama", {**size, "hidden_size": 32}), tokenizer, encoder, examples


def test_examples_are_ends_of_paragraphs() -> None:
    _, tokenizer, _, examples = setting()
    assert examples.prompts.shape == (20, 16)
    assert examples.answers.shape == (20, 4)
    prompt, answer = examples.texts[3]
    assert tokenizer.decode(examples.prompts[3].tolist()) == prompt
    assert float(examples.answer_bytes[3]) == len(answer)
    with pytest.raises(ValueError, match="0 paragraphs of 20 tokens, 1 are wanted"):
        find_examples(["short"], tokenizer, 1, 16, 4, seed=0)


def test_a_batch_adds_what_the_guide_adds_to_each_prompt() -> None:
    model, tokenizer, encoder, examples = setting()
    projector = Projector(encoder.size, 32)
    torch.nn.init.normal_(projector.w2)
    reads = read_prompts(examples, encoder, tokenizer)
    guide = Guide(encoder, projector, tokenizer)
    at = torch.tensor([5, 2])
    found = answer_losses(model, projector, examples, reads, at)
    for row, i in zip(found, at.tolist(), strict=True):
        prompt, answer = examples.prompts[i], examples.answers[i]
        embed = model.get_input_embeddings()
        z = guide(prompt.tolist())
        embedded = torch.cat([embed(prompt)[None] + z, embed(answer)[None]], 1)
        logits = model(inputs_embeds=embedded).logits[0, 15:-1]
        expected = torch.nn.functional.cross_entropy(logits, answer, reduction="none")
        # States are kept in bfloat16.
        assert torch.allclose(row, expected, rtol=2e-2, atol=2e-2)


def test_an_untrained_projector_changes_nothing_and_training_lowers_the_loss() -> None:
    model, tokenizer, encoder, examples = setting()
    reads = read_prompts(examples, encoder, tokenizer)
    projector = Projector(encoder.size, 32)
    alone = nats(model, None, examples, reads)
    assert torch.allclose(
        torch.tensor(nats(model, projector, examples, reads)), torch.tensor(alone)
    )
    model.requires_grad_(True)
    train(model, projector, examples, reads, epochs=3, seed=0)
    assert sum(nats(model, projector, examples, reads)) < sum(alone)
    assert projector.w2.abs().max() > 0


def test_the_control_reads_other_prompts() -> None:
    _, tokenizer, encoder, examples = setting()
    reads = read_prompts(examples, encoder, tokenizer)
    others = shifted(reads)
    assert len(others) == len(reads)
    assert all(a is not b for a, b in zip(reads, others, strict=True))
    assert {id(x) for x in reads} == {id(x) for x in others}


def test_the_encoder_is_scored_on_the_answer_alone() -> None:
    _, tokenizer, _, examples = setting()
    model = build("llama", {"vocab_size": tokenizer.vocab_size}, seed=3)
    found = encoder_nats(model, tokenizer, examples)
    ids = torch.cat([examples.prompts[0], examples.answers[0]])
    assert tokenizer.encode("".join(examples.texts[0])) == ids.tolist()
    logits = model(input_ids=ids[None]).logits[0, 15:-1]
    wanted = torch.nn.functional.cross_entropy(logits, examples.answers[0], reduction="sum")
    assert abs(found[0] - float(wanted.detach())) < 1e-3
    assert len(found) == 20


def test_intervals_hold_the_mean_and_narrow() -> None:
    draw = torch.Generator().manual_seed(0)
    few, many = (torch.randn(n, generator=draw) for n in (20, 2000))
    (mean, low, high), (_, low2, high2) = interval(few), interval(many)
    assert low < mean < high
    assert high2 - low2 < (high - low) / 5
    assert interval(torch.full((9,), 2.0)) == (2.0, 2.0, 2.0)


def test_success_needs_both_controls_beaten_and_a_fifth_of_the_gap() -> None:
    n = torch.full((50,), 10.0)

    def verdict(full: int, shuffled: int) -> dict[str, Any]:
        told = {"alone": 20, "full": full, "shuffled": shuffled}
        return figures({arm: [[float(x)] * 50] for arm, x in told.items()}, [10.0] * 50, n)

    assert verdict(16, 20)["success"]
    assert verdict(16, 20)["gap_closed"] > 0.39
    assert not verdict(19, 20)["success"]  # a tenth of the gap
    assert verdict(19, 20)["beats_both"]
    assert not verdict(16, 16)["beats_both"]  # mere parameters
    assert not verdict(20, 21)["beats_both"]
