"""LLM-to-SLM: states of a large model, added to what a small one reads."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from infllm import presets
from infllm.engine import Engine, load
from infllm.engine.attachment import load_parts
from infllm.engine.config import load_config
from infllm.engine.errors import ConfigError, MemoryFileError, ModelFileError
from infllm.engine.guide import Encoder, Projector, carried, overlaps, save_projector, spans
from infllm.engine.text import Tokenizer
from tests.engine.tiny_models import build
from tests.engine.tokenizers_of_all_kinds import KINDS, transformers_tokenizer

TEXT = "The quick brown fox – naïve, 日本 – jumps over 123,456 dogs.\n\n  And then? 🦊"


# ---- alignment ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_spans_spell_the_text(kind: str) -> None:
    tokenizer = Tokenizer(transformers_tokenizer(KINDS[kind]()))
    text, found = spans(tokenizer, tokenizer.encode(TEXT))
    assert text == tokenizer.decode(tokenizer.encode(TEXT))
    assert [start for start, _ in found] == sorted(start for start, _ in found)
    covered = {i for start, stop in found for i in range(start, stop)}
    assert covered == set(range(len(text)))


def dense(ours: list[tuple[int, int]], theirs: list[tuple[int, int]]) -> Tensor:
    """A by its definition."""
    a = torch.zeros(len(ours), len(theirs))
    for i, (s, e) in enumerate(ours):
        for j, (s2, e2) in enumerate(theirs):
            a[i, j] = max(0, min(e, e2) - max(s, s2))
    sums = a.sum(1, keepdim=True)
    return torch.where(sums > 0, a / sums.clamp_min(1), a)


cuts = st.lists(st.integers(0, 30), max_size=12).map(lambda x: sorted({0, 30, *x}))


@given(cuts, cuts)
def test_overlaps_are_shares_of_characters(one: list[int], other: list[int]) -> None:
    ours, theirs = (list(pairwise(c)) for c in (one, other))
    states = torch.randn(len(theirs), 3, generator=torch.Generator().manual_seed(0))
    at = overlaps(ours, theirs)
    assert torch.allclose(carried(states, at, len(ours)), dense(ours, theirs) @ states, atol=1e-5)


def test_one_tokenizer_aligns_with_itself_and_control_tokens_with_nothing() -> None:
    tokenizer = Tokenizer(transformers_tokenizer(KINDS["llama_like"]()))
    ids = tokenizer.encode("a plain sentence of words")
    row, column, weight = overlaps(spans(tokenizer, ids)[1], spans(tokenizer, ids)[1])
    assert row.tolist() == column.tolist() == list(range(len(ids)))
    assert weight.eq(1).all()
    control = next(iter(tokenizer.special_ids))
    _, found = spans(tokenizer, [control, *ids])
    row, _, _ = overlaps(found, spans(tokenizer, ids)[1])
    assert 0 not in row.tolist()


# ---- the parts ---------------------------------------------------------------------------------


def test_a_new_projector_adds_nothing() -> None:
    projector = Projector(24, 16)
    assert torch.equal(projector(torch.randn(5, 24)), torch.zeros(5, 16))
    assert Projector(24, 16, hidden=7).w1.shape == (7, 24)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_parts(load_config("pocket", environ={}).model)[1]


def large(tokenizer: Tokenizer, seed: int = 1) -> Any:
    """A random model of another size, with the vocabulary of `tokenizer`."""
    return build("llama", {"vocab_size": tokenizer.vocab_size, "num_hidden_layers": 3}, seed)


def test_states_are_those_of_a_layer(tokenizer: Tokenizer) -> None:
    model = large(tokenizer)
    ids = tokenizer.encode(TEXT)
    with torch.no_grad():
        every = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
    raw = every[2][0]
    encoder = Encoder(model, tokenizer, 2)
    expected = raw / raw.square().mean(-1, keepdim=True).sqrt()
    assert torch.allclose(encoder.states(ids), expected, atol=1e-5)
    assert encoder.size == 64
    assert encoder.states([]).shape == (0, 64)
    encoder.longest = 10
    assert torch.allclose(encoder.states(ids)[:10], expected[:10], atol=1e-5)
    assert encoder.states(ids).shape == expected.shape


def test_a_layer_that_is_not_there(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigError, match="no layer 4: it has 1 to 3"):
        Encoder(large(tokenizer), tokenizer, 4)


def test_encoders_are_told_apart_whatever_their_dtype(tokenizer: Tokenizer) -> None:
    one = Encoder(large(tokenizer).bfloat16(), tokenizer, 2).digest()
    assert one == Encoder(large(tokenizer).bfloat16().float(), tokenizer, 2).digest()
    assert one != Encoder(large(tokenizer), tokenizer, 1).digest()
    assert one != Encoder(large(tokenizer, seed=2), tokenizer, 2).digest()


# ---- the folder --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> tuple[Path, Path]:
    """A small model with a projector that does something, and its encoder."""
    folder = tmp_path_factory.mktemp("guided")
    small, encoder = folder / "small", folder / "encoder"
    small.mkdir()
    for path in Path(presets.builtin("pocket")).iterdir():
        (small / path.name).write_bytes(path.read_bytes())
    large(tokenizer).save_pretrained(encoder)
    tokenizer.hf.save_pretrained(encoder)
    torch.manual_seed(0)
    projector = Projector(64, 256)
    projector.w2.data.normal_(0, 0.02)
    read, of_encoder = load_parts(load_config(str(encoder), environ={}).model)
    save_projector(small, projector, Encoder(read, of_encoder, 2), tokenizer, str(encoder))
    return small, encoder


def opened(folder: Path, **more: Any) -> Engine:
    return load(load_config(str(folder), {"dtype": "float32", **more}, environ={}))


def test_what_is_read_is_changed_and_what_is_written_is_not(places: tuple[Path, Path]) -> None:
    """Prompt positions: embedding and Z. Steps: the embedding alone."""
    small, _ = places
    with opened(small) as engine, load("pocket", overrides={"dtype": "float32"}) as plain:
        ids = engine.tokenizer.encode(TEXT)
        guide = engine._guide
        assert guide is not None
        embedded = engine.model.get_input_embeddings()(torch.tensor([ids])) + guide(ids)
        own = type(engine.model).from_pretrained(small, dtype=torch.float32).eval()
        with torch.no_grad():
            expected = own(inputs_embeds=embedded).logits[0]
            after = torch.cat([embedded, own.get_input_embeddings()(torch.tensor([[7]]))], 1)
            step = own(inputs_embeds=after).logits[0, -1]
        session = engine.session()
        found = session.score(ids)
        assert torch.allclose(found, expected, atol=1e-3)
        assert torch.allclose(session.score([7], step=True)[0], step, atol=1e-3)
        assert not torch.allclose(found, plain.session().score(ids), atol=1e-2)


def test_a_projector_of_zeros_changes_no_logits(places: tuple[Path, Path], tmp_path: Path) -> None:
    small = copied(places[0], tmp_path)
    tensors = load_file(small / "projector.safetensors")
    save_file({**tensors, "w2": tensors["w2"] * 0}, small / "projector.safetensors")
    with opened(small) as engine, load("pocket", overrides={"dtype": "float32"}) as plain:
        ids = engine.tokenizer.encode(TEXT)
        assert torch.allclose(engine.session().score(ids), plain.session().score(ids), atol=1e-4)


def test_memories_belong_to_the_guide_that_read_them(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    small, _ = places
    with opened(small) as engine, load("pocket", overrides={"dtype": "float32"}) as plain:
        session = engine.session()
        ids = engine.tokenizer.encode(TEXT * 20)
        for start in range(0, len(ids), 100):
            session.read(ids[start : start + 100])
        session.end()
        session.save(tmp_path / "guided.mem")
        answer = [token.id for token in session.generate(8)]
        assert [t.id for t in engine.open(tmp_path / "guided.mem").generate(8)] == answer
        with pytest.raises(MemoryFileError, match="another encoder") as caught:
            plain.open(tmp_path / "guided.mem")
        assert caught.value.reason == "model"


def copied(small: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in small.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def edit_card(folder: Path, **changes: Any) -> None:
    path = folder / "projector.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_encoder_may_lie_elsewhere(places: tuple[Path, Path], tmp_path: Path) -> None:
    small = copied(places[0], tmp_path)
    edit_card(small, encoder=str(tmp_path / "gone"))
    with opened(small, encoder_path=str(places[1])) as engine:
        assert engine._guide is not None


DAMAGE = {
    "no card": (lambda f: (f / "projector.json").unlink(), "no card"),
    "no JSON": (lambda f: (f / "projector.json").write_text("x"), "no card"),
    "unknown key": (lambda f: edit_card(f, more=1), "no card"),
    "a word for a layer": (lambda f: edit_card(f, layer="2"), "no card"),
    "newer": (lambda f: edit_card(f, format=2), "of format 2"),
    "other tokenizer": (lambda f: edit_card(f, tokenizer="0"), "another tokenizer of the small"),
    "its tokenizer": (lambda f: edit_card(f, encoder_tokenizer="0"), "another tokenizer than that"),
    "other encoder": (lambda f: edit_card(f, encoder_digest="0"), "another encoder"),
    "other layer": (lambda f: edit_card(f, layer=1), "another encoder"),
    "no tensors": (lambda f: (f / "projector.safetensors").write_bytes(b"x"), "cannot be read"),
    "other size": (
        lambda f: save_file(dict(Projector(32, 256).state_dict()), f / "projector.safetensors"),
        "does not fit",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_does_not_belong_together_is_refused(
    what: str, places: tuple[Path, Path], tmp_path: Path
) -> None:
    small = copied(places[0], tmp_path)
    damage, message = DAMAGE[what]
    damage(small)
    with pytest.raises(ModelFileError, match=message):
        opened(small)
