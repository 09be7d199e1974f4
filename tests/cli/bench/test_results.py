"""Results on disk: no line is lost, cut lines are repaired, others' folders are left alone."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infllm.cli.bench.manifest import make_manifest, merge_manifest
from infllm.cli.bench.results import (
    ResultFile,
    ResultFolder,
    read_results,
    result_path,
    to_line,
)
from infllm.cli.errors import UsageError
from tests.cli.bench.make import failed, record, results


def lines(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def test_what_was_appended_is_found_again(tmp_path):
    path = tmp_path / "inf-llm" / "ruler.vt.jsonl"
    file = ResultFile(path)
    file.append(record("a", 1.0))
    file.append(failed("b", "out of memory"))
    again = ResultFile(path)
    assert again.done == {"a"}
    assert again.records["b"]["failed"] == "out of memory"


def test_a_failed_sample_is_replaced_by_its_success(tmp_path):
    path = tmp_path / "x.jsonl"
    file = ResultFile(path)
    for line in (failed("a", "no"), record("b", 1.0), record("a", 0.5)):
        file.append(line)
    assert ResultFile(path).done == {"a", "b"}
    file.finish(["a", "b"])
    assert lines(path) == ["a", "b"]


def test_the_same_failure_is_written_once(tmp_path):
    path = tmp_path / "x.jsonl"
    for _ in range(3):
        ResultFile(path).append(failed("a", "no"))
    assert len(path.read_text().splitlines()) == 1


@given(st.data())
def test_a_file_cut_anywhere_loses_its_last_line_at_most(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("cut") / "x.jsonl"
    records = [record(f"s{i}", 0.25 * i, meta={"text": "ü\u2028\n"}) for i in range(4)]
    whole = b"".join(map(to_line, records))
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    file = ResultFile(path)
    assert list(file.records.values()) == records[: whole[:cut].count(b"\n")]
    for line in records:
        if line["id"] not in file.done:
            file.append(line)
    file.finish([line["id"] for line in records])
    assert path.read_bytes() == whole


def test_the_final_order_is_that_of_the_samples_and_depends_on_nothing_else(tmp_path):
    order = [f"s{i}" for i in range(5)]
    contents = set()
    for name, written in (("one", order), ("two", order[::-1]), ("three", ["s3", *order])):
        path = tmp_path / name
        file = ResultFile(path)
        for id in written:
            file.append(record(id, 1.0))
        file.finish(order)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_results_beyond_the_run_stay_behind_its_own(tmp_path):
    file = ResultFile(tmp_path / "x")
    for id in ("c", "b", "a"):
        file.append(record(id, 1.0))
    file.finish(["b"])
    assert lines(tmp_path / "x") == ["b", "a", "c"]


def test_a_temporary_file_of_a_killed_run_is_removed(tmp_path):
    left = tmp_path / ".x.jsonl.tmp"
    left.write_text("half")
    ResultFile(tmp_path / "x.jsonl")
    assert not left.exists()


def test_a_lone_surrogate_of_the_data_is_kept(tmp_path):
    line = record("a", 1.0, answers=["\ud800"])
    assert json.loads(to_line(line)) == line


@pytest.mark.parametrize("wrong", ["no json", "[]", '{"id": 3, "scores": []}', '{"id": "a"}'])
def test_a_line_that_is_no_result_is_named(tmp_path, wrong):
    path = tmp_path / "x.jsonl"
    path.write_bytes(to_line(record("a", 1.0)) + wrong.encode() + b"\n")
    with pytest.raises(UsageError, match=r"x\.jsonl, line 2, is not a result"):
        ResultFile(path)
    assert wrong in path.read_text()


def test_one_run_at_a_time(tmp_path):
    with (
        ResultFolder(tmp_path / "r"),
        pytest.raises(UsageError, match="another run is writing"),
        ResultFolder(tmp_path / "r"),
    ):
        pass
    with ResultFolder(tmp_path / "r"):
        pass


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "one.tex").write_text("mine")
    with pytest.raises(UsageError, match="holds files and no results"), ResultFolder(thesis):
        pass
    assert [path.name for path in thesis.iterdir()] == ["one.tex"]
    with pytest.raises(UsageError), ResultFolder(thesis / "one.tex"):
        pass


def test_cut_timings_are_repaired(tmp_path):
    results(tmp_path, {"inf-llm/ruler.vt": []})
    (tmp_path / "timings.jsonl").write_bytes(b'{"id": "a"}\n{"id"')
    with ResultFolder(tmp_path):
        assert (tmp_path / "timings.jsonl").read_bytes() == b'{"id": "a"}\n'


def test_reading_results_touches_nothing(tmp_path):
    results(tmp_path, {"inf-llm/ruler.vt": [record("a", 1.0)]})
    path = tmp_path / "inf-llm" / "ruler.vt.jsonl"
    cut = path.read_bytes() + b'{"id": "b"'
    path.write_bytes(cut)
    assert [(p, t, len(r)) for p, t, r in read_results(tmp_path)] == [("inf-llm", "ruler:vt", 1)]
    assert path.read_bytes() == cut


ENGINE = {"versions": {"torch": "2.13.0"}, "model": "a" * 64, "settings": {"model.topk": 16}}


def manifest(**changes):
    fields = {"preset": "pocket", "engine": ENGINE, "seed": 0, "official": False}
    tasks = {"ruler:vt": {"version": 1, "definition": "1" * 64, "data": {"x.jsonl": "2" * 64}}}
    return make_manifest(**{**fields, "tasks": tasks, **changes})


def test_a_run_of_more_tasks_adds_them_to_the_manifest():
    more = {"ruler:cwe": {"version": 1, "definition": "3" * 64, "data": {}}}
    merged = merge_manifest(Path("r"), manifest(), manifest(tasks=more))
    assert list(merged["tasks"]) == ["ruler:cwe", "ruler:vt"]
    assert merge_manifest(Path("r"), manifest(), manifest(preset="./pocket.yaml")) == manifest()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seed": 1}, "seed 0 (now 1)"),
        ({"official": True}, "scoring corrected (now official)"),
        ({"engine": {**ENGINE, "model": "b" * 64}}, "model aaaaaaaaaaaa (now bbbbbbbbbbbb)"),
        ({"engine": {**ENGINE, "settings": {"model.topk": 8}}}, "settings/model.topk 16 (now 8)"),
        (
            {"tasks": {"ruler:vt": {"version": 2, "definition": "1" * 64, "data": {}}}},
            "tasks/ruler:vt/data/x.jsonl 222222222222 (now None), tasks/ruler:vt/version 1 (now 2)",
        ),
    ],
)
def test_results_of_another_making_are_not_mixed_in(changes, told):
    with pytest.raises(UsageError) as error:
        merge_manifest(Path("r"), manifest(), manifest(**changes))
    assert error.value.message == f"the results in r were made otherwise: {told}"


def test_a_policy_with_settings_has_a_folder_that_every_system_can_name(tmp_path):

    policy = "inf-llm:topk=8:unit_score=keys+read-back"
    path = result_path(tmp_path, policy, "ruler", "vt")
    path.parent.mkdir()
    path.write_text('{"id": "1", "scores": [1.0]}\n')
    assert not set(path.parent.name) & set('<>:"/\\|?*')
    assert [name for name, _, _ in read_results(tmp_path)] == [policy]
