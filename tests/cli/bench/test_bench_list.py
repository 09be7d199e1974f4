"""`infllm bench list` and `bench fetch`."""

import hashlib
import io
import json
import zipfile
from types import SimpleNamespace

import pytest

from infllm.cli.bench import fetch as fetching
from infllm.cli.bench.suites import Hub
from infllm.cli.errors import InfllmError


def test_list(infllm):
    result = infllm("bench", "list")
    lines = result.out.splitlines()
    assert lines[0].split() == ["task", "metric", "samples", "from", "answer"]
    assert len(lines) == 63
    assert max(map(len, lines)) <= 90
    assert "62 tasks" in result.err


def test_list_one_suite(infllm):
    result = infllm("bench", "list", "local")
    assert result.out == (
        "task                 metric        samples from  answer\n"
        "local:kv             word          generated         64\n"
        "local:number_string  first_number  generated         24\n"
        "local:passkey        first_number  generated         24\n"
    )
    assert result.err.startswith("local: Retrieval at any length")


def test_list_a_task_of_ones_own(infllm, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(
        "{title: t, version: 1, source: here, prompt: '{context} {q}', answer_tokens: 8,"
        " metric: qa_f1, data: {files: [own.jsonl], fields: {q: input}}}"
    )
    result = infllm("bench", "list", path)
    assert result.code == 0
    assert result.out.splitlines()[1].split()[1:] == ["qa_f1", "own.jsonl", "8"]


def test_list_as_json(infllm):
    fields = json.loads(infllm("bench", "list", "infinitebench", "--json").out)
    assert (fields["schema"], fields["command"]) == (1, "bench list")
    tasks = {task["name"]: task for task in fields["tasks"]}
    assert len(tasks) == 12
    assert tasks["kv_retrieval"]["published"][3] == {
        "method": "inf-llm", "model": "Mistral-7B-Instruct-v0.2", "score": 96.8,
        "source": "arXiv 2402.04617",
    }  # fmt: skip
    assert fields["suites"]["infinitebench"]["hub"]["revision"].startswith("90f0394")


@pytest.mark.parametrize("command", ["list", "fetch"])
def test_a_wrong_suite(infllm, command):
    more = ["--data", "d"] if command == "fetch" else []
    result = infllm("bench", command, "longbenhc", *more)
    assert (result.code, result.out) == (2, "")
    assert "did you mean 'longbench'?" in result.err


def test_generated_suites_have_nothing_to_fetch(infllm):
    result = infllm("bench", "fetch", "ruler", "--data", "d")
    assert result.code == 2
    assert "its samples are generated" in result.err


def test_offline_says_which_files_to_put_where(infllm, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    result = infllm("bench", "fetch", "longbench-v2", "--data", "d", "--offline")
    assert result.code == 5
    assert "put these into d/longbench-v2: data.json" in result.err
    assert "at revision 2b48e494" in result.err


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that gives `files`, and what was asked of it."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("data/trec.jsonl", "{}\n")
        written.writestr("../../lcc.jsonl", "{}\n")
        written.writestr("data/readme.md", "no data")
    hub = SimpleNamespace(files={"data.zip": archive.getvalue(), "note.txt": b"n"}, given=[])
    hub.sums = {"data.zip": hashlib.sha256(archive.getvalue()).hexdigest()}

    def look_up(wanted):
        names = [name for name in hub.files if name in wanted.files]
        return "c0ffee", [
            fetching.Remote(name, len(hub.files[name]), hub.sums[name], "sha256") for name in names
        ]

    def download(repository, revision, name, folder):
        hub.given.append((repository, revision, name))
        (folder / name).write_bytes(hub.files[name])

    monkeypatch.setattr(fetching, "_look_up", look_up)
    monkeypatch.setattr(fetching, "_download", download)
    return hub


def test_fetch_checks_unpacks_and_records(infllm, hub, tmp_path):
    result = infllm("bench", "fetch", "longbench", "--data", tmp_path / "d", "--json")
    assert result.code == 0, result.err
    folder = tmp_path / "d" / "longbench"
    assert sorted(path.name for path in folder.iterdir()) == [
        "data.zip", "fetched.json", "lcc.jsonl", "trec.jsonl",
    ]  # fmt: skip
    assert not (tmp_path / "lcc.jsonl").exists()
    record = json.loads((folder / "fetched.json").read_text())
    assert record["revision"] == "c0ffee"
    assert record["files"]["data.zip"]["sha256"] == hub.sums["data.zip"]
    assert json.loads(result.out)["files"] == record["files"]
    assert infllm("bench", "fetch", "longbench", "--data", tmp_path / "d").code == 0
    assert len(hub.given) == 1  # what is there and right is not fetched again


def test_a_wrong_sum_is_an_error_and_leaves_no_file(infllm, hub, tmp_path):
    hub.sums["data.zip"] = "0" * 64
    result = infllm("bench", "fetch", "longbench", "--data", tmp_path / "d")
    assert result.code == 1
    assert "came with a wrong checksum" in result.err
    assert not (tmp_path / "d" / "longbench" / "data.zip").exists()


def test_a_broken_archive(infllm, hub, tmp_path):
    hub.files["data.zip"] = b"no archive"
    hub.sums["data.zip"] = hashlib.sha256(b"no archive").hexdigest()
    result = infllm("bench", "fetch", "longbench", "--data", tmp_path / "d")
    assert result.code == 1
    assert "remove it and fetch again" in result.err


def test_small_files_are_checked_by_the_sum_of_git(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"hello\n")
    file = fetching.Remote("a", 6, "ce013625030ba8dba906f756967f9e9ca394464a", "git")
    assert fetching._right(path, file)
    path.write_bytes(b"hallo\n")
    assert not fetching._right(path, file)


def test_what_the_hub_says_of_its_files(monkeypatch):
    """Large files have a SHA-256 there, small ones git's sum; a sum known here must be the same."""
    import huggingface_hub

    siblings = [
        SimpleNamespace(rfilename="data.json", lfs=SimpleNamespace(size=9, sha256="aa"), size=9),
        SimpleNamespace(rfilename="more.json", lfs=None, size=3, blob_id="bb"),
        SimpleNamespace(rfilename="README.md", lfs=None, size=3, blob_id="cc"),
    ]
    info = SimpleNamespace(sha="c0ffee", siblings=siblings)
    api = SimpleNamespace(dataset_info=lambda name, revision, files_metadata: info)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    hub = Hub(repository="a/b", files=["*.json"])
    assert fetching._look_up(hub) == (
        "c0ffee",
        [fetching.Remote("data.json", 9, "aa", "sha256"),
         fetching.Remote("more.json", 3, "bb", "git")],
    )  # fmt: skip
    with pytest.raises(InfllmError, match="not the file known here"):
        fetching._look_up(hub.model_copy(update={"sha256": {"data.json": "dd"}}))
    with pytest.raises(InfllmError, match="no file like"):
        fetching._look_up(hub.model_copy(update={"files": ["*.zip"]}))


def test_a_hub_that_cannot_be_reached(infllm, monkeypatch, tmp_path):
    def fail(hub):
        raise ConnectionError("no route")

    monkeypatch.setattr(fetching, "_look_up", fail)
    result = infllm("bench", "fetch", "infinitebench", "--data", tmp_path)
    assert result.code == 5
    assert "the Hugging Face hub cannot be reached: no route" in result.err
    assert "kv_retrieval.jsonl" in result.err
