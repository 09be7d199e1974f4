"""`infllm presets`: what comes with the tool, and where a value comes from."""

import json


def test_list(infllm):
    result = infllm("presets", "list")
    lines = result.out.splitlines()
    assert lines[0].split() == ["preset", "policy", "window", "licence", "model"]
    assert lines[1].split()[:2] == ["pocket", "inf-llm"]
    fields = json.loads(infllm("presets", "list", "--json").out)
    assert (fields["schema"], fields["command"]) == (1, "presets")
    assert fields["presets"][0]["name"] == "pocket"


def test_show_names_the_origin_of_each_value(infllm, monkeypatch, tmp_path):
    monkeypatch.setenv("INFLLM_REPR_TOPK", "3")
    (tmp_path / "cwd" / "infllm.yaml").write_text("model:\n  n_init: 8\n")
    result = infllm("presets", "show", "pocket", "--set", "topk=9", "--policy", "inf-llm")
    rows = {line.split()[0]: line.split()[1:] for line in result.out.splitlines()}
    assert rows["model.topk"] == ["flag", "9"]
    assert rows["model.repr_topk"] == ["environment", "3"]
    assert rows["model.n_init"][0] == "project"
    assert rows["model.n_init"][-1] == "8"
    assert rows["model.block_size"][:2] == ["preset", "pocket"]
    fields = json.loads(infllm("presets", "show", "--json").out)
    assert fields["command"] == "presets"
    assert fields["config"]["model.repr_topk"] == 3
    assert fields["origins"]["model.repr_topk"] == "environment"


def test_show_unknown(infllm):
    result = infllm("presets", "show", "pockt")
    assert (result.code, result.out) == (2, "")
    assert "did you mean 'pocket'?" in result.raw_err
