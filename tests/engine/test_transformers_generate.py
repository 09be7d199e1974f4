"""transformers' own `model.generate` over a session's memory."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from infllm.engine import Session
from infllm.engine.attachment.cache import CACHE_NAMES, cache_name, rename_cache
from infllm.engine.errors import EngineError, UnsupportedCall
from tests.engine.served import POLICIES, Served, assert_same_state
from tests.engine.tiny_models import ids

TEXT, QUESTION = ids(83), ids(9, seed=4)
# SirLLM must see a pass's ids and all of its logits: it says so, see `test_sirllm.py`.
every_policy = pytest.mark.parametrize("policy", [p for p in POLICIES if p != "sirllm"])


def prepared(served: Served, **overrides: Any) -> Session:
    session = served.session(**overrides)
    session.read(TEXT)
    session.end()
    return session


def generate(served: Served, session: Session, tokens: list[int], **options: Any) -> list[int]:
    """New tokens of model.generate, given `tokens` and a mask for all tokens so far."""
    question = torch.tensor([tokens])
    settings: dict[str, Any] = {
        "cache": session.cache,
        "attention_mask": torch.ones(1, session.position + len(tokens), dtype=torch.long),
        "max_new_tokens": 8,
        "do_sample": False,
    }
    out = served.engine.model.generate(question, **{**settings, **options})
    return out[0, len(tokens) :].tolist()


def own(session: Session, tokens: list[int], n: int = 8) -> list[int]:
    session.read(tokens)
    return [token.id for token in session.generate(n)]


@every_policy
def test_greedy_is_the_sessions_own(llama: Served, policy: str) -> None:
    session, reference = prepared(llama, type=policy), prepared(llama, type=policy)
    assert generate(llama, session, QUESTION) == own(reference, QUESTION)
    # transformers does not feed its last token and drops it; ours waits.
    reference._pending = []
    reference._given -= 1
    assert_same_state(session, reference)
    assert session.stats.tokens_read == len(TEXT) + len(QUESTION) + 7
    assert session.stats.tokens_given == session.stats.tokens_read


def test_the_session_goes_on_from_what_generate_left(llama: Served) -> None:
    """Not from the logits of its own last pass."""
    session, reference = prepared(llama), prepared(llama)
    answer = generate(llama, session, QUESTION)
    assert own(reference, QUESTION, 7) == answer[:7]
    reference.end()
    assert [t.id for t in session.generate(4)] == [t.id for t in reference.generate(4)]


def test_the_text_itself_may_be_given_again(llama: Served) -> None:
    """As with any filled cache: generate() cuts off as many tokens as were read."""
    session = prepared(llama)
    mask = torch.ones(1, len(TEXT) + len(QUESTION), dtype=torch.long)
    got = generate(llama, session, TEXT + QUESTION, attention_mask=mask)
    assert got == own(prepared(llama), QUESTION)


@pytest.mark.parametrize("size", [1, 4, 9])
def test_chunked_prefill_is_a_segment_for_each_chunk(llama: Served, size: int) -> None:
    reference = prepared(llama)
    for i in range(0, len(QUESTION), size):
        reference.read(QUESTION[i : i + size])
        if i + size < len(QUESTION):
            reference.end()
    want = [token.id for token in reference.generate(8)]
    got = generate(llama, prepared(llama), QUESTION, prefill_chunk_size=size)
    assert got == want


@every_policy
def test_chunked_prefill_of_a_whole_text(llama: Served, policy: str) -> None:
    reference = llama.session(type=policy)
    for i in range(0, len(TEXT), 16):
        reference.end()
        reference.read(TEXT[i : i + 16])
    want = [token.id for token in reference.generate(8)]
    session = llama.session(type=policy)
    assert generate(llama, session, TEXT, prefill_chunk_size=16) == want
    if policy == "inf-llm":
        assert session.stats.units > 10


def test_sampling_works(llama: Served) -> None:
    torch.manual_seed(0)
    one = generate(llama, prepared(llama), QUESTION, do_sample=True, temperature=2.0, top_k=20)
    torch.manual_seed(0)
    two = generate(llama, prepared(llama), QUESTION, do_sample=True, temperature=2.0, top_k=20)
    assert one == two


def test_a_plain_forward_reads_into_the_memory(llama: Served) -> None:
    session, reference = prepared(llama), prepared(llama)
    with torch.no_grad():
        out = llama.engine.model(torch.tensor([QUESTION]), cache=session.cache)
    torch.testing.assert_close(out.logits[0], reference.score(QUESTION), atol=1e-5, rtol=0)
    embeddings = llama.engine.model.get_input_embeddings()
    other = prepared(llama)
    with torch.no_grad():
        vectors = embeddings(torch.tensor([QUESTION]))
        again = llama.engine.model(inputs_embeds=vectors, cache=other.cache)
    assert torch.equal(out.logits, again.logits)


# ---- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CACHE_NAMES)
def test_the_cache_is_taken_under_any_of_its_names_without_a_warning(
    llama: Served, name: str
) -> None:
    """transformers 5.24 calls `cache` what was `past_key_values`, and warns of the old name."""
    model, want = llama.engine.model, own(prepared(llama), QUESTION)
    session = prepared(llama)
    mask = torch.ones(1, session.position + len(QUESTION), dtype=torch.long)
    arguments: dict[str, Any] = {name: session.cache, "attention_mask": mask}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = model.generate(torch.tensor([QUESTION]), max_new_tokens=8, **arguments)
        with torch.no_grad():
            out = model(torch.tensor([QUESTION]), **{name: prepared(llama).cache})
    assert got[0, len(QUESTION) :].tolist() == want
    assert int(out.logits[0, -1].argmax()) == want[0]


def test_a_cache_under_two_names_is_refused(llama: Served) -> None:
    session = prepared(llama)
    two = {"cache": session.cache, "past_key_values": DynamicCache()}
    with pytest.raises(UnsupportedCall, match="as cache and as past_key_values"):
        llama.engine.model.generate(torch.tensor([QUESTION]), max_new_tokens=2, **two)


@pytest.mark.parametrize("takes", CACHE_NAMES)
def test_a_forward_gets_the_cache_under_the_name_it_takes(takes: str) -> None:
    """By its signature, whatever the release of transformers: also a model's own code."""
    namespace: dict[str, Any] = {}
    exec(f"def forward(self, input_ids, {takes}=None, **kwargs): ...", namespace)
    name = cache_name(namespace["forward"])
    assert name == takes
    for given in CACHE_NAMES:
        assert rename_cache({given: 7, "input_ids": 1}, name) == {takes: 7, "input_ids": 1}


ONES = torch.ones(1, len(TEXT) + len(QUESTION), dtype=torch.long)
HOLES = torch.cat([torch.zeros(1, 3, dtype=torch.long), ONES[:, 3:]], dim=1)

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "beams": ({"num_beams": 2}, "beams"),
    "several sequences": (
        {"do_sample": True, "num_return_sequences": 2}, "one sequence, not 2",
    ),
    "padding": ({"attention_mask": HOLES}, "padding"),
    "assisted decoding": ({"prompt_lookup_num_tokens": 2}, "assisted decoding"),
    "no cache": ({"use_cache": False}, "use_cache"),
    "another cache": ({"cache": DynamicCache()}, "DynamicCache"),
    "a short mask": ({"attention_mask": ONES[:, : len(QUESTION)]}, "no token to go on from"),
    "no mask": ({"attention_mask": None}, "no token to go on from"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name_before_anything_is_read(llama: Served, case: str) -> None:
    options, reason = REFUSED[case]
    session = prepared(llama)
    untouched = session.fork()
    with pytest.raises(UnsupportedCall, match=reason) as caught:
        generate(llama, session, QUESTION, **options)
    assert caught.value.hint
    assert session.stats == untouched.stats
    assert_same_state(session, untouched)
    assert generate(llama, session, QUESTION) == own(untouched, QUESTION)


def test_pending_tokens_are_not_passed_over(llama: Served) -> None:
    session = llama.session()
    session.read(TEXT)
    waiting = session.stats.tokens_pending
    assert waiting == len(TEXT) % 16
    with pytest.raises(UnsupportedCall, match=f"{waiting} tokens were read") as caught:
        generate(llama, session, QUESTION)
    assert "end()" in caught.value.hint
    session.end()
    assert generate(llama, session, QUESTION) == own(prepared(llama), QUESTION)


def test_a_batch_is_refused(llama: Served) -> None:
    session = prepared(llama)
    two = torch.tensor([QUESTION, QUESTION])
    mask = torch.ones(2, len(TEXT) + len(QUESTION), dtype=torch.long)
    with pytest.raises(UnsupportedCall, match="one sequence, not 2"):
        llama.engine.model.generate(two, cache=session.cache, attention_mask=mask, max_new_tokens=2)


def test_the_attached_model_without_a_memory_is_refused(llama: Served) -> None:
    model = llama.engine.model
    with torch.no_grad(), pytest.raises(UnsupportedCall, match="without a session's memory"):
        model(torch.tensor([QUESTION]))
    with pytest.raises(UnsupportedCall, match="DynamicCache"):
        model.generate(torch.tensor([QUESTION]), max_new_tokens=2)


def test_gradients_are_refused(llama: Served) -> None:
    session = prepared(llama)
    with pytest.raises(UnsupportedCall, match="gradients") as caught:
        llama.engine.model(torch.tensor([QUESTION]), cache=session.cache)
    assert "no_grad" in caught.value.hint


def test_an_explicit_mask_is_refused(llama: Served) -> None:
    session = prepared(llama)
    mask = torch.zeros(1, 1, len(QUESTION), len(TEXT) + len(QUESTION))
    with torch.no_grad(), pytest.raises(UnsupportedCall, match="mask"):
        llama.engine.model(torch.tensor([QUESTION]), cache=session.cache, attention_mask=mask)


def test_a_session_broken_in_generate_refuses_to_go_on(llama: Served) -> None:
    session = prepared(llama)
    layer = llama.engine.model.get_decoder().layers[1]

    def fault(*args: Any) -> None:
        raise RuntimeError("a fault")

    hook = layer.register_forward_pre_hook(fault)
    try:
        with pytest.raises(RuntimeError, match="a fault"):
            generate(llama, session, QUESTION)
    finally:
        hook.remove()
    with pytest.raises(EngineError, match="interrupted"):
        generate(llama, session, QUESTION)
