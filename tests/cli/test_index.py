"""Memories of documents: made, asked in place of the documents, added to, refused."""

import io
import json
import re
import sys

import pytest

from infllm.cli.documents import is_memory, read_sources
from infllm.cli.errors import ExitCode
from infllm.cli.memory import about_memory
from tests.cli.memories import ANSWER, HARBOUR, MEADOW, files, largest
from tests.cli.stories import fact, story

# ---- index and ask ------------------------------------------------------------------------------


def test_a_memory_is_asked_without_its_document(infllm, harbour, shelf):
    result = infllm("ask", harbour, HARBOUR)
    assert (result.code, result.out) == (0, f"{ANSWER}\n")
    assert re.fullmatch(
        r"reused the memory of [\d,]+ tokens: saved T of reading\n"
        + re.escape(f'[1] {shelf}/harbour.txt, line 1: "{fact("vague-harbor", ANSWER)}"\n')
        + r"read the question's \d+ tokens in T, \d+ read back, answered in T; "
        + "pocket, inf-llm, peak memory M\n",
        result.err,
    )
    fields = json.loads(infllm("ask", harbour, HARBOUR, "--json").out)
    assert (fields["answer"], fields["reused"], fields["memory"]) == (ANSWER, True, str(harbour))
    assert fields["sources"] == [f"{shelf}/harbour.txt"]


def test_asking_changes_no_file_of_a_memory(infllm, harbour):
    before = {path.name: path.read_bytes() for path in harbour.iterdir()}
    infllm("ask", harbour, HARBOUR)
    assert {path.name: path.read_bytes() for path in harbour.iterdir()} == before


def test_index_says_what_it_made(infllm, pocket, text, tmp_path):
    folder = tmp_path / "a.mem"
    fields = json.loads(infllm("index", text, "-o", folder, "--json").out)
    assert fields["memory"] == str(folder)
    assert fields["sources"] == [str(text)]
    assert fields["bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    assert fields["tokens_read"] == fields["tokens_given"] > 500
    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())


def test_a_whole_memory_is_not_read_again(infllm, pocket, text, tmp_path):
    first = infllm("index", text, "-o", tmp_path / "a.mem")
    assert first.err.startswith("read ")
    before = files(tmp_path / "a.mem")
    again = infllm("index", text, "-o", tmp_path / "a.mem")
    assert again.code == 0
    assert again.err.startswith("reused the memory of ")
    assert "tok/s" not in again.err
    damaged = largest(tmp_path / "a.mem", "units")
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\0\0")
    assert infllm("index", text, "-o", tmp_path / "a.mem").err.startswith("read ")
    assert files(tmp_path / "a.mem") == before


def test_a_memory_of_something_else_is_not_overwritten(infllm, harbour, text):
    before = files(harbour)
    result = infllm("index", text, "-o", harbour)
    assert result.code == 2
    assert f"error: {harbour} is a memory of something else" in result.raw_err
    assert files(harbour) == before


def test_a_folder_of_other_files_is_no_place_for_a_memory(infllm, pocket, text, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("Dear Ada")
    result = infllm("index", text, "-o", tmp_path / "mine")
    assert (result.code, result.out) == (1, "")
    assert "holds other files (letter.txt) and no memory" in result.err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("arguments", [[], ["text.txt"]])
def test_index_needs_sources_and_a_place(infllm, arguments):
    assert infllm("index", *arguments).code == 2


def test_standard_input(infllm, pocket, text, tmp_path, monkeypatch):
    piped = io.TextIOWrapper(io.BytesIO(text.read_bytes()))
    monkeypatch.setattr(sys, "stdin", piped)
    assert infllm("index", "-", "-o", tmp_path / "a.mem").code == 0
    result = infllm("ask", tmp_path / "a.mem", HARBOUR)
    assert result.out == f"{ANSWER}\n"
    assert f'[1] -, line 1: "{fact("vague-harbor", ANSWER)}"\n' in result.err


def test_what_truncation_left_out_is_not_cited(infllm, pocket, text, tmp_path):
    cut = ["--set", "max_len=300", "--set", "truncation=prefix"]
    assert infllm("index", text, "-o", tmp_path / "a.mem", *cut).code == 0
    assert about_memory(tmp_path / "a.mem")["tokens_truncated"] > 0
    for source, options in ((tmp_path / "a.mem", []), (text, cut)):
        fields = json.loads(infllm("ask", source, HARBOUR, "--json", *options).out)
        assert fact("vague-harbor", ANSWER) not in [c["quote"] for c in fields["citations"]]


# ---- a memory in the place of documents ---------------------------------------------------------


def test_a_memory_beside_other_sources_is_refused(infllm, harbour, text):
    result = infllm("ask", harbour, text, HARBOUR)
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        f"error: {harbour} is a memory, and one memory is asked at a time\n"
        f"hint: add documents to it with: infllm index --append SOURCE -o {harbour}\n"
    )


@pytest.mark.parametrize(
    "command",
    [
        ["summarize", "{}"],
        ["ppl", "{}"],
        ["inspect", "{}"],
        ["index", "{}", "-o", "b.mem"],
        ["ask", "{}", "Who?", "--dry-run"],
    ],
    ids=lambda command: command[0],
)
def test_a_memory_is_not_read_as_a_folder_of_documents(infllm, harbour, command):
    result = infllm(*[part.format(harbour) for part in command])
    assert (result.code, result.out) == (2, "")
    assert f"error: {harbour} is a memory of documents, which are read already\n" in result.err


def test_a_folder_is_read_without_the_memories_in_it(harbour, text):
    collection = read_sources([str(harbour.parent)])
    assert [document.source for document in collection.documents] == [str(text)]
    assert (str(harbour), "a memory of documents") in [
        (skipped.source, skipped.reason) for skipped in collection.skipped
    ]


def test_a_memory_is_known_in_whatever_state(harbour, tmp_path):
    assert is_memory(str(harbour))
    (harbour / "manifest.json").write_text("")
    assert is_memory(str(harbour))
    (tmp_path / "extension").mkdir()
    (tmp_path / "extension" / "manifest.json").write_text('{"tokens_given": 3}')
    assert not is_memory(str(tmp_path / "extension"))
    assert not is_memory(str(tmp_path / "nothing"))
    assert not is_memory("a\0b")


# ---- adding to a memory -------------------------------------------------------------------------


def test_an_appended_memory_answers_from_both(infllm, harbour, shelf, sequel):
    added = infllm("index", "--append", sequel, "-o", harbour, "--json")
    assert added.code == 0
    assert json.loads(added.out)["sources"] == [f"{shelf}/harbour.txt", str(sequel)]
    for asked, answer, source in (
        (HARBOUR, ANSWER, f"{shelf}/harbour.txt"),
        (MEADOW, "5510362", str(sequel)),
    ):
        fields = json.loads(infllm("ask", harbour, asked, "--json").out)
        assert fields["answer"] == answer
        assert fields["citations"][0]["source"] == source
        assert answer in fields["citations"][0]["quote"]
        assert fields["citations"][0]["verified"]
    assert infllm("memory", "verify", harbour).code == 0
    assert infllm("index", shelf / "harbour.txt", "-o", harbour).code == 2


def test_append_reads_no_more_than_max_len(infllm, harbour, sequel):
    manifest = (harbour / "manifest.json").read_bytes()
    held = json.loads(manifest)["tokens_given"]
    result = infllm(
        "index", "--append", sequel, "-o", harbour,
        "--set", f"max_len={held + 20}", "--set", "truncation=middle",
    )  # fmt: skip
    assert (result.code, result.out) == (ExitCode.BUDGET, "")
    assert f"tokens with those of {harbour}, more than max_len {held + 20:,}\n" in result.err
    assert "hint: raise max_len, or index all the documents anew" in result.err
    assert (harbour / "manifest.json").read_bytes() == manifest
    enough = infllm("index", "--append", sequel, "-o", harbour, "--set", "max_len=100000")
    assert enough.code == 0


def test_append_needs_a_memory(infllm, pocket, sequel, tmp_path):
    result = infllm("index", "--append", sequel, "-o", tmp_path / "new.mem")
    assert (result.code, result.out) == (1, "")
    assert "new.mem holds no memory" in result.err
    assert not (tmp_path / "new.mem").exists()


# ---- what a memory cannot be used for -----------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--set", "topk=3"], "was read with other settings: model.topk 16 (now 3)"),
        (["--policy", "stream-lm"], "was read with other settings: model."),
        (["--set", "chunk_size=512"], "was read with other settings: chunk_size 2048 (now 512)"),
    ],
    ids=lambda value: value[1] if isinstance(value, list) else "",
)
def test_other_settings_are_refused_and_nothing_is_lost(infllm, harbour, options, reason):
    before = files(harbour)
    result = infllm("ask", harbour, HARBOUR, *options)
    assert (result.code, result.out) == (1, "")
    assert f"error: {harbour} {reason}" in result.err
    assert files(harbour) == before


def test_another_preset_is_refused(infllm, pocket, text, tmp_path):
    preset = tmp_path / "wide.yaml"
    preset.write_text("preset: pocket\nmodel:\n  n_local: 192\n")
    folder = tmp_path / "wide.mem"
    assert infllm("index", text, "-o", folder, "--preset", preset).code == 0
    assert infllm("ask", folder, HARBOUR).code == 0  # the preset is remembered
    result = infllm("ask", folder, HARBOUR, "--preset", "pocket")
    assert (result.code, result.out) == (1, "")
    assert "was read with other settings: model.n_local 192 (now 256)" in result.err


@pytest.mark.parametrize("options", [[], ["--preset", "pocket"]])
def test_a_preset_that_changed_since_keeps_no_memory_from_being_used(
    infllm, harbour, tmp_path, monkeypatch, options
):
    from infllm import presets

    changed = tmp_path / "pocket.yaml"
    text = presets.text("pocket").replace("topk: 16", "topk: 8").replace("n_local: 256", "")
    changed.write_text(text)
    monkeypatch.setattr(presets, "path", lambda name: changed)
    before = files(harbour)
    result = infllm("ask", harbour, HARBOUR, *options)
    assert (result.code, result.out) == (0, f"{ANSWER}\n")
    assert files(harbour) == before
    sequel = tmp_path / "more.txt"
    sequel.write_text(story(20, "The sequel."))
    assert infllm("index", "--append", sequel, "-o", harbour, *options).code == 0
    refused = infllm("ask", harbour, HARBOUR, *options, "--set", "topk=4")
    assert "was read with other settings: model.topk 16 (now 4)" in refused.err


def test_settings_are_remembered_and_the_device_is_not(infllm, pocket, text, tmp_path):
    (tmp_path / "cwd" / "pocket").mkdir()  # a folder of a preset's name is not that preset
    folder = tmp_path / "a.mem"
    options = ["--preset", "pocket", "--set", "topk=8", "--set", "device=cpu", "--device", "cpu"]
    assert infllm("index", text, "-o", folder, *options).code == 0
    assert about_memory(folder)["choice"] == {
        "source": "pocket",
        "overrides": {"topk": 8},
        "name": "pocket",
    }
    assert infllm("ask", folder, HARBOUR).out == f"{ANSWER}\n"


@pytest.mark.parametrize("kind", ["state", "units", "extra", "manifest"])
@pytest.mark.parametrize("how", ["cut", "flipped", "gone"])
def test_damaged_files_are_refused(infllm, harbour, kind, how):
    path = harbour / "manifest.json" if kind == "manifest" else largest(harbour, kind)
    data = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    verified = infllm("memory", "verify", harbour)
    if (kind, how) == ("manifest", "gone"):  # what is half removed is no memory any more
        assert verified.code == 2
        return
    asked = infllm("ask", harbour, HARBOUR)
    assert (verified.code, asked.code) == (1, 1)
    assert asked.out == ""
    assert str(path) in asked.err
    assert "hint: remove the folder and read the document again\n" in asked.err
