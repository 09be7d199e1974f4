"""Presets: each loads as it stands, and all of them reach the installed package."""

import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from infllm import presets
from infllm.engine.config import fit_to_model, load_config

ROOT = Path(__file__).parents[2]
NOWHERE = Path("no/such/file.yaml")


def test_pocket_is_first_and_the_promised_models_are_there():
    names = presets.names()
    assert names[0] == "pocket"
    for family in (
        "llama-3-8b-instruct",
        "llama-3.1-8b-instruct",
        "llama-3.2-1b-instruct",
        "llama-3.2-3b-instruct",
        "mistral-7b-instruct-v0.2",
        "qwen2.5-0.5b-instruct",
        "qwen3-0.6b",
        "phi-4-mini-instruct",
        "gemma-3-1b-it",
        "smollm3-3b",
        "vicuna-7b-v1.5",
        "minicpm-2b",
        "smollm2-135m-instruct",
        "smollm2-360m-instruct",
        "smollm2-1.7b-instruct",
        "qwen2.5-coder-0.5b-instruct",
        "gemma-3-270m",
        "gemma-3-270m-it",
    ):
        assert family in names


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_needs_no_adjustment_and_says_what_it_is(name: str):
    config = load_config(name, environ={}, project=NOWHERE, user=NOWHERE)
    assert config.notes == []
    assert config.model.type == "inf-llm"
    assert config.model.path
    assert config.description
    assert config.license
    assert config.chunk_size % config.model.exc_block_size == 0


PUBLISHED = {"llama-3-8b-instruct", "qwen1.5-7b-chat", "vicuna-7b-v1.5", "minicpm-2b"}
PUBLISHED |= {"mistral-7b-instruct-v0.2", "mistral-7b-instruct-v0.2-12k"}


@pytest.mark.parametrize("name", sorted({*presets.names()} - PUBLISHED - {"pocket"}))
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_file_of_the_same_model_gets_what_its_preset_gets(name: str, device: str):
    spec = {
        "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14,
        "num_key_value_heads": 2, "intermediate_size": 4864, "max_position_embeddings": 32768,
    }  # fmt: skip
    found = []
    for source in (name, {"model": {"path": "org/some-model"}}):
        config = load_config(source, environ={}, project=NOWHERE, user=NOWHERE)
        flat = fit_to_model(config, spec, device).flat()
        told = ("model.path", "description", "license", "conv_type")
        found.append({key: value for key, value in flat.items() if key not in told})
    assert found[0] == found[1]


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_runs_every_policy(name: str):
    for policy in ("origin", "window", "stream-lm", "infinite-lm", "inf-llm"):
        config = load_config(name, {"type": policy}, environ={}, project=NOWHERE, user=NOWHERE)
        assert config.model.type == policy


def test_package_data_covers_every_file():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["infllm.presets"]
    shipped = {
        str(path.relative_to(ROOT / "presets"))
        for path in (ROOT / "presets").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".py"
    }
    assert shipped
    assert [file for file in shipped if not any(_matches(file, p) for p in patterns)] == []


def _matches(file: str, pattern: str) -> bool:
    # setuptools' `*` stays within one folder.
    return file.count("/") == pattern.count("/") and fnmatch(file, pattern)


def test_text_and_path_are_those_of_the_yaml_file():
    assert presets.path("pocket").name == "pocket.yaml"
    assert presets.text("pocket") == presets.path("pocket").read_text(encoding="utf-8")


def test_an_unknown_preset_is_answered_with_near_ones():
    assert presets.suggestions("quen3-4b")[0] == "qwen3-4b"
    assert "mistral-7b-instruct-v0.2" in presets.suggestions("mistral")
    with pytest.raises(KeyError, match="near: qwen3-4b"):
        presets.path("qwen3-4bb")


def test_presets_import_nothing_of_the_house_and_no_torch():
    code = (
        "import sys, infllm.presets as p; p.names(); p.text('pocket');"
        "print([m for m in sys.modules if m in ('torch', 'transformers', 'pydantic', 'yaml')"
        " or m.startswith(('infllm.engine', 'infllm.kernels', 'infllm.cli'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
