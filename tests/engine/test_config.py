"""Configuration: published files load unchanged, slips are named, layers have their order."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from infllm import presets
from infllm.engine.config import (
    KNOWN,
    Config,
    ModelConfig,
    load_config,
)
from infllm.engine.errors import ConfigError, ModelNotFound

NOWHERE = Path("no/such/file.yaml")

# The shape of the method's published configs, one per type, with every key their README names.
PUBLISHED = {
    "inf-llm": """
        model:
          type: inf-llm
          path: org/model
          tokenizer_path: org/model
          block_size: 128
          fattn: true
          n_init: 128
          n_local: 4096
          topk: 16
          repr_topk: 4
          max_cached_block: 32
          exc_block_size: 512
          score_decay: 0.1
          cache_strategy: lru-s
          chunk_topk_calc: 1024
          async_global_stream: true
          pin_memory: true
          faiss: false
          perhead: false
          base: 1000000
          distance_scale: 1.0
        max_len: 2147483647
        truncation: suffix
        chunk_size: 8192
        conv_type: mistral-inst
    """,
    "infinite-lm": """
        model: {type: infinite-lm, path: org/model, n_init: 128, n_local: 6144, fattn: true,
                base: 1000000, distance_scale: 1.0}
        max_len: 2147483647
        chunk_size: 8192
        conv_type: mistral-inst
    """,
    "stream-lm": """
        model: {type: stream-llm, path: org/model, n_init: 128, n_local: 3968, fattn: true,
                base: 10000, distance_scale: 1.0}
        max_len: 2147483647
        chunk_size: 8192
        conv_type: vicuna
    """,
    "origin": """
        model: {type: origin, path: org/model, base: 1000000, distance_scale: 0.25, fattn: true}
        max_len: 131072
        chunk_size: 4096
        conv_type: mistral-inst
        truncation: suffix
    """,
}


def load(source: Any = "pocket", overrides: dict[str, Any] | None = None, **layers: Any) -> Config:
    layers = {"environ": {}, "project": NOWHERE, "user": NOWHERE} | layers
    return load_config(source, overrides, **layers)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("policy", PUBLISHED)
def test_a_published_config_loads_unchanged(tmp_path: Path, policy: str):
    given = yaml.safe_load(PUBLISHED[policy])
    config = load(write(tmp_path / "published.yaml", PUBLISHED[policy]))
    assert config.model.type == policy
    for key, value in given["model"].items():
        if key != "type":
            assert getattr(config.model, key) == value
    assert config.chunk_size == given["chunk_size"]
    assert config.conv_type == given["conv_type"]
    assert config.truncation == given.get("truncation")
    assert config.max_len == (131072 if policy == "origin" else None)
    assert "fattn has no effect here" in config.notes


def test_keys_without_effect_are_named_once_each(tmp_path: Path):
    config = load(write(tmp_path / "published.yaml", PUBLISHED["inf-llm"]))
    assert config.notes == [
        "fattn has no effect here",
        "async_global_stream has no effect here",
        "pin_memory has no effect here",
        "truncation has no effect without max_len",
    ]


def test_what_a_config_leaves_out_has_the_published_default():
    model = load({"model": {"path": "org/model"}}).model
    published = {
        "type": "inf-llm",
        "n_init": 128,
        "n_local": 4096,
        "block_size": 128,
        "topk": 16,
        "repr_topk": 4,
        "max_cached_block": 32,
        "exc_block_size": 512,
        "chunk_topk_calc": None,
        "cache_strategy": "lru",
        "score_decay": 0.1,
        "faiss": False,
        "perhead": False,
        "base": None,
        "distance_scale": 1.0,
    }
    assert {key: getattr(model, key) for key in published} == published
    assert load({"model": {"path": "org/model"}}).chunk_size == 8192


def test_units_are_scored_by_their_keys_unless_faiss_looks_them_up():
    given = {"model": {"path": "org/model"}}
    assert load(given).model.unit_score == "moments"
    assert load({"model": {**given["model"], "faiss": True}}).model.unit_score == "representatives"


@pytest.mark.parametrize(
    ("overrides", "message", "hint"),
    [
        ({"topkk": 1}, "unknown key 'topkk' (flag)", "did you mean 'model.topk'?"),
        ({"model.n_locl": 1}, "unknown key 'model.n_locl' (flag)", "did you mean 'model.n_local'?"),
        ({"chunksize": 1}, "unknown key 'chunksize' (flag)", "did you mean 'chunk_size'?"),
        (
            {"cache_strategy": "lrus"},
            "model.cache_strategy: 'lrus' will not do: 'lru', 'fifo' or 'lru-s' (flag)",
            "did you mean 'lru-s'?",
        ),
        (
            {"conv_type": "mistral"},
            "conv_type: 'mistral' will not do: "
            "'mistral-inst', 'llama-3-inst', 'vicuna', 'qwen' or 'minicpm' (flag)",
            "did you mean 'mistral-inst'?",
        ),
        ({"topk": True}, "model.topk: True will not do: a number is needed (flag)", ""),
        ({"model": 3}, "model: a mapping is needed, not int (flag)", ""),
        (
            {"n_init": -1},
            "model.n_init: -1 will not do: greater than or equal to 0 (flag)",
            "",
        ),
        ({"base": 0}, "model.base: 0 will not do: greater than 0 (flag)", ""),
        (
            {"device": "gpu"},
            "model.device: 'gpu' will not do: 'auto', 'cpu', 'cuda' or 'cuda:1' (flag)",
            "",
        ),
        (
            {"exc_block_size": 512},
            "model.exc_block_size 512 (flag) is larger than model.n_local 256 (preset pocket)",
            "an execution block may not leave the window: lower model.exc_block_size",
        ),
        (
            {"repr_topk": 64},
            "model.repr_topk 64 (flag) is larger than model.block_size 32 (preset pocket)",
            "a unit has no more representatives than tokens: lower model.repr_topk",
        ),
        (
            {"chunk_topk_calc": 64},
            "model.chunk_topk_calc 64 (flag) is smaller than "
            "model.exc_block_size 128 (preset pocket)",
            "lookups are made for whole execution blocks: raise it or leave it out",
        ),
    ],
)
def test_a_slip_is_named_with_its_origin(overrides: dict[str, Any], message: str, hint: str):
    with pytest.raises(ConfigError) as caught:
        load("pocket", overrides)
    assert (caught.value.message, caught.value.hint) == (message, hint)


@pytest.mark.parametrize(
    ("overrides", "key", "value", "note"),
    [
        (
            {"topk": 64},
            "model.max_cached_block",
            128,
            "max_cached_block raised from 32 to 128: the cache must hold the units of one step",
        ),
        (
            {"chunk_size": 1000},
            "chunk_size",
            896,
            "chunk_size 1000 rounded to 896, a multiple of exc_block_size 128",
        ),
        (
            {"chunk_size": 1},
            "chunk_size",
            128,
            "chunk_size 1 rounded to 128, a multiple of exc_block_size 128",
        ),
        (
            {"chunk_topk_calc": 300},
            "model.chunk_topk_calc",
            256,
            "chunk_topk_calc rounded down to 256, a multiple of exc_block_size 128",
        ),
    ],
)
def test_what_can_be_mended_is_mended_and_noted(
    overrides: dict[str, Any], key: str, value: int, note: str
):
    config = load("pocket", overrides)
    assert config.flat()[key] == value
    assert config.notes == [note]


def test_settings_nobody_chose_give_way():
    config = load({"model": {"path": "org/model", "n_local": 64, "block_size": 2}})
    assert config.model.exc_block_size == 32
    assert config.model.repr_topk == 2
    assert config.notes == []


def test_limits_of_inf_llm_do_not_bind_other_policies():
    config = load("pocket", {"type": "origin", "n_local": 8})
    assert config.model.exc_block_size == 128


def test_an_error_in_a_file_names_the_file(tmp_path: Path):
    bad = write(tmp_path / "bad.yaml", "model: {path: a/b, topkk: 3}")
    with pytest.raises(ConfigError, match=r"unknown key 'model.topkk' \(.*bad.yaml\)"):
        load(bad)
    broken = write(tmp_path / "broken.yaml", "model: {path: ")
    with pytest.raises(ConfigError, match=r"broken.yaml is not valid YAML: .*line 1"):
        load(broken)
    with pytest.raises(ConfigError, match=r"cannot read .*missing.yaml"):
        load(tmp_path / "missing.yaml")
    listing = write(tmp_path / "list.yaml", "- a\n- b\n")
    with pytest.raises(ConfigError, match="settings are a mapping"):
        load(listing)


def test_each_layer_wins_over_those_below_and_is_told(tmp_path: Path):
    user = write(
        tmp_path / "config.yaml", "model: {topk: 2, repr_topk: 2, block_size: 16, n_init: 8}"
    )
    project = write(tmp_path / "infllm.yaml", "model: {topk: 3, repr_topk: 3, block_size: 24}")
    environ = {"INFLLM_TOPK": "4", "INFLLM_MODEL__REPR_TOPK": "4", "HOME": "/x"}
    config = load("pocket", {"topk": 5}, environ=environ, project=project, user=user)
    chosen = ("topk", "repr_topk", "block_size", "n_init", "n_local", "perhead")
    assert [getattr(config.model, key) for key in chosen] == [5, 4, 24, 8, 256, False]
    assert [config.origins[f"model.{key}"] for key in chosen] == [
        "flag",
        "environment",
        f"project file {project}",
        f"user config {user}",
        "preset pocket",
        "default",
    ]


def test_the_environment_is_read_as_yaml_scalars():
    environ = {
        "INFLLM_MAX_LEN": "4096",
        "INFLLM_TRUNCATION": "middle",
        "INFLLM_PERHEAD": "true",
        "INFLLM_CHUNK_TOPK_CALC": "null",
    }
    config = load("pocket", environ=environ)
    assert (config.max_len, config.truncation) == (4096, "middle")
    assert config.model.perhead is True
    assert config.model.chunk_topk_calc is None


def test_a_slip_in_the_environment_is_an_error_or_a_note():
    with pytest.raises(ConfigError, match=r"unknown key 'model.topkk' .*INFLLM_MODEL__TOPKK"):
        load("pocket", environ={"INFLLM_MODEL__TOPKK": "3"})
    config = load("pocket", environ={"INFLLM_CHUNK_SIZES": "3", "INFLLM_ELSEWHERE": "x"})
    assert config.notes == ["INFLLM_CHUNK_SIZES is not a setting; did you mean INFLLM_CHUNK_SIZE?"]


def test_without_a_source_the_nearest_layer_names_the_model(tmp_path: Path):
    user = write(tmp_path / "config.yaml", "preset: qwen3-0.6b")
    project = write(tmp_path / "infllm.yaml", "preset: smollm3-3b\nmodel: {topk: 3}")
    assert load(None).model.path == str(presets.builtin("pocket"))
    assert load(None, user=user).model.path == "Qwen/Qwen3-0.6B"
    config = load(None, user=user, project=project)
    assert (config.model.path, config.model.topk) == ("HuggingFaceTB/SmolLM3-3B", 3)
    environ = {"INFLLM_PRESET": "qwen3-4b"}
    assert load(None, user=user, project=project, environ=environ).model.path == "Qwen/Qwen3-4B"
    assert load(None, {"path": "org/m"}, environ=environ).model.path == "org/m"


def test_a_model_named_above_is_not_swapped_from_below(tmp_path: Path):
    project = write(tmp_path / "infllm.yaml", "model: {path: org/other, topk: 3}")
    config = load("smollm3-3b", project=project)
    assert (config.model.path, config.model.topk) == ("HuggingFaceTB/SmolLM3-3B", 3)
    assert config.notes == [f"model.path of the project file {project} is set aside for smollm3-3b"]


def test_a_file_can_build_on_a_preset(tmp_path: Path):
    own = write(tmp_path / "own.yaml", "preset: pocket\nmodel: {topk: 4}")
    config = load(own)
    assert (config.model.topk, config.model.n_local) == (4, 256)
    wrong = write(tmp_path / "wrong.yaml", "preset: poket")
    with pytest.raises(ConfigError) as caught:
        load(wrong)
    assert caught.value.hint == "did you mean 'pocket'?"


def test_a_relative_model_path_is_meant_from_its_file(tmp_path: Path):
    (tmp_path / "weights").mkdir()
    own = write(tmp_path / "own.yaml", "model: {path: weights, tokenizer_path: org/tokenizer}")
    config = load(own)
    assert config.model.path == str(tmp_path / "weights")
    assert config.model.tokenizer_path == "org/tokenizer"


def test_a_source_that_is_no_model_is_told(tmp_path: Path):
    with pytest.raises(ModelNotFound, match=r"config\.json is missing"):
        load(str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        load("qwen3-4bb")
    assert caught.value.hint == "did you mean 'qwen3-4b'?"
    write(tmp_path / "config.json", "{")
    with pytest.raises(ModelNotFound, match="not valid JSON"):
        load(str(tmp_path))


def test_a_hub_id_gets_the_published_defaults():
    model = load("some-org/some-model").model
    assert (model.path, model.n_local, model.topk) == ("some-org/some-model", 4096, 16)


def test_overrides_go_on_top_and_leave_the_original_alone():
    config = load("pocket")
    changed = config.with_overrides({"type": "stream-llm", "n_init": 4})
    assert (changed.model.type, changed.model.n_init) == ("stream-lm", 4)
    assert changed.model.topk == config.model.topk
    assert changed.origins["model.n_init"] == "override"
    assert (config.model.type, config.model.n_init) == ("inf-llm", 16)
    built = Config(model=ModelConfig(path="p", n_local=32, exc_block_size=16))
    assert built.with_overrides({"topk": 3}).model.n_local == 32


def test_a_config_is_immutable():
    config = load("pocket")
    with pytest.raises(ValueError, match="frozen"):
        config.model.topk = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_flat_and_origins_cover_every_setting():
    config = load("pocket", {"prompts.ask.tail": "{question}"})
    assert set(config.flat()) == KNOWN | {"prompts.ask.tail"} == set(config.origins)


def test_configuration_needs_no_torch():
    code = (
        "import sys; from infllm.engine.config import load_config; load_config('pocket');"
        "print([m for m in sys.modules if m in ('torch', 'transformers', 'tokenizers')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
