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
