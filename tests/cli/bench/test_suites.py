"""Suites as data: what a task may say, how it is found, what is read of data files."""

import json

import pytest
import yaml

from infllm.cli.bench import records
from infllm.cli.bench.metrics import METRICS
from infllm.cli.bench.readers import Data
from infllm.cli.bench.records import read_records
from infllm.cli.bench.sample import BadSample, Sample
from infllm.cli.bench.source import Source
from infllm.cli.bench.suites import Task, data_files, find_tasks, load_task, suite, suites
from infllm.cli.errors import ExitCode, InfllmError, MissingExtra, UsageError

TASK = {
    "title": "A task", "version": 1, "source": "here", "answer_tokens": 8, "metric": "qa_f1",
    "prompt": "Read.\n\n{context}\n\n{question}", "data": {"files": ["a.jsonl"],
    "fields": {"question": "input"}},
}  # fmt: skip


@pytest.fixture
def task(tmp_path):
    """`task(key=value)` is TASK with those keys changed, read from a file."""

    def make(**changes) -> Task:
        path = tmp_path / "mine" / "task.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump({**TASK, **changes}, allow_unicode=True))
        return load_task(path)

    return make


def samples(task, folder, *lines, name="a.jsonl"):
    data = "\n".join(each if isinstance(each, str) else json.dumps(each) for each in lines)
    (folder / name).write_text(data + "\n", encoding="utf-8")
    return list(task.samples(Source(data=folder)))


def test_all_suites_are_there():
    counts = {name: len(tasks) for name, tasks in suites().items()}
    assert counts == {
        "babilong": 5, "infinitebench": 12, "local": 3, "longbench": 21, "longbench-v2": 1,
        "ruler": 13, "scbench": 7,
    }  # fmt: skip


@pytest.mark.parametrize("name", suites())
def test_a_suite_names_source_and_licence(name):
    about = suite(name)
    assert about.title
    for task in suites()[name].values():
        assert task.source == about.source
        if not task.source.startswith("Passkey"):
            assert "MIT" in task.source or "Apache-2.0" in task.source
        assert set(task.metric_options) <= METRICS[task.metric].options
        if task.generator is None:
            assert METRICS[task.metric].extra <= set(task.data.extra)


def test_names_come_from_the_place_of_the_file(task):
    assert (task().suite, task().name, task().id) == ("mine", "task", "mine:task")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "No place for it"}, "holds {context} exactly once"),
        ({"prompt": "{context} {context}"}, "holds {context} exactly once"),
        ({"prompt": "{context} {answer}"}, "nothing fills {answer}"),
        ({"metric": "f2"}, "no metric 'f2'"),
        ({"metric_options": {"beta": 2}}, "qa_f1 takes no 'beta'"),
        ({"data": None}, "either data or generator"),
        ({"generator": {"name": "vt"}}, "no generator 'vt'"),
        ({"answer_tokens": 0}, "answer_tokens: Input should be greater"),
        ({"data": {"files": ["a"], "turn_fields": {"q": "q"}}}, "turn_fields without turns"),
    ],
)
def test_a_wrong_task_says_what_and_where(task, tmp_path, changes, message):
    with pytest.raises(UsageError) as raised:
        task(**changes)
    assert message in raised.value.message
    assert str(tmp_path / "mine" / "task.yaml") in raised.value.message


def test_an_unknown_key_suggests_the_right_one(task):
    with pytest.raises(UsageError) as raised:
        task(answer_token=9)
    assert "answer_token" in raised.value.message
    assert raised.value.hint == "did you mean 'answer_tokens'?"


def test_a_head_must_be_the_same_for_all_turns(task):
    turns = {"files": ["a.jsonl"], "turns": "turns", "turn_fields": {"question": "q"}}
    with pytest.raises(UsageError, match="same for all questions"):
        task(prompt="{question} {context}", data=turns)


def test_a_generator_is_checked_too(task):
    with pytest.raises(UsageError, match="haystack"):
        task(data=None, prompt="{context}{query}",
             generator={"name": "needles", "haystack": "hay"})  # fmt: skip


def test_a_file_may_include_another(task, tmp_path):
    task()
    base = tmp_path / "mine" / "_base.yaml"
    base.write_text(yaml.safe_dump(TASK))
    (tmp_path / "mine" / "other.yaml").write_text("include: _base.yaml\nanswer_tokens: 99\n")
    other = load_task(tmp_path / "mine" / "other.yaml")
    assert (other.answer_tokens, other.prompt) == (99, TASK["prompt"])


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "{"])
def test_a_file_that_is_no_task(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"a\.yaml"):
        load_task(path)


@pytest.mark.parametrize(
    ("specs", "ids"),
    [
        (["longbench-v2"], ["longbench-v2:questions"]),
        (["ruler:vt,cwe"], ["ruler:vt", "ruler:cwe"]),
        (["ruler:vt", "ruler:cwe,vt"], ["ruler:vt", "ruler:cwe"]),
        (["local"], ["local:kv", "local:number_string", "local:passkey"]),
    ],
)
def test_tasks_by_name(specs, ids):
    assert [task.id for task in find_tasks(*specs)] == ids


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("rulr", "did you mean 'ruler'?"),
        ("LongBench", "did you mean 'longbench'?"),
        ("ruler:niah_singl_1", "did you mean 'niah_single_1'?"),
        ("ruler:multiquery", "did you mean 'niah_multiquery'?"),
        ("longbench:repobench_p", "did you mean 'repobench-p'?"),
        ("longbench:zzz", "see: infllm bench list longbench"),
        ("ruler:", "see: infllm bench list ruler"),
    ],
)
def test_a_wrong_name_suggests_the_right_one(spec, hint):
    with pytest.raises(UsageError) as raised:
        find_tasks(spec)
    assert raised.value.hint == hint


def test_a_task_of_ones_own_by_its_file(task, tmp_path):
    task()
    (found,) = find_tasks(str(tmp_path / "mine" / "task.yaml"))
    assert found.id == "mine:task"


def test_missing_libraries_are_named_beforehand(monkeypatch):
    monkeypatch.setattr("infllm.cli.bench.extras.find_spec", lambda name: None)
    (task,) = find_tasks("longbench:dureader")
    with pytest.raises(MissingExtra) as raised:
        task.check_installed()
    assert "rouge-score, jieba" in raised.value.message
    assert raised.value.hint == "pip install 'infllm[eval]'"


def test_a_record_becomes_a_sample(task, tmp_path):
    record = {
        "_id": "x7",
        "context": "It rains {a lot}.",
        "input": "What {now}?",
        "answers": "rain",
    }
    (sample,) = samples(task(), tmp_path, record)
    assert (sample.id, sample.head, sample.context) == ("x7", "Read.\n\n", "It rains {a lot}.")
    (turn,) = sample.turns
    assert (turn.tail, turn.references) == ("\n\nWhat {now}?", ("rain",))


def test_damaged_records_stop_no_other(task, tmp_path):
    good = {"_id": 1, "context": "c", "input": "q", "answers": ["a", 2]}
    found = samples(
        task(), tmp_path, good, '{"context": "c"', "[1]", "", {**good, "input": None},
        {**good, "context": "  "}, {"_id": 2, "context": "c", "input": "q"},
        {**good, "context": 5}, {**good, "answers": []}, good,
    )  # fmt: skip
    assert [type(each) for each in found] == [Sample, *[BadSample] * 7, Sample]
    assert [f"{each.where}: {each.why}"[:44] for each in found[1:-1]] == [
        "a.jsonl:2: it is not JSON: Expecting ',' del",
        "a.jsonl:3: it is a list, not an object",
        "a.jsonl:5 field 'input': it is NoneType, not",
        "a.jsonl:6 field 'context': it is empty",
        "a.jsonl:7 field 'answers': it is missing",
        "a.jsonl:8 field 'context': it is int, not te",
        "a.jsonl:9 field 'answers': it holds no answe",
    ]
    assert [found[0].id, found[-1].id] == ["1", "1#2"]  # unique, though the file repeats one
    assert found[0].turns[0].references == ("a", "2")


def test_a_long_line_is_read_and_one_too_long_is_named(task, tmp_path, monkeypatch):
    good = {"context": "word " * 100_000, "input": "q", "answers": "a"}
    assert len(samples(task(), tmp_path, good)[0].context) == 500_000
    monkeypatch.setattr(records, "MAX_RECORD", 1000)
    found = samples(task(), tmp_path, good, {**good, "context": "short"})
    assert (found[0].where, found[1].context) == ("a.jsonl:1", "short")
    assert "longer than" in found[0].why


def test_the_limit_stops_reading(task, tmp_path):
    lines = [json.dumps({"context": "c", "input": "q", "answers": "a"}), "no JSON", "no JSON"]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    assert len(list(task().samples(Source(data=tmp_path), limit=2))) == 2


def test_missing_files_are_named(task, tmp_path):
    with pytest.raises(InfllmError) as raised:
        list(task().samples(Source(data=tmp_path)))
    assert raised.value.code == ExitCode.UNREADABLE
    assert f"{tmp_path} does not hold a.jsonl" in raised.value.message
    with pytest.raises(UsageError, match="no folder was given"):
        list(task().samples(Source()))


def test_files_are_found_where_suites_unpack_them(task, tmp_path):
    place = tmp_path / "mine" / "data"
    place.mkdir(parents=True)
    (place / "a.jsonl").write_text("{}\n")
    assert data_files(task(), Source(data=tmp_path)) == [place / "a.jsonl"]


def test_turns_choices_and_parts_of_fields(task, tmp_path):
    data = {
        "files": ["a.jsonl"], "turns": "turns", "answers": "answer", "options": "options",
        "fields": {"name": {"field": "title", "match": "of (.+)", "lower": True}},
        "turn_fields": {"question": "input", "B": "options.1"},
    }  # fmt: skip
    asking = task(data=data, metric="choice", prompt="{name}: {context} {question} {B}")
    turns = [
        {"input": "q1", "answer": ["green"], "options": ["red", "green"]},
        {"input": "q2", "answer": "A", "options": ["red", "green"]},
    ]
    record = {"context": "c", "title": "Book of Hours", "turns": turns}
    (sample,) = samples(asking, tmp_path, record)
    assert sample.head == "hours: "
    assert [turn.tail for turn in sample.turns] == [" q1 green", " q2 green"]
    assert [turn.references for turn in sample.turns] == [("green", "B"), ("red", "A")]
    turns[1]["answer"] = "blue"
    (bad,) = samples(asking, tmp_path, record)
    assert bad.where == "a.jsonl:1 field 'turns.1.answer'"
    (bad,) = samples(asking, tmp_path, {**record, "title": "none"})
    assert "nothing in it matches" in bad.why


def test_an_array_is_read_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "PIECE", 7)
    rows = [{"a": 'x"]}\\'}, {"b": [{"c": "\u00e9\\n"}]}, {"d": {}}]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8-sig")
    found = list(read_records(path))
    assert [each.fields for each in found] == rows
    assert found[2].where == "a.json record 3"


@pytest.mark.parametrize(
    ("text", "kinds", "why"),
    [
        ('{"data": []}', "b", "not an array"),
        ('[{"a": 1}, {"b": }, {"c": 3}]', "gbg", "not JSON"),
        ('[{"a": 1}, 5, {"c": 3}]', "gbg", "stands before it"),
        ('[{"a": 1}, {"b": "', "gb", "ends within it"),
        ("[]", "", ""),
    ],
)
def test_damage_in_an_array(tmp_path, text, kinds, why):
    path = tmp_path / "a.json"
    path.write_text(text)
    found = list(read_records(path))
    assert "".join("b" if isinstance(each, BadSample) else "g" for each in found) == kinds
    assert all(why in each.why for each in found if isinstance(each, BadSample))


def test_parquet(task, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"_id": str(i), "context": f"c{i}", "input": "q", "answers": ["a"]} for i in range(20)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    reading = task(data={"files": ["*.parquet"], "fields": {"question": "input"}})
    found = list(reading.samples(Source(data=tmp_path)))
    assert [each.context for each in found] == [row["context"] for row in rows]
    (tmp_path / "a.parquet").write_bytes(b"PAR1 this is none")
    (bad,) = reading.samples(Source(data=tmp_path))
    assert bad.where == "a.parquet row 1"


def test_fields_of_all_data_tasks_can_be_filled(tmp_path):
    """A record with every field that the suites publish becomes a sample of every task."""
    record = {
        "_id": "1", "id": 1, "context": "text", "input": "The largest of func_12(-3) numbers",
        "answers": ["a"], "answer": ["b"], "all_classes": ["a", "b"], "options": list("abcd"),
        "length": 1, "difficulty": "hard", "domain": "law", "question": "q",
        **{f"choice_{letter}": letter for letter in "ABCD"},
    }  # fmt: skip
    record["multi_turns"] = [{"input": "q", "answer": "b", "options": list("abcd")}] * 2
    data_tasks = [t for tasks in suites().values() for t in tasks.values() if t.data is not None]
    assert len(data_tasks) == 37
    for task in data_tasks:
        name = task.data.files[0]
        text = json.dumps(record)
        (tmp_path / name).write_text(f"[{text}]" if name.endswith(".json") else text)
        (sample,) = task.samples(Source(data=tmp_path))
        assert isinstance(sample, Sample), (task.id, sample)
        assert all(turn.references for turn in sample.turns)
    assert Data(files=["x"]).head_fields() == frozenset()
