"""Every causal model type of the installed transformers is served as stock or refused by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import transformers
from packaging.version import Version
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.utils import is_timm_available

import infllm.presets
from infllm.engine.attachment import load_parts
from infllm.engine.config import ModelConfig
from infllm.engine.errors import UnsupportedModel
from infllm.engine.support import NotServed, build, examine_config, tiny_config
from tests.engine.zoo import DOC, OTHERS, SETTINGS, TYPES, WORDS, listed, row, support_of

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers about its own models
HYBRIDS = (
    "bamba", "falcon_h1", "granitemoehybrid", "jamba", "kimi_linear", "lfm2", "lfm3", "minimax",
    "nemotron_h", "olmo_hybrid", "qwen3_5_text", "qwen3_next", "recurrent_gemma", "zamba2",
)  # fmt: skip
POCKET = str(Path(infllm.presets.__file__).parent / "pocket")
# Which texts of transformers say that something is missing here; the table names no such thing.
HERE = re.compile(r"requires the \w+ library")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers.utils.logging.get_logger("transformers"), "disabled", True)


@pytest.mark.parametrize("kind", TYPES)
def test_a_type_is_served_as_stock_or_refused_with_a_reason(kind: str) -> None:
    told = re.search(r"of causal\nlanguage model in transformers (\S+),", DOC.read_text("utf-8"))
    assert told is not None
    try:
        support = support_of(kind)
    except NotServed as error:  # one was attached and gives other logits
        if Version(transformers.__version__) < Version(told[1]):
            pytest.skip(f"in transformers {transformers.__version__}: {error}")
        raise
    assert support.outcome == "served" or support.reason
    known = listed().get(kind)
    if told[1] == transformers.__version__ and not HERE.search(support.reason):
        assert row(kind, support) == known, "write the page anew: python -m tests.engine.zoo"


@pytest.mark.pinned
def test_the_page_has_a_row_for_each_type_and_counts_them_rightly() -> None:
    rows = listed()
    assert sorted(rows) == TYPES
    assert {*SETTINGS} <= {*TYPES}
    asked = [line for line in rows.values() if not OTHERS.search(line)]
    served = [line for line in asked if re.search(r"\| (yes|with a limit) \|", line)]
    limited = [line for line in served if f"| {WORDS['limited']} |" in line]
    counts = re.search(
        r"Of the (\d+) types .*, (\d+)\nare served, (\d+) of these", DOC.read_text("utf-8")
    )
    assert counts is not None
    assert [int(n) for n in counts.groups()] == [len(asked), len(served), len(limited)]
    assert len(served) >= 0.9 * len(asked)


@pytest.mark.pinned
def test_each_type_was_tried() -> None:
    assert not [line for line in listed().values() if f"| {WORDS['unknown']} |" in line]


@pytest.mark.pinned
def test_hybrids_are_served() -> None:
    assert all(f"| {WORDS['refused']} |" not in listed()[kind] for kind in HYBRIDS)


def test_what_transformers_does_not_know_is_refused() -> None:
    support = examine_config({"model_type": "not_a_model"})
    assert (support.outcome, "no model not_a_model" in support.reason) == ("refused", True)
    assert examine_config({"model_type": "vit"}).outcome == "refused"


@pytest.mark.pinned
def test_a_model_is_refused_by_its_config_before_its_weights_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "musicgen"}')
    with pytest.raises(UnsupportedModel, match="musicgen writes codes of sound"):
        load_parts(ModelConfig(path=str(tmp_path), tokenizer_path=POCKET))


@pytest.mark.pinned
def test_text_is_read_where_what_a_models_eyes_need_is_missing(tmp_path: Path) -> None:
    if is_timm_available():
        pytest.skip("timm is here")
    whole = tiny_config(CONFIG_MAPPING["gemma3n"]())
    text = build(whole.text_config, AutoModelForCausalLM)
    whole.save_pretrained(tmp_path)
    weights = {
        name.replace("model.", "model.language_model.", 1): x.contiguous()
        for name, x in text.state_dict().items()
        if name != "lm_head.weight"
    }
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model, _ = load_parts(
        ModelConfig(path=str(tmp_path), tokenizer_path=POCKET, device="cpu", dtype="float32")
    )
    for name, x in model.state_dict().items():
        assert torch.equal(x, text.state_dict()[name])
