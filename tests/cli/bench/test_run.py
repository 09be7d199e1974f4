"""Runs: every sample once under every policy, gone on with after any end, and told exactly."""

import json
from pathlib import Path

import pytest

from infllm.cli.bench import examine
from infllm.cli.bench.suites import Task
from infllm.engine.errors import OutOfMemory
from tests.cli.stories import fact, story

READ_BACK = "inf-llm+read-back"
NUMBERS = ["4187693", "9024415", "5530127"]
PROMPT = (
    "{context}\n\nQuestion: What is the special magic number for vague-harbor mentioned in the "
    "provided text?\nAnswer:"
)


@pytest.fixture
def task():
    return Task.model_validate(
        {
            "suite": "mine", "name": "numbers", "title": "A number in a story", "version": 1,
            "source": "ours", "prompt": PROMPT, "answer_tokens": 12, "metric": "string_match_all",
            "chat": False, "data": {"files": ["numbers.jsonl"], "answers": "answer", "id": "id"},
        }
    )  # fmt: skip


@pytest.fixture
def data(tmp_path, task, monkeypatch):
    """A folder of data for `mine:numbers`, which is the only task there is."""
    monkeypatch.setattr("infllm.cli.bench.suites.find_tasks", lambda *specs: [task])
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder, NUMBERS)
    return folder


def write(folder: Path, numbers: list[str], *more: str) -> None:
    lines = [
        json.dumps({"id": f"s{i}", "context": story(4, fact("vague-harbor", n)), "answer": n})
        for i, n in enumerate(numbers)
    ]
    (folder / "numbers.jsonl").write_text("\n".join([*lines, *more]) + "\n")


@pytest.fixture
def bench(infllm, pocket, data, tmp_path):
    """`bench run` on that task, with its results in `tmp_path / "r"`."""

    def run(*flags, output="r"):
        place = ("--output", tmp_path / output) if output else ()
        return infllm("bench", "run", "mine", "--data", data, *place, *flags)

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("lock", "timings.jsonl")
    }


def read(folder: Path, policy: str = "inf-llm") -> list[dict]:
    lines = (folder / policy / "mine.numbers.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_every_sample_under_every_policy(bench, tmp_path):
    result = bench("--policy", "inf-llm,stream-lm")
    assert result.code == 0, result.raw_err
    assert result.out.startswith("task ")
    assert result.err.startswith("6 results made; read ")
    for policy in ("inf-llm", "stream-lm"):
        records = read(tmp_path / "r", policy)
        assert [record["id"] for record in records] == ["s0", "s1", "s2"]
        for record in records:
            assert record["tokens_given"] == record["tokens_read"] > 100
            assert (record["tokens_truncated"], record["finish"]) == (0, ["stop"])
    assert [r["answers"] for r in read(tmp_path / "r")] == [[n] for n in NUMBERS]
    assert [r["scores"] for r in read(tmp_path / "r")] == [[1.0]] * 3


def test_passages_are_read_back_where_the_policy_says_so(bench, data, tmp_path):
    contexts = [story(150, fact("vague-harbor", number), seed=7) for number in NUMBERS]
    lines = [{"id": n, "context": c, "answer": n} for n, c in zip(NUMBERS, contexts, strict=True)]
    (data / "numbers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = bench("--policy", "inf-llm,inf-llm+read-back")
    assert result.code == 0, result.raw_err
    plain, back = read(tmp_path / "r"), read(tmp_path / "r", READ_BACK)
    for one, other, number in zip(plain, back, NUMBERS, strict=True):
        (again,) = other.pop("tokens_read_back")
        assert len(number) < again < 0.75 * 512
        assert other["answers"] == [number]
        assert one["tokens_read"] == other["tokens_read"]
        assert one.keys() == other.keys()
    assert bench("--policy", READ_BACK).err.startswith("0 results made, 3 were there before")


def test_passages_are_read_back_from_what_truncation_left(bench, data, tmp_path):
    context = story(150, fact("vague-harbor", NUMBERS[0])) + story(450, seed=3)
    line = {"id": "a", "context": context, "answer": NUMBERS[0]}
    (data / "numbers.jsonl").write_text(json.dumps(line) + "\n")
    cut = ("--set", "max_len=2400", "--policy", READ_BACK)
    bench(*cut, "--set", "truncation=prefix", output="start")
    bench(*cut, "--set", "truncation=suffix", output="end")
    (kept,), (lost,) = (read(tmp_path / name, READ_BACK) for name in ("start", "end"))
    assert kept["answers"] == [NUMBERS[0]]
    assert kept["tokens_read"] == lost["tokens_read"] == 2400
    assert lost["scores"] == [0.0]


def test_two_runs_give_the_same_bytes(bench, tmp_path):
    bench(output="one")
    bench(output="two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    for line in contents(tmp_path / "one")["inf-llm/mine.numbers.jsonl"].splitlines():
        assert not [key for key in json.loads(line) if "seconds" in key]


def test_a_rerun_makes_nothing_twice(bench, tmp_path):
    bench("--limit", 1)
    first = (tmp_path / "r" / "timings.jsonl").read_text()
    result = bench()
    assert result.err.startswith("2 results made, 1 were there before")
    assert (tmp_path / "r" / "timings.jsonl").read_text().startswith(first)
    bench(output="whole")
    assert contents(tmp_path / "r") == contents(tmp_path / "whole")
    assert bench().err.startswith("0 results made, 3 were there before; read 0 tokens")


def test_further_policies_go_into_the_same_folder(bench, tmp_path):
    bench()
    result = bench("--policy", "inf-llm,stream-lm")
    assert result.err.startswith("3 results made, 3 were there before")


def test_ctrl_c_keeps_what_was_made(bench, tmp_path, monkeypatch):
    real, calls = examine.generate_answer, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(examine, "generate_answer", interrupted)
    result = bench()
    assert result.code == 130
    assert result.raw_err == (
        f"error: interrupted with 1 result in {tmp_path / 'r'}\n"
        "hint: the same command goes on with the rest\n"
    )
    assert bench().err.startswith("2 results made, 1 were there before")


def test_a_failed_sample_is_told_and_tried_again(bench, tmp_path, monkeypatch):
    real, calls = examine.generate_answer, []

    def failing(*args):
        calls.append(1)
        if len(calls) == 2:
            raise OutOfMemory("out of memory on cpu at token 9")
        return real(*args)

    monkeypatch.setattr(examine, "generate_answer", failing)
    result = bench()
    assert result.code == 1
    assert (
        "warning: failed: mine:numbers, inf-llm, sample s1: out of memory on cpu" in result.raw_err
    )
    assert read(tmp_path / "r")[1]["failed"] == "out of memory on cpu at token 9"
    result = bench()
    assert (result.code, [r["scores"] for r in read(tmp_path / "r")]) == (0, [[1.0]] * 3)


def test_a_defect_costs_its_sample_alone(bench, monkeypatch):
    def broken(task, turn, answer, official):
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(examine, "score", broken)
    result = bench("--json")
    assert result.code == 1
    failures = json.loads(result.out)["failures"]
    assert [f["why"] for f in failures] == ["ZeroDivisionError: by nothing"] * 3


def test_bad_data_is_named_and_the_rest_goes_on(bench, data):
    write(
        data, NUMBERS[:2], "{broken", '{"id": "s9", "answer": "1"}', '{"id": "s10", "context": ""}'
    )
    result = bench()
    assert result.code == 3
    assert result.err.startswith("warning: failed: mine:numbers, inf-llm, numbers.jsonl:")
    assert "numbers.jsonl:3: it is not JSON" in result.err
    assert "numbers.jsonl:4 field 'context': it is missing" in result.err
    assert "numbers.jsonl:5 field 'context': it is empty" in result.err
    assert "\n2 results made;" in result.err


def test_another_making_is_refused(bench, data, tmp_path):
    bench()
    before = contents(tmp_path / "r")
    for flags, told in (
        (["--seed", 1], "seed 0 (now 1)"),
        (["--set", "topk=8"], "settings/model.topk 16 (now 8)"),
        (["--official-scoring"], "scoring corrected (now official)"),
    ):
        result = bench(*flags)
        assert (result.code, result.out) == (2, "")
        assert f"were made otherwise: {told}" in result.raw_err
    write(data, NUMBERS[::-1])
    assert "tasks/mine:numbers/data/numbers.jsonl" in bench().raw_err
    assert contents(tmp_path / "r") == before


def test_restart_begins_anew_and_touches_nothing_else(bench, data, tmp_path):
    assert bench().code == 0
    mine = tmp_path / "r" / "notes.md"
    mine.write_text("mine")
    write(data, ["1111111", "2222222"])
    refused = bench()
    assert refused.code == 2
    assert "or begin anew with --restart" in refused.err
    assert bench("--restart").code == 0
    (results,) = (tmp_path / "r").glob("*/*.jsonl")
    references = [json.loads(line)["references"] for line in results.read_text().splitlines()]
    assert references == [[["1111111"]], [["2222222"]]]
    assert mine.read_text() == "mine"
    assert bench().code == 0


def test_truncation_is_the_configurations_and_counted(bench, tmp_path):
    result = bench("--set", "max_len=80")
    assert result.code == 1
    assert "more than max_len 80" in result.raw_err
    result = bench("--set", "max_len=80", "--set", "truncation=middle", output="cut")
    assert result.code == 0
    for record in read(tmp_path / "cut"):
        assert record["tokens_read"] == 80
        assert record["tokens_given"] == 80 + record["tokens_truncated"]


def test_the_exact_prompt(bench, pocket_parts, data):
    result = bench("--show-prompt", 2, output=None)
    context = json.loads((data / "numbers.jsonl").read_text().splitlines()[1])["context"]
    _, tokenizer = pocket_parts
    bos = tokenizer.hf.convert_ids_to_tokens(tokenizer.bos_id)
    assert result.out == bos + PROMPT.format(context=context) + "\n"
    result = bench("--show-prompt", 9, output=None)
    assert (result.code, result.out) == (2, "")
    assert "has no sample 9 here, it has 3" in result.err


def test_dry_run_reads_nothing(bench, data, pocket, tmp_path):
    result = bench("--dry-run", "--policy", "inf-llm,origin", "--json", output=None)
    assert (result.code, pocket) == (0, [])
    (plan,) = json.loads(result.out)["plans"]
    assert (plan["task"], plan["samples"], plan["bad"]) == ("mine:numbers", 3, 0)
    assert list(plan["seconds"]) == ["inf-llm", "origin"]
    bench()
    assert plan["tokens"] == sum(record["tokens_read"] for record in read(tmp_path / "r"))


def test_many_questions_share_one_reading(infllm, pocket, data, task, monkeypatch, tmp_path):
    many = Task.model_validate(
        {
            **task.model_dump(exclude={"data", "prompt", "generator"}),
            "prompt": "{context}\n\nQuestion: What is the special magic number for {key} mentioned"
            " in the provided text?\nAnswer:",
            "data": {
                "files": ["numbers.jsonl"], "id": "id", "answers": "answer", "turns": "turns",
                "turn_fields": {"key": "key"},
            },
        }
    )  # fmt: skip
    monkeypatch.setattr("infllm.cli.bench.suites.find_tasks", lambda *specs: [many])
    keys = dict(zip(("vague-harbor", "quiet-lantern"), NUMBERS, strict=False))
    record = {
        "id": "s0",
        "context": story(4, *(fact(key, number) for key, number in keys.items())),
        "turns": [{"key": key, "answer": number} for key, number in keys.items()],
    }
    (data / "numbers.jsonl").write_text(json.dumps(record) + "\n")
    result = infllm("bench", "run", "mine", "--data", data, "-o", tmp_path / "r")
    assert result.code == 0, result.raw_err
    (line,) = read(tmp_path / "r")
    assert len(line["answers"]) == len(line["scores"]) == len(line["finish"]) == 2
    assert line["tokens_read"] == line["tokens_given"]
    assert line["references"] == [[number] for number in keys.values()]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ([], "error: no suite was named\nhint: see: infllm bench list\n"),
        (["ruler:nia"], "error: no task of ruler 'nia'\n"),
        (["local:passkey"], "error: no folder for the results was named\n"),
        (["local:passkey", "--len", ",", "-o", "r"], "error: --len names no length\n"),
        (["local:passkey", "--policy", "inf-lm", "-o", "r"], "error: unknown policy 'inf-lm'\n"),
    ],
)
def test_slips_are_told_before_anything_is_loaded(infllm, fakes, flags, told):
    result = infllm("bench", "run", *flags)
    assert result.code == 2
    assert result.err.startswith(told)
    assert not fakes.engines


def test_workers_without_ray(bench, monkeypatch, pocket):
    monkeypatch.setattr("infllm.cli.bench.workers.find_spec", lambda name: None)
    result = bench("--workers", 2)
    assert (result.code, pocket) == (1, [])
    assert result.err == "error: --workers needs Ray\nhint: pip install 'infllm[ray]'\n"


def test_readers_are_columns_beside_policies(bench, infllm, tmp_path):
    ways = f"inf-llm,{READ_BACK},infiniretri,homer,homer:target=60"
    result = bench("--policy", ways)
    assert result.code == 0
    assert "homer is not calibrated" in result.err
    assert result.out.split("\n")[0].split() == [
        "task", "inf-llm", READ_BACK, "homer", "homer:target=60", "infiniretri",
    ]  # fmt: skip
    [row] = (line.split() for line in result.out.split("\n") if line.startswith("mine:numbers"))
    scores = [cell for cell in row if "(" not in cell]
    assert scores[1:4] + scores[5:] == ["100.0"] * 4  # with 60 tokens left, homer knows no number
    [record] = read(tmp_path / "r", "homer,target=60")[:1]
    assert record["tokens_read"] == record["tokens_given"] > 60
    readers = json.loads((tmp_path / "r" / "manifest.json").read_text())["readers"]
    assert readers["homer"]["calibration"] is None
    assert readers["infiniretri"]["topk"] == 300
    told = infllm("bench", "report", tmp_path / "r", "--json")
    found = {cell["method"]: cell for cell in json.loads(told.out)["results"]}
    assert all(cell["seconds_a_question"] > 0 for cell in found.values())
    # Of other settings, another folder; of another policy, the same one.
    other = bench("--policy", "infiniretri", "--set", "infiniretri.topk=20")
    assert other.code == 2
    assert "readers/infiniretri/topk" in other.err
    assert bench("--policy", "origin", "--set", "infiniretri.topk=20").code == 0
