"""A folder's tokenizer without transformers: the one of transformers, or none."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from infllm import presets
from infllm.engine.text import TextTokenizer, Tokenizer, read_tokenizer
from tests.engine.tokenizers_of_all_kinds import BEGIN, CALL, KINDS, TEXT, transformers_tokenizer

TEXTS = ["", " a  b\n\n\n", TEXT, f"{BEGIN} x {CALL} <unk> [INST] 1234567 'tis 東京 \x00", "A" * 99]


@pytest.fixture(params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A model folder as `save_pretrained` leaves it."""
    transformers_tokenizer(KINDS[request.param]()).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return tmp_path


def change(file: Path, **settings: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def assert_same_as_transformers(folder: Path) -> None:
    core = read_tokenizer(str(folder))
    assert core is not None
    ours, theirs = TextTokenizer(core), Tokenizer(AutoTokenizer.from_pretrained(folder))
    assert type(theirs.hf).__name__ == "TokenizersBackend"
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text)
    assert ours.special_ids == theirs.special_ids
    assert ours.control_ids == theirs.control_ids


def test_every_kind_is_read_as_transformers_reads_it(folder: Path):
    assert_same_as_transformers(folder)


def test_older_settings_too(folder: Path):
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    change(
        folder / "tokenizer_config.json",
        tokenizer_class="PreTrainedTokenizerFast",
        added_tokens_decoder={str(token.pop("id")): token for token in added},
        bos_token={"__type": "AddedToken", "content": BEGIN},
        chat_template="{{ messages }}",
    )
    assert_same_as_transformers(folder)


def test_the_built_in_model():
    assert_same_as_transformers(presets.builtin("pocket"))


@pytest.mark.parametrize(
    "settings",
    [
        {"tokenizer_class": "LlamaTokenizer"},
        {"pad_token": "<not there>"},
        {"extra_special_tokens": ["<more>"]},
        {"added_tokens_decoder": {"0": {"content": BEGIN, "special": False}}},
        {"add_prefix_space": True},
        {"auto_map": {"AutoTokenizer": ["x.X", None]}},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_what_could_differ_is_left_to_transformers(tmp_path: Path, settings: dict):
    transformers_tokenizer(KINDS["llama_like"]()).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert read_tokenizer(str(tmp_path)) is not None
    change(tmp_path / "tokenizer_config.json", **settings)
    assert read_tokenizer(str(tmp_path)) is None


def test_so_are_other_models_older_files_and_what_is_no_model(tmp_path: Path, folder: Path):
    change(folder / "config.json", model_type="qwen2")
    assert read_tokenizer(str(folder)) is None
    change(folder / "config.json", model_type="llama")
    (folder / "added_tokens.json").write_text('{"<more>": 7000}')
    assert read_tokenizer(str(folder)) is None
    (folder / "added_tokens.json").unlink()
    (folder / "tokenizer.json").write_text("{}")
    assert read_tokenizer(str(folder)) is None
    assert read_tokenizer("") is None
    assert read_tokenizer("no/such-model") is None
