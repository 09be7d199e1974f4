"""`infllm inspect` and `--dry-run`: what would be read, without the model's weights."""

import json
import subprocess
import sys

import pytest

from infllm.cli import estimate
from tests.cli.documents.make import pdf
from tests.cli.fakes import FakeTokenizer

measured_speed = estimate.matmul_speed


@pytest.fixture(autouse=True)
def no_weights(monkeypatch):
    monkeypatch.setattr(estimate, "load_tokenizer", lambda config: FakeTokenizer())
    monkeypatch.setattr(estimate, "matmul_speed", lambda device, dtype: 1e11)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "a.txt").write_text("One two three.")
    (folder / "b.md").write_text("# Title\n\nFour five.")
    (folder / "data.bin").write_bytes(b"\0\1\2" * 100)
    return folder


def test_table(infllm, folder):
    result = infllm("inspect", folder, "-v", "--device", "cpu")
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0].split() == ["source", "kind", "pages", "characters", "tokens"]
    rows = {line.split()[0].rsplit("/", 1)[-1]: line.split()[1:] for line in lines[1:4]}
    assert rows["a.txt"] == ["text", "-", "14", "3"]
    assert rows["b.md"][-1] == "4"
    assert "1 file skipped" in result.out
    assert "data.bin: " in result.out
    assert "tokens with pocket, policy inf-llm\n" in result.out
    assert "memory: about " in result.out
    assert "time: about " in result.out


def test_json(infllm, folder):
    fields = json.loads(infllm("inspect", folder, "--json").out)
    assert (fields["schema"], fields["command"]) == (1, "inspect")
    assert [document["tokens"] for document in fields["documents"]] == [3, 4]
    assert [skipped["source"].endswith("data.bin") for skipped in fields["skipped"]] == [True]
    assert fields["needs"]["weight_bytes"] > 10**6


def test_settings_and_why_they_are_so(infllm, folder, tmp_path):
    chosen = "window 256, 16 units of 32 looked up, chunks of 2,048: chosen by preset pocket\n"
    assert chosen in infllm("inspect", folder).out
    assert "window 256, chunks of" in infllm("inspect", folder, "--policy", "stream-lm").out
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(
        json.dumps({
            "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "vocab_size": 9,
            "num_key_value_heads": 2, "intermediate_size": 4864, "max_position_embeddings": 32768,
        })
    )  # fmt: skip
    options = ["--model", model, "--device", "cpu"]
    out = infllm("inspect", folder, *options).out
    assert "window 1,024, 8 units of 64 looked up, chunks of 2,048: on a CPU" in out
    fields = json.loads(infllm("inspect", folder, *options, "--json").out)["settings"]
    assert fields["why"] == "on a CPU, attention to it costs 19% of the linear layers"
    assert (fields["n_local"], fields["n_local_from"]) == (1024, "fitted to the model")
    by_flag = infllm("inspect", folder, *options, "--set", "n_local=2048").out
    assert "window 2,048, 16 units of 64 looked up, chunks of 2,048: chosen by flag\n" in by_flag


def test_dry_run_of_ask_reads_nothing(infllm, fakes, folder):
    result = infllm("ask", folder, "What?", "--dry-run")
    assert result.code == 0
    assert "tokens with pocket" in result.out
    assert fakes.engines == []


def test_dry_run_keeps_to_the_budget(infllm, folder):
    result = infllm("ask", folder, "What?", "--dry-run", "--max-tokens", 5)
    assert result.code == 4
    assert "more than the budget of 5\n" in result.raw_err


def test_estimate_is_the_engines_own_for_the_memory():
    from infllm.engine.config import load_config
    from infllm.engine.units.sizes import estimate as of_engine

    config = load_config("pocket", {"device": "cpu", "dtype": "float32"})
    needs = estimate.estimate_needs(config, 100_000)
    shapes = [estimate._Shape(4, 2, 64, estimate._Device("cpu"), estimate._Dtype(4), None)] * 4
    expected = of_engine(config.model, shapes, 100_000)
    assert needs is not None
    assert needs.device_bytes - needs.weight_bytes == expected.device_bytes
    assert needs.host_bytes == expected.host_bytes
    assert needs.weight_bytes == pytest.approx(4 * 4.0e6, rel=0.2)
    longer = estimate.estimate_needs(config, 200_000)
    assert longer is not None
    assert longer.seconds == pytest.approx(2 * needs.seconds, rel=0.3)


MIDDLE = ("--policy", "infinite-lm", "--set", "middle_topk=5", "--set", "middle_from_layer=1")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (MIDDLE, "are kept on the host for the middle of 3 of 4 layers"),
        (("--policy", "infinite-lm"), None),
        (("--policy", "sirllm"), "the model's head is run for every token, for its surprise: "),
        (("--policy", "sirllm", "--set", "score=random"), None),
        ((), None),
    ],
)
def test_what_a_policy_costs_besides_is_told(infllm, folder, flags, told):
    for command in (("inspect", folder), ("ask", folder, "What?", "--dry-run")):
        result = infllm(*command, "--device", "cpu", *flags)
        assert result.code == 0
        assert ("are kept on the host" in result.out) == (told is not None and "kept" in told)
        assert ("the model's head" in result.out) == (told is not None and "head" in told)
        assert told is None or told in result.out
    notes = json.loads(infllm("inspect", folder, "--json", *flags).out)["needs"]["notes"]
    assert len(notes) == (told is not None)


def test_latents_of_mla_are_counted_as_units_hold_them():
    spec = {
        "num_attention_heads": 40, "num_key_value_heads": 40, "hidden_size": 2560,
        "num_hidden_layers": 62, "kv_lora_rank": 256, "qk_nope_head_dim": 64,
        "qk_rope_head_dim": 32, "v_head_dim": 64,
    }  # fmt: skip
    shape, *others = estimate.layer_shapes(spec, "cpu", 2)
    assert len(others) == 61
    assert (shape.n_kv_heads, shape.head_dim, shape.latents.size) == (40, 96, 288)


def test_estimates_of_policies_differ_as_their_memories_do():
    from infllm.engine.config import load_config

    def needs(**overrides):
        config = load_config("pocket", {"device": "cpu", "dtype": "float32", **overrides})
        found = estimate.estimate_needs(config, 100_000)
        assert found is not None
        return found

    window = needs(type="infinite-lm")
    middle = needs(type="infinite-lm", middle_topk=5, middle_from_layer=1)
    every = needs(type="infinite-lm", middle_topk=5, middle_from_layer=1, middle_queries="all")
    token = 2 * 2 * 64 * 2  # keys and values, KV heads, head_dim, bfloat16
    pages = (100_000 - 256 - 16 + 1) // 8
    assert window.host_bytes == 0
    assert middle.host_bytes == every.host_bytes == 3 * pages * 8 * token
    assert every.seconds > 2 * middle.seconds
    surprise, chance = needs(type="sirllm"), needs(type="sirllm", score="random")
    assert surprise.host_bytes == chance.host_bytes == 0
    assert surprise.device_bytes - surprise.weight_bytes == 4 * (16 + 2000) * 2 * token
    assert surprise.seconds > 1.05 * chance.seconds
    assert needs(type="sirllm", n_entropy=100).device_bytes < surprise.device_bytes


def test_a_speed_is_measured_for_every_dtype():
    for dtype in ("float32", "bfloat16", "float16"):
        assert measured_speed("cpu", dtype) > 1e6


@pytest.mark.parametrize("command", [["inspect"], ["ask", "--dry-run"]], ids=["inspect", "ask"])
def test_neither_torch_nor_transformers_is_imported_for_a_model_folder(folder, command):
    question = ["What?"] if command[0] == "ask" else []
    arguments = [command[0], str(folder), *question, *command[1:], "--device", "cpu"]
    code = (
        "import sys; from infllm.cli.main import run; "
        f"assert run({arguments!r}) == 0; "
        "print('heavy:', [m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "tokens with pocket" in done.stdout
    assert "time: about " in done.stdout
    assert done.stdout.endswith("heavy: []\n")


def test_a_scan_is_told(infllm, tmp_path):
    (tmp_path / "scan.pdf").write_bytes(pdf(["p. 1"]))
    result = infllm("inspect", tmp_path / "scan.pdf", "--json")
    assert result.code == 0
    warning = "almost no text: 3 characters on 1 page; it may be a scan: run OCR first"
    assert f"scan.pdf: {warning}" in result.raw_err
    [told] = json.loads(result.out)["documents"][0]["warnings"]
    assert told.startswith(warning)
