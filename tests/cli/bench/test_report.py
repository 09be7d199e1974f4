"""Reports: means and their intervals, fair comparisons, and four forms of the same figures."""

import csv
import io
import json
import random

import pytest

from infllm.cli.bench.report import load_report
from infllm.cli.bench.statistics import mean_difference, mean_of_means, mean_score
from infllm.cli.errors import UsageError
from tests.cli.bench.make import failed, record, results

RIGHT = [record(f"s{i}", 1.0) for i in range(4)]
HALF = [record(f"s{i}", float(i % 2)) for i in range(4)]


@pytest.fixture
def two_policies(tmp_path):
    return results(
        tmp_path / "run",
        {
            "inf-llm/ruler.niah": RIGHT,
            "stream-lm/ruler.niah": HALF,
            "inf-llm/ruler.vt": HALF,
            "stream-lm/ruler.vt": [*HALF[:3], failed("s3", "out of memory at token 900")],
        },
    )


def test_an_interval_is_the_same_each_time_and_holds_the_mean():
    rng = random.Random(0)
    scores = [rng.random() for _ in range(50)]
    first = mean_score(scores)
    assert first == mean_score(scores)
    assert first.low < first.mean < first.high
    assert first.n == 50


def test_an_interval_covers_the_true_share_about_as_often_as_it_says():
    rng = random.Random(1)
    hits = 0
    for _ in range(200):
        mean = mean_score([float(rng.random() < 0.7) for _ in range(40)])
        hits += mean.low <= 0.7 <= mean.high
    assert 0.88 <= hits / 200 <= 0.99


def test_an_interval_narrows_with_more_samples():
    few, many = mean_score([0.0, 1.0] * 5), mean_score([0.0, 1.0] * 500)
    assert many.high - many.low < (few.high - few.low) / 5


@pytest.mark.parametrize(("n", "bound"), [(1, 0.025), (5, 0.478), (20, 0.832)])
def test_a_few_right_answers_alone_are_not_certainty(n, bound):
    assert mean_score([1.0] * n).low == pytest.approx(bound, abs=1e-3)
    assert mean_score([0.0] * n).high == pytest.approx(1 - bound, abs=1e-3)


def test_a_paired_difference_is_surer_than_its_parts():
    rng = random.Random(2)
    ours = [rng.random() for _ in range(60)]
    theirs = [score - 0.05 for score in ours]
    difference = mean_difference(ours, theirs)
    assert difference.mean == pytest.approx(0.05)
    assert difference.high - difference.low < 1e-9


def test_equal_differences_alone_are_not_certainty():
    better = mean_difference([1.0] * 5, [0.0] * 5)
    assert (better.mean, better.low, better.high) == (1.0, pytest.approx(0.478, abs=1e-3), 1.0)
    alike = mean_difference([1.0] * 5, [1.0] * 5)
    assert (alike.mean, alike.low) == (0.0, -alike.high) != (0.0, 0.0)


def test_each_task_of_a_suite_counts_alike():
    assert mean_of_means([[1.0] * 90, [0.0] * 10]).mean == 0.5
    assert mean_of_means([[1.0] * 5, [1.0] * 5]) == mean_score([1.0] * 10)


def test_failures_are_counted_and_never_averaged(two_policies):
    report = load_report([two_policies])
    cell = report.cells["ruler:vt", "stream-lm"]
    assert (cell.failed, cell.mean.n, cell.mean.mean) == (1, 3, pytest.approx(1 / 3))
    assert [failure["id"] for failure in report.failures] == ["s3"]


def test_a_difference_is_taken_over_samples_that_both_have(two_policies):
    differences = {d.task: d.mean for d in load_report([two_policies]).differences()}
    assert differences["ruler:niah"].mean == -0.5
    assert (differences["ruler:vt"].mean, differences["ruler:vt"].n) == (0.0, 3)


def test_the_score_of_several_turns_is_their_mean(tmp_path):
    folder = results(tmp_path / "r", {"inf-llm/scbench.kv": [record("a", 1.0, 0.0, 0.5)]})
    assert load_report([folder]).cells["scbench:kv", "inf-llm"].mean.mean == 0.5


def test_table(infllm, two_policies):
    result = infllm("bench", "report", two_policies)
    assert result.code == 0
    assert result.out == (
        "Score in %, with its 95% interval\n"
        "task                         inf-llm         stream-lm\n"
        "ruler:niah        100.0 (39.8-100.0)  50.0 (0.0-100.0)\n"
        "ruler:vt            50.0 (0.0-100.0)  33.3 (0.0-100.0)\n"
        "ruler, mean of 2   75.0 (50.0-100.0)  41.7 (12.5-75.0)\n"
        "\n"
        "Difference to inf-llm in points, sample by sample, with its 95% interval\n"
        "task        method     difference        interval  samples\n"
        "ruler:niah  stream-lm       -50.0  -100.0 to +0.0        4\n"
        "ruler:vt    stream-lm        +0.0  -70.8 to +70.8        3\n"
        "\n"
        "Samples\n"
        "task        method     scored  failed  truncated  given  read\n"
        "ruler:niah  inf-llm         4       0          0    400   400\n"
        "ruler:niah  stream-lm       4       0          0    400   400\n"
        "ruler:vt    inf-llm         4       0          0    400   400\n"
        "ruler:vt    stream-lm       3       1          0    300   300\n"
    )
    assert result.err == (
        "warning: failed: ruler:vt, stream-lm, sample s3: out of memory at token 900\n"
    )


def test_markdown(infllm, two_policies):
    out = infllm("bench", "report", two_policies, "--format", "markdown").out
    assert "**Score in %, with its 95% interval**\n\n| task | inf-llm | stream-lm |\n" in out
    assert "| :-- | --: | --: |\n" in out


def test_csv(infllm, tmp_path):
    rows = [record(f"s{i}", i % 2, meta={"length": 4096 << i % 2}) for i in range(4)]
    folder = results(tmp_path / "r", {"inf-llm/ruler.vt": rows})
    out = infllm("bench", "report", folder, "--format", "csv").out
    found = list(csv.DictReader(io.StringIO(out)))
    assert [(row["length"], float(row["score"]), row["scored"]) for row in found] == [
        ("all", 0.5, "4"),
        ("4096", 0.0, "2"),
        ("8192", 1.0, "2"),
    ]


def test_json(infllm, two_policies):
    for flags in (["--json"], ["--format", "json"]):
        fields = json.loads(infllm("bench", "report", two_policies, *flags).out)
        assert (fields["schema"], fields["command"]) == (1, "bench report")
        assert [row["score"]["mean"] for row in fields["results"]][:2] == [1.0, 0.5]
        assert fields["failures"][0]["id"] == "s3"


def test_scores_by_length(infllm, tmp_path):
    rows = [record(f"s{i}", float(i < 2), meta={"length": 4096 * (1 + i // 2)}) for i in range(4)]
    out = infllm("bench", "report", results(tmp_path / "r", {"origin/ruler.vt": rows})).out
    assert "task      method     4K   8K\nruler:vt  origin  100.0  0.0\n" in out


def test_truncated_samples_are_counted(infllm, tmp_path):
    rows = [record("a", 1.0, tokens_truncated=7), record("b", 1.0)]
    out = infllm("bench", "report", results(tmp_path / "r", {"origin/ruler.vt": rows})).out
    assert "ruler:vt  origin       2       0          1    200   200\n" in out


def test_baseline(infllm, two_policies):
    out = infllm("bench", "report", two_policies, "--baseline", "stream-lm").out
    assert "Difference to stream-lm in points" in out
    assert "ruler:niah  inf-llm       +50.0" in out
    result = infllm("bench", "report", two_policies, "--baseline", "origin")
    assert result.code == 2
    assert result.err.endswith("hint: they have: inf-llm, stream-lm\n")


def test_ways_to_answer_stand_behind_their_policy(tmp_path):
    policies = ("stream-lm", "origin", "inf-llm+read-back", "inf-llm")
    folder = results(tmp_path / "r", {f"{policy}/ruler.vt": RIGHT for policy in policies})
    methods = load_report([folder]).methods
    assert methods.index("inf-llm+read-back") == methods.index("inf-llm") + 1


def test_several_folders_stand_side_by_side(tmp_path):
    one = results(tmp_path / "llama", {"inf-llm/ruler.vt": RIGHT})
    two = results(tmp_path / "qwen", {"inf-llm/ruler.vt": HALF})
    report = load_report([one, two])
    assert report.methods == ["llama:inf-llm", "qwen:inf-llm"]
    assert [d.mean.mean for d in report.differences()] == [-0.5]
    assert not report.unlike


def test_published_figures_stand_beside_ours_where_task_and_model_match(infllm, tmp_path):
    for preset, told in (("mistral-7b-instruct-v0.2", True), ("pocket", False)):
        files = {"inf-llm/infinitebench.kv_retrieval": RIGHT}
        folder = results(tmp_path / preset, files, preset=preset)
        out = infllm("bench", "report", folder).out
        assert ("Published by others, theirs and not measured here" in out) == told
        assert ("arXiv 2402.04617   96.8\n" in out) == told
        fields = json.loads(infllm("bench", "report", folder, "--json").out)
        assert {f["model"] for f in fields["published"]} == (
            {"Mistral-7B-Instruct-v0.2"} if told else set()
        )


def test_other_samples_are_not_compared(infllm, tmp_path):
    one = results(tmp_path / "one", {"inf-llm/ruler.vt": RIGHT})
    two = results(tmp_path / "two", {"inf-llm/ruler.vt": HALF}, seed=1)
    result = infllm("bench", "report", one, two)
    assert "Difference" not in result.out
    assert result.raw_err == f"warning: not compared: ruler:vt: {one} and {two} differ in seed\n"


def test_folders_without_results(infllm, tmp_path):
    result = infllm("bench", "report", tmp_path)
    assert result.code == 2
    assert "holds no results of a benchmark" in result.err
    assert infllm("bench", "report").code == 2
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(UsageError, match="is not the manifest"):
        load_report([tmp_path])


def test_pictures(infllm, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    rows = [
        record(f"s{i}", float(i % 3 > 0), meta={"length": 4096 << i % 2, "depth": 2.5 * i})
        for i in range(40)
    ]
    folder = results(tmp_path / "r", {"inf-llm/ruler.vt": rows, "origin/ruler.vt": rows[:20]})
    result = infllm("bench", "report", folder, "--plot", tmp_path / "pictures")
    assert result.code == 0
    drawn = sorted((tmp_path / "pictures").iterdir())
    assert [path.name for path in drawn] == ["ruler.lengths.png", "ruler.vt.heatmap.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_pictures_without_matplotlib(infllm, two_policies, monkeypatch, tmp_path):
    monkeypatch.setattr("infllm.cli.plots.find_spec", lambda name: None)
    result = infllm("bench", "report", two_policies, "--plot", tmp_path / "p")
    assert (result.code, result.out) == (1, "")
    assert "pip install 'infllm[plot]'" in result.err


def test_seconds_a_question_stand_beside_the_score(infllm, tmp_path):
    """Of what two questions over one memory took, half each; of a later run, the later one's."""
    rows = [
        record("a", 1.0, 0.0, meta={"length": 4096}),
        record("b", 1.0, meta={"length": 16384}),
    ]
    folder = results(tmp_path / "r", {"homer/ruler.vt": rows, "origin/ruler.vt": rows})
    took = [("a", 9.0, 9.0), ("b", 30.0, 2.0), ("a", 3.0, 1.0)]
    lines = [
        {"task": "ruler:vt", "policy": "homer", "id": id, "seconds_reading": reading,
         "seconds_answering": answering}
        for id, reading, answering in took
    ]  # fmt: skip
    (folder / "timings.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines) + '{"cut')
    out = infllm("bench", "report", folder).out
    assert "task      method    4K    16K  4K, s  16K, s" in out
    assert "ruler:vt  homer   50.0  100.0   2.00      32" in out
    assert "ruler:vt  origin  50.0  100.0      -       -" in out
    assert "read  s a question" in out
    found = {
        c["method"]: c
        for c in json.loads(infllm("bench", "report", folder, "--json").out)["results"]
    }
    assert found["homer"]["seconds_a_question"] == 17.0
    assert found["homer"]["seconds_by_length"] == {"4096": 2.0, "16384": 32.0}
    assert found["origin"]["seconds_a_question"] is None
