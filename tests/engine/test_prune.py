"""Pruned models as folders: what stock transformers loads, what the engine, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from infllm.engine import attach
from infllm.engine.attachment import loading
from infllm.engine.errors import ConfigError, ModelFileError, UnsupportedModel
from infllm.engine.prune import (
    CARD,
    PruneSettings,
    calibration_sequences,
    check_place,
    pad,
    prune,
    save_model,
    shape_of,
    spared,
    stored_dtype,
)
from tests.engine.tiny_models import SERVED, build, ids

TEXT = torch.tensor([ids(40)])
CALIBRATION = torch.tensor([ids(16, seed=seed) for seed in range(1, 4)])
REFUSED = {
    "mixtral", "qwen2_moe", "qwen3_moe", "granitemoe", "gpt_oss", "deepseek_v3", "gptj", "nanochat",
    "phi", "phi3", "gpt_neox", "starcoder2", "glm", "glm4", "persimmon",  # other names, or fused
    "olmo2", "olmo3",  # one norm over all heads
}  # fmt: skip


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(TEXT).logits


def reload(folder: Path) -> Any:
    """As the engine loads a model of a folder, attending as `build` has it."""
    model = loading._from_pretrained(str(folder), None, dtype=torch.float32).eval()
    model.set_attn_implementation("eager")
    return model


def shrink(model: PreTrainedModel, ratio: float = 0.5, layers: Any = None, **more: Any) -> Any:
    model.requires_grad_(False)
    layers = range(model.config.num_hidden_layers) if layers is None else layers
    settings = PruneSettings(ratio, attention_layers=layers, mlp_layers=layers, **more)
    return prune(model, settings, CALIBRATION)


def close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= 2e-5)


@pytest.mark.parametrize("kind", [kind for kind in SERVED if kind not in REFUSED])
def test_a_pruned_folder_gives_the_logits_that_the_model_gave(kind: str, tmp_path: Path) -> None:
    model = build(kind, SERVED[kind])
    shrink(model)
    expected = logits(model)
    stock = save_model(model, tmp_path / "small", {})
    assert close(logits(reload(tmp_path / "small")), expected)
    assert set(shape_of(model).heads) == {(2, 1)}
    assert set(shape_of(model).channels) == {48}
    if stock:
        read = AutoModelForCausalLM.from_pretrained(
            tmp_path / "small", dtype=torch.float32, attn_implementation="eager"
        )
        assert close(logits(read.eval()), expected)
    else:
        assert kind in ("stablelm", "helium")  # their head's size is the stream's share


@pytest.mark.parametrize("kind", sorted(REFUSED & SERVED.keys()))
def test_layers_of_another_form_are_refused_by_name(kind: str) -> None:
    model = build(kind, SERVED[kind])
    with pytest.raises(UnsupportedModel, match=r"Llama's form|all heads together"):
        shrink(model)


def test_where_heads_are_normalised_together_channels_can_go(tmp_path: Path) -> None:
    model = build("olmo2", {}).requires_grad_(False)
    prune(model, PruneSettings(0.5, attention_layers=[], mlp_layers=[0, 1]), CALIBRATION)
    expected = logits(model)
    assert save_model(model, tmp_path / "small", {})
    assert close(logits(reload(tmp_path / "small")), expected)


def test_llama_of_heads_that_do_not_divide_its_stream_is_saved_as_mistral(tmp_path: Path) -> None:
    shape = {"num_attention_heads": 4, "num_key_value_heads": 4}
    model = build("llama", shape)
    shrink(model, 0.25)
    expected = logits(model)
    assert shape_of(model).heads == ((3, 3), (3, 3))
    assert 64 % 3
    assert save_model(model, tmp_path / "small", {})
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "small", dtype=torch.float32).eval()
    assert type(read).__name__ == "MistralForCausalLM"
    assert close(logits(read), expected)


def test_biases_of_llama_have_no_stock_class_with_such_heads(tmp_path: Path) -> None:
    model = build("llama", {"num_key_value_heads": 4, "attention_bias": True})
    shrink(model, 0.25)
    expected = logits(model)
    assert not save_model(model, tmp_path / "small", {})
    assert close(logits(reload(tmp_path / "small")), expected)


@pytest.fixture
def ragged() -> PreTrainedModel:
    """Of four layers the two in the middle have half of their heads and channels."""
    model = build("llama", {"num_hidden_layers": 4})
    shrink(model, layers=range(1, 3))
    return model


RAGGED = {"heads": [[4, 2], [2, 1], [2, 1], [4, 2]], "channels": [96, 48, 48, 96]}


def test_layers_that_differ_are_loaded_by_their_lists(
    ragged: PreTrainedModel, tmp_path: Path
) -> None:
    expected = logits(ragged)
    assert not save_model(ragged, tmp_path / "small", {"method": "x"})
    config = json.loads((tmp_path / "small" / "config.json").read_text())
    assert config["pruned"] == RAGGED
    assert (config["num_attention_heads"], config["intermediate_size"]) == (4, 96)
    read = reload(tmp_path / "small")
    assert type(read).__name__ == "LlamaForCausalLM"
    assert shape_of(read) == shape_of(ragged)
    assert close(logits(read), expected)
    with pytest.raises(RuntimeError):
        AutoModelForCausalLM.from_pretrained(tmp_path / "small")
    assert json.loads((tmp_path / "small" / CARD).read_text()) == {"method": "x"}


def test_what_was_read_so_can_be_pruned_and_saved_again(
    ragged: PreTrainedModel, tmp_path: Path
) -> None:
    save_model(ragged, tmp_path / "once", {})
    again = reload(tmp_path / "once")
    shrink(again, 0.25, layers=[0])
    expected = logits(again)
    save_model(again, tmp_path / "twice", {})
    assert close(logits(reload(tmp_path / "twice")), expected)
    assert shape_of(again).channels == (72, 48, 48, 96)


def test_padded_layers_load_everywhere_and_compute_the_same(
    ragged: PreTrainedModel, tmp_path: Path
) -> None:
    expected = logits(ragged)
    pad(ragged)
    assert close(logits(ragged), expected)
    assert save_model(ragged, tmp_path / "padded", {})
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "padded", dtype=torch.float32).eval()
    assert close(logits(read), expected)
    assert set(shape_of(read).heads) == {(4, 2)}


def test_the_engine_reads_with_layers_that_differ(ragged: PreTrainedModel, tmp_path: Path) -> None:
    """Within the window as transformers; beyond it in any cut, and after a memory file."""
    expected = logits(ragged)[0]
    settings = {
        "n_init": 4, "n_local": 64, "block_size": 8, "topk": 2, "repr_topk": 2,
        "exc_block_size": 32, "max_cached_block": 4,
    }  # fmt: skip
    text = ids(400)
    with attach(ragged, config={"model": settings, "chunk_size": 32}) as engine:
        assert close(engine.session().score(TEXT[0].tolist()), expected)
        whole, cut = engine.session(), engine.session()
        whole.read(text)
        for start in range(0, 400, 37):
            cut.read(text[start : start + 37])
        whole.end()
        cut.end()
        assert torch.equal(whole.fork().score(ids(9)), cut.score(ids(9)))
        whole.save(tmp_path / "x.mem")
        opened = engine.open(tmp_path / "x.mem")
        assert torch.equal(opened.score(ids(9)), whole.score(ids(9)))
        bytes_of_token = 2 * (2 + 1 + 1 + 2) * 16 * 4
        full = engine.estimate(100, {"type": "origin"}).device_bytes
        assert full == 100 * bytes_of_token


BROKEN = {
    "no lists": [1],
    "a list missing": {"heads": RAGGED["heads"]},
    "too few layers": {"heads": RAGGED["heads"][1:], "channels": RAGGED["channels"][1:]},
    "no channel": {**RAGGED, "channels": [96, 0, 48, 96]},
    "unequal shares": {**RAGGED, "heads": [[4, 2], [3, 2], [2, 1], [4, 2]]},
}


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_lists_are_told(broken: str, ragged: PreTrainedModel, tmp_path: Path) -> None:
    save_model(ragged, tmp_path / "small", {})
    path = tmp_path / "small" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pruned": BROKEN[broken]}))
    with pytest.raises(ModelFileError, match="is no shape"):
        reload(tmp_path / "small")


def test_more_heads_than_there_are_is_told(ragged: PreTrainedModel, tmp_path: Path) -> None:
    save_model(ragged, tmp_path / "small", {})
    path = tmp_path / "small" / "config.json"
    wide = {**RAGGED, "heads": [[8, 4], [2, 1], [2, 1], [4, 2]]}
    path.write_text(json.dumps({**json.loads(path.read_text()), "pruned": wide}))
    with pytest.raises(UnsupportedModel, match="layer 0 cannot have 8 query"):
        reload(tmp_path / "small")


def test_dimensions_of_the_residual_stream(tmp_path: Path) -> None:
    """Tied embeddings are one matrix; the size of a head stays."""
    model = build("llama", {}, tie_word_embeddings=True).requires_grad_(False)
    removal = prune(model, PruneSettings(0.25, group="hidden"), CALIBRATION)
    assert removal.kept == {"the residual stream": 48}
    assert model.lm_head.weight is model.model.embed_tokens.weight
    expected = logits(model)
    assert save_model(model, tmp_path / "small", {})
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "small", dtype=torch.float32).eval()
    assert read.config.hidden_size == 48
    assert read.config.head_dim == 16
    assert close(logits(read), expected)


def test_a_scaled_embedding_keeps_its_stream() -> None:
    model = build("gemma3_text", SERVED["gemma3_text"])
    with pytest.raises(UnsupportedModel, match="scales its embeddings"):
        prune(model, PruneSettings(0.25, group="hidden"), CALIBRATION)


@pytest.mark.parametrize("everywhere", [False, True])
def test_every_group_keeps_a_unit(everywhere: bool) -> None:
    model = build("llama", {})
    removal = shrink(model, 0.999, everywhere=everywhere)
    assert min(removal.kept.values()) == 1
    assert logits(model).isfinite().all()


def test_layers_spared_by_default_are_the_published_ones_in_proportion() -> None:
    assert spared(32) == list(range(4, 30))
    assert spared(30) == list(range(4, 28))
    assert spared(24) == list(range(3, 22))
    assert spared(4) == [1, 2]
    assert spared(2) == [0, 1]


def test_chance_goes_by_its_seed_and_magnitude_needs_no_text() -> None:
    removed = []
    for seed in (0, 0, 1):
        model = build("llama", {}).requires_grad_(False)
        settings = PruneSettings(0.25, "random", seed=seed, attention_layers=[], mlp_layers=[0])
        removed.append(prune(model, settings).removed)
    assert removed[0] == removed[1] != removed[2]
    assert not PruneSettings(0.5, "l2").needs_text
    assert PruneSettings(0.5, "l2").aggregates_by == "mean"
    assert PruneSettings(0.5).aggregates_by == "sum"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (PruneSettings(1.0), "not a share"),
        (PruneSettings(-0.1), "not a share"),
        (PruneSettings(0.5, steps=0), "at least one step"),
        (
            PruneSettings(0.5, "l2", attention_layers=[2], mlp_layers=[]),
            "no layer 2",
        ),
        (PruneSettings(0.5, "l2", attention_layers=[], mlp_layers=[]), "no layer is left"),
        (PruneSettings(0.5, attention_layers=[0], mlp_layers=[0]), "needs text"),
    ],
)
def test_settings_that_cannot_be(settings: PruneSettings, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prune(build("llama", {}), settings)


def test_nothing_is_removed_at_a_ratio_of_zero() -> None:
    model = build("llama", {}).requires_grad_(False)
    expected = logits(model)
    removal = prune(model, PruneSettings(0.0))
    assert not any(removal.removed.values())
    assert torch.equal(logits(model), expected)


# ---- the text ----------------------------------------------------------------------------------


def test_calibration_is_spread_over_the_text_without_overlap() -> None:
    found = calibration_sequences(range(1000), 4, 100)
    assert found.shape == (4, 100)
    assert found[:, 0].tolist() == [0, 300, 600, 900]
    assert calibration_sequences(range(64), 1, 64).tolist() == [list(range(64))]
    tight = calibration_sequences(range(6), 3, 2)
    assert tight.flatten().tolist() == list(range(6))
    with pytest.raises(ConfigError, match="take 640 tokens of text, and there are 639"):
        calibration_sequences(range(639))
    with pytest.raises(ConfigError, match="no loss"):
        calibration_sequences(range(639), 3, 1)


# ---- the folder --------------------------------------------------------------------------------


def test_a_folder_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    model = build("llama", {})
    (tmp_path / "kept").write_text("mine")
    for place in (tmp_path, tmp_path / "kept"):
        with pytest.raises(ConfigError, match="is there already"):
            save_model(model, place, {})
    with pytest.raises(ConfigError, match="is not a folder"):
        check_place(tmp_path / "kept" / "small")
    (tmp_path / "empty").mkdir()
    save_model(model, tmp_path / "empty", {})
    assert (tmp_path / "empty" / "config.json").is_file()


def test_a_folder_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infllm.engine.prune import saving

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "_bring_along", full)
    with pytest.raises(ModelFileError, match="No space left"):
        save_model(build("llama", {}), tmp_path / "small", {})
    assert list(tmp_path.iterdir()) == []


def test_files_of_the_source_go_along_and_the_dtype_is_the_sources(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("tokenizer.json", "LICENSE", "other.txt"):
        (source / name).write_text(name)
    model = build("llama", {})
    save_model(model, tmp_path / "small", {}, source=source, dtype=torch.bfloat16)
    names = {path.name for path in (tmp_path / "small").iterdir()}
    assert {"tokenizer.json", "LICENSE", "model.safetensors", "config.json", CARD} <= names
    assert "other.txt" not in names
    assert stored_dtype(str(tmp_path / "small"), {}) is torch.bfloat16
    assert stored_dtype(str(tmp_path / "small"), {"dtype": "float16"}) is torch.float16
    assert stored_dtype(str(source), {}) is torch.float32
