"""Settings that are fitted to a model's shape and a device."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infllm.engine.config import Config, fit_to_model, trained_length
from infllm.engine.config.fitting import fit
from tests.engine.test_config import load, write


def shape(hidden: int, layers: int, heads: int, kv_heads: int, inner: int, **more) -> dict:
    return {
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "intermediate_size": inner,
        "max_position_embeddings": 32768, **more,
    }  # fmt: skip


SMOLLM2_135M = shape(576, 30, 9, 3, 1536, max_position_embeddings=8192)
QWEN25_05B = shape(896, 24, 14, 2, 4864)
SMOLLM2_17B = shape(2048, 24, 32, 32, 8192, max_position_embeddings=8192)
QWEN25_7B = shape(3584, 28, 28, 4, 18944)


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (512, (16, 256, 32, 128, 2048)),
        (2048, (64, 1024, 128, 512, 8192)),
        (4096, (128, 2048, 128, 512, 8192)),
        (8192, (128, 4096, 128, 512, 8192)),
        (131072, (128, 4096, 128, 512, 8192)),
    ],
)
def test_on_a_gpu_the_window_is_that_of_the_trained_length(length: int, expected: tuple[int, ...]):
    config = fit_to_model(Config(), {**QWEN25_7B, "max_position_embeddings": length}, "cuda")
    model = config.model
    got = (model.n_init, model.n_local, model.block_size, model.exc_block_size, config.chunk_size)
    assert got == expected
    assert model.topk == 16


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (SMOLLM2_135M, (1024, 8, 64)),
        (QWEN25_05B, (1024, 8, 64)),
        (SMOLLM2_17B, (2048, 16, 64)),
        (QWEN25_7B, (4096, 16, 128)),
        ({**QWEN25_7B, "max_position_embeddings": 2048}, (1024, 8, 64)),
        ({**SMOLLM2_135M, "max_position_embeddings": 256}, (128, 16, 16)),
        ({"max_position_embeddings": 4096}, (2048, 16, 128)),  # its shape is not told
    ],
)
def test_on_a_cpu_attention_takes_its_share_and_no_more(spec: dict, expected: tuple[int, ...]):
    for nested in (spec, {"text_config": spec}):
        model = fit_to_model(Config(), nested, "cpu").model
        assert (model.n_local, model.topk, model.block_size) == expected


def test_what_is_far_is_seen_within_a_quarter_of_the_trained_length():
    for length, expected in ((32768, 8192), (8192, 2048), (1, 1)):
        model = fit_to_model(Config(), {**QWEN25_05B, "max_position_embeddings": length}).model
        assert (model.far_position, model.far_limit) == ("within", expected)


def test_small_models_read_back_unless_told_otherwise():
    for spec, expected in ((SMOLLM2_135M, True), (QWEN25_05B, True), (QWEN25_7B, False)):
        for device in ("cpu", "cuda"):
            assert fit_to_model(Config(), spec, device).read_back is expected
    chosen = load({"model": {"path": "org/model"}, "read_back": False})
    assert fit_to_model(chosen, QWEN25_05B, "cpu").read_back is False


def test_a_model_folder_gets_settings_that_fit_it(tmp_path: Path):
    write(tmp_path / "config.json", json.dumps(QWEN25_05B))
    config = load(str(tmp_path), {"device": "cpu"})
    assert config.model.path == str(tmp_path)
    assert config.origins["model.n_local"] == "fitted to the model"
    assert "costs 19% of the linear layers" in config.why_fitted
    assert config.with_overrides({"topk": 4}).why_fitted == config.why_fitted
    on_gpu = fit_to_model(config, QWEN25_05B, "cuda")
    assert (on_gpu.model.n_local, on_gpu.model.topk) == (4096, 16)
    assert load("pocket").flat() == load("pocket", {"device": "cpu"}).flat() | {
        "model.device": "auto"
    }


@given(st.integers(1, 10_000_000), st.integers(1, 512), st.integers(1, 128), st.integers(1, 128))
def test_fitted_settings_keep_every_limit(length: int, width: int, layers: int, heads: int):
    spec = shape(width * heads, layers, heads, heads, 3 * width * heads)
    spec["max_position_embeddings"] = length
    for device in ("cpu", "cuda"):
        settings = {"model": {"path": "org/model"}}
        config = fit_to_model(load(settings), spec, device)
        assert config.notes == []
        assert config.model.exc_block_size <= config.model.n_local
        assert config.model.repr_topk <= config.model.block_size
        assert config.model.topk <= config.model.max_cached_block
        assert config.chunk_size % config.model.exc_block_size == 0
        assert config.model.n_local <= max(64, min(4096, length // 2))
        fitted = fit(spec, device)
        assert fitted is not None
        assert config.flat() | fitted.settings == config.flat()


def test_fitting_keeps_what_was_chosen_and_follows_a_chosen_window():
    config = load({"model": {"path": "org/model", "n_local": 2048}}, {"topk": 4})
    for device, init, block in (("cpu", 64, 64), ("cuda", 128, 128)):
        model = fit_to_model(config, {"max_position_embeddings": 512}, device).model
        assert (model.n_local, model.topk) == (2048, 4)
        assert (model.n_init, model.block_size) == (init, block)
    assert fit_to_model(config, {}) is config


@given(st.integers(1, 20_000))
def test_any_window_may_be_chosen(window: int):
    config = load({"model": {"path": "org/model"}}, {"n_local": window})
    for device in ("cpu", "cuda"):
        fitted = fit_to_model(config, QWEN25_05B, device)
        assert (fitted.model.n_local, fitted.notes) == (window, [])
        assert fitted.chunk_size % fitted.model.exc_block_size == 0


def test_the_trained_length_is_that_before_rope_scaling():
    assert trained_length({"max_position_embeddings": 8192}) == 8192
    assert trained_length({"text_config": {"max_position_embeddings": 32768}}) == 32768
    scaled = {"rope_type": "longrope", "original_max_position_embeddings": 4096}
    assert trained_length({"max_position_embeddings": 131072, "rope_scaling": scaled}) == 4096
    assert trained_length({"max_position_embeddings": 131072, "rope_parameters": scaled}) == 4096
    assert trained_length({"vocab_size": 3}) is None
