"""`infllm doctor`: what it finds, and its status."""

import json


def test_all_is_well(infllm, fakes):
    result = infllm("doctor")
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0].startswith("ok       infllm: ")
    assert lines[-1].startswith(
        "ok       model: pocket on cpu as float32: pass key in 2,048 tokens found, "
    )
    assert all(line.split()[0] in ("ok", "missing") for line in lines)


def test_json(infllm, fakes):
    fields = json.loads(infllm("doctor", "--json").out)
    assert (fields["schema"], fields["command"], fields["ok"]) == (1, "doctor", True)
    assert {"name", "state", "detail"} == set(fields["findings"][0])


def test_a_model_that_does_not_find_the_key(infllm, fakes):
    fakes.answer = lambda text: " 00000"
    result = infllm("doctor")
    assert result.code == 1
    assert "failed   model: pocket on cpu as float32: pass key in 2,048 tokens not found" in (
        result.out
    )


def test_a_missing_model(infllm, tmp_path):
    (tmp_path / "empty").mkdir()
    result = infllm("doctor", "--model", tmp_path / "empty")
    assert result.code == 5
    assert "failed   model: no model in" in result.out


def test_a_named_model_is_examined_by_its_config_alone(infllm, tmp_path):
    config = {"model_type": "qwen3_next", "hidden_size": 512, "num_hidden_layers": 8}
    (tmp_path / "config.json").write_text(json.dumps(config))
    result = infllm("doctor", "--model", tmp_path)
    assert result.code == 0
    assert result.out.splitlines()[-1] == (
        f"ok       model: {tmp_path} (qwen3_next) is served; a tiny one of its config was tried"
    )


def test_a_named_model_that_is_not_served_is_refused_with_the_reason(infllm, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba", "state_size": 8}))
    result = infllm("doctor", "--model", tmp_path)
    assert result.code == 1
    assert "(mamba) is not served: MambaForCausalLM has no softmax attention" in result.out
