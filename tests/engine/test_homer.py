"""HOMER beyond the recorded cases: its tree, other models, calibration, and what it refuses."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from infllm.engine import attach
from infllm.engine.config import HomerSettings
from infllm.engine.errors import ConfigError, UnsupportedModel
from infllm.engine.readers import Homer, Node, plan_merges, save_bias
from tests.engine.tiny_models import SERVED, build, ids

# Biases, norms of heads, parts of heads rotated, scaled embeddings and residuals, experts, latents.
KINDS = ("llama", "qwen2", "qwen3", "gemma", "phi", "glm", "granite", "mixtral", "deepseek_v3")
SMALL = HomerSettings(chunk=24, warmup=0)
HEAD, DOCUMENT, QUESTION = ids(3, seed=1), ids(60, seed=2), ids(5, seed=3)


def engine_of(kind: str, **more: Any) -> Any:
    return attach(build(kind, SERVED.get(kind, {}), **more), check=False)


def read(engine: Any, settings: HomerSettings, document: list[int] = DOCUMENT) -> Any:
    session = engine.session(overrides={"type": "origin"})
    return engine.merging(settings).read(HEAD, document, QUESTION, session)


# ---- the tree -----------------------------------------------------------------------------------


@given(
    st.integers(0, 9), st.integers(0, 900), st.integers(1, 9), st.integers(20, 80),
    st.integers(2, 12), st.integers(0, 12),
)  # fmt: skip
def test_every_token_is_in_a_chunk_and_every_layer_at_one_height(
    prefix: int, context: int, suffix: int, longest: int, n_layers: int, warmup: int
) -> None:
    plan = plan_merges(
        prefix, context, suffix, longest=longest, target=longest, n_layers=n_layers, warmup=warmup
    )
    around = prefix + suffix
    branches = list(plan.root.in_order())
    leaves = [branch for branch in branches if branch.height == 0]
    assert [i for leaf in leaves for i in range(leaf.start, leaf.stop)] == list(range(context))
    assert len(leaves) == 1 or all(leaf.start < leaf.stop for leaf in leaves)
    assert plan.width + around <= longest
    assert plan.last_position < longest
    # Nothing is longer than a chunk may be, and one node a height waits.
    for branch in branches:
        assert branch.target <= longest
        held = [child.target - around for child in branch.children]
        assert around + sum(held) <= longest
    assert len(plan.layers) == plan.root.height + 1
    run = [layer for start, stop in plan.layers for layer in range(start, stop)]
    assert run == list(range(n_layers))
    start, stop = plan.layers[-1]
    assert start < stop  # or there would be no logits
    first, stop = plan.layers[0]
    assert stop - first >= min(warmup, n_layers - 1)


def test_no_room_for_a_document_is_said() -> None:
    with pytest.raises(ConfigError, match="leave no room in 20"):
        plan_merges(10, 100, 9, longest=20, target=20, n_layers=4, warmup=0)


def test_with_more_heights_than_layers_the_target_is_met() -> None:
    """The published code drops nothing where a height has no layer, and grows with the document."""
    with engine_of("llama") as engine:
        merged = read(engine, HomerSettings(chunk=24, warmup=1), ids(400, seed=2))
    assert len(merged.kept) == 16
    assert merged.kept == sorted(set(merged.kept))


def test_one_reduced_node_a_height_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    most, height = 0, 0
    made: list[weakref.ref[Node]] = []
    plain = Node.__init__

    def init(self: Node, *args: Any, **kwargs: Any) -> None:
        made.append(weakref.ref(self))
        plain(self, *args, **kwargs)

    def watch(branch: Any, node: Node, kept: torch.Tensor) -> None:
        nonlocal most, height
        most = max(most, sum(one() is not None for one in made))
        height = max(height, branch.height)

    monkeypatch.setattr(Node, "__init__", init)

    document = ids(500, seed=2)
    with engine_of("llama", num_hidden_layers=6) as engine:
        plan = engine.merging(SMALL).plan(len(HEAD), len(document), len(QUESTION))
        homer = Homer(engine.attachment, engine.layer_ranges, plan, None)
        homer.read([*HEAD, *document, *QUESTION], watch=watch)
    assert height == 5
    assert most <= height + 1


# ---- models -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_one_chunk_is_the_plain_model(kind: str) -> None:
    with engine_of(kind) as engine:
        merged = read(engine, HomerSettings(chunk=100))
        plain = engine.session(overrides={"type": "origin"})
        plain.read([*HEAD, *DOCUMENT, *QUESTION])
        plain.end()
        assert merged.kept == list(range(len(DOCUMENT)))
        ours, theirs = (s.score([7, 8, 9]) for s in (merged.session, plain))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_after_another_gives_what_all_give(kind: str) -> None:
    """In a merged tree as well: the root's logits do not depend on how many layers run at once."""
    with engine_of(kind, num_hidden_layers=4) as engine:
        merged = read(engine, SMALL)
        assert len(merged.kept) <= 24 - 8
        assert 0 <= min(merged.kept) <= max(merged.kept) < len(DOCUMENT)
        answer = [token.id for token in merged.session.generate(4, stop_ids=[])]
        fork = read(engine, SMALL).session.fork()
        assert [token.id for token in fork.generate(4, stop_ids=[])] == answer


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("gemma3_text", "Gemma3ForCausalLM cannot run .* layers that see 8 tokens by design"),
        ("gpt_oss", "layers that see 8 tokens by design"),
        ("lfm2", "layers that keep a state"),
        ("gemma3n_text", "layers that attend the keys of others"),
    ],
)
def test_what_cannot_be_merged_is_refused_by_name(kind: str, why: str) -> None:
    settings: dict[str, dict[str, Any]] = {
        "lfm2": {"layer_types": ["conv", "full_attention"], "block_ff_dim": 64},
        "gemma3n_text": {
            "num_hidden_layers": 4, "num_kv_shared_layers": 2, "vocab_size_per_layer_input": 96,
            "layer_types": ["full_attention"] * 4, "laurel_rank": 8,
            "hidden_size_per_layer_input": 8, "activation_sparsity_pattern": [0.0] * 4,
            "intermediate_size": [96] * 4,
        },
    }  # fmt: skip
    with (
        attach(build(kind, {**SERVED.get(kind, {}), **settings.get(kind, {})}), check=False) as e,
        pytest.raises(UnsupportedModel, match=why),
    ):
        read(e, SMALL)


def test_layers_that_hand_on_more_are_found_out() -> None:
    """The second layer takes what the first one gave in the same pass, behind its back."""
    model = build("llama", {})
    first, second = model.model.layers
    plain, taking, seen = first.forward, second.forward, []

    def giving(x: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        seen.append(plain(x, **kwargs))
        return seen[-1]

    first.forward = giving
    second.forward = lambda x, **kwargs: taking(x + sum(seen), **kwargs)
    model.model.register_forward_pre_hook(lambda *call: seen.clear())
    with (
        attach(model, check=False) as engine,
        pytest.raises(UnsupportedModel, match="hand on more than hidden states"),
    ):
        read(engine, SMALL)


# ---- calibration --------------------------------------------------------------------------------


class Tokenizer:
    """A number a word."""

    def encode(self, text: str) -> list[int]:
        return [3 + sum(word.encode()) % 90 for word in text.split()]


def test_calibration_is_the_mean_significance_of_generated_texts(tmp_path: Path) -> None:
    with engine_of("qwen2") as engine:
        merging = engine.merging(HomerSettings(chunk=40))
        told: list[int] = []
        bias = merging.calibrate(Tokenizer(), samples=3, told=told.append)
        assert bias.shape == (2, 40)
        assert told == [40] * 3
        assert torch.equal(bias, merging.calibrate(Tokenizer(), samples=3))
        assert not torch.equal(bias, merging.calibrate(Tokenizer(), samples=3, seed=1))
        # The largest distance is asked for by the last token alone, of the text's first one.
        texts = [Tokenizer().encode(text_of(number)) for number in range(3)]
        plans = [plan_merges(0, 39, 1, longest=40, target=40, n_layers=2, warmup=0)] * 3
        found = []
        for text, plan in zip(texts, plans, strict=True):
            nodes: list[Any] = []
            homer = Homer(engine.attachment, engine.layer_ranges, plan, None)
            homer.read(text[:40], watch=lambda branch, node, kept, nodes=nodes: nodes.append(node))
            found.append(float(nodes[0].significance[0]))
        assert sum(found) / 3 == pytest.approx(float(bias[-1, -1]), abs=1e-4)
        path = tmp_path / "deep" / "table.safetensors"
        save_bias(bias, path, {"model": "tiny"})
        again = engine.merging(HomerSettings(chunk=24, calibration=str(path)))
        assert torch.equal(again.bias, bias)
        assert read(engine, HomerSettings(chunk=24, calibration=str(path))).kept


def text_of(number: int) -> str:
    from infllm.engine.readers.calibration import sample_text

    return sample_text(40, number)


@pytest.mark.parametrize(
    ("bias", "why"),
    [
        (torch.zeros(3, 40), "of 3 layers, and the model has 2"),
        (torch.zeros(2, 10), "knows 10 distances"),
        (torch.zeros(2), "has 1 dimensions"),
    ],
)
def test_a_calibration_that_does_not_fit_is_refused(
    bias: torch.Tensor, why: str, tmp_path: Path
) -> None:
    path = tmp_path / "table.safetensors"
    save_bias(bias, path, {})
    settings = HomerSettings(chunk=24, calibration=str(path))
    with engine_of("llama") as engine, pytest.raises(ConfigError, match=why):
        read(engine, settings)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.safetensors"
    with engine_of("llama") as engine:
        with pytest.raises(ConfigError, match="there is no calibration"):
            read(engine, HomerSettings(chunk=24, calibration=str(path)))
        path.write_text("no table")
        with pytest.raises(ConfigError, match="is no calibration"):
            read(engine, HomerSettings(chunk=24, calibration=str(path)))
