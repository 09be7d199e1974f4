"""Memories on disk and in the cache, with the real engine: made, found again, added to, refused."""

import io
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from infllm.cli.cache import parse_size
from infllm.cli.documents import is_memory, read_sources
from infllm.cli.errors import UsageError
from infllm.cli.memory import about_memory
from tests.cli.stories import fact, question, story

HARBOUR, MEADOW = question("vague-harbor"), question("quiet-meadow")
ANSWER = "7281934"


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(story(60, fact("vague-harbor", ANSWER)))
    return path


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    """A cache that keeps what has a thousand tokens or less, for the tests' sake."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("INFLLM_CACHE_DIR", str(folder))
    monkeypatch.setenv("INFLLM_CACHE_MAX", "1GB")
    monkeypatch.setattr("infllm.cli.remember.LEAST_KEPT", 500)
    return folder


@pytest.fixture
def interrupt(monkeypatch):
    """Ctrl-C at the n-th piece of a reading; None lets it be."""
    from infllm.cli.progress import Progress

    advance, at = Progress.advance, {}

    def stopping(self, tokens: int) -> None:
        advance(self, tokens)
        at["left"] = at["left"] - 1 if at.get("left") else None
        if at["left"] == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "advance", stopping)
    return lambda pieces: at.update(left=pieces)


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "reading.json"}


def kept(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.mem"))


def largest(folder: Path, kind: str) -> Path:
    return max(folder.glob(f"{kind}-*"), key=lambda path: path.stat().st_size)


# ---- index and ask ------------------------------------------------------------------------------


def test_a_memory_is_asked_without_its_document(infllm, harbour, shelf):
    result = infllm("ask", harbour, HARBOUR)
    assert (result.code, result.out) == (0, f"{ANSWER}\n")
    assert re.fullmatch(
        r"reused the memory of [\d,]+ tokens: saved T of reading\n"
        + re.escape(f'[1] {shelf}/harbour.txt, line 1: "{fact("vague-harbor", ANSWER)}"\n')
        + "answered in T; pocket, inf-llm, peak memory M\n",
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


# ---- the cache ----------------------------------------------------------------------------------


def test_what_ask_reads_is_kept_for_the_next_question(infllm, pocket, cache, text):
    first = infllm("ask", text, HARBOUR)
    assert first.out == f"{ANSWER}\n"
    assert "read " in first.err
    assert len(kept(cache)) == 1
    assert cache.stat().st_mode & 0o777 == 0o700
    before = files(kept(cache)[0])
    again = infllm("ask", text, HARBOUR)
    assert again.out == first.out
    assert re.match(r"reused the memory of [\d,]+ tokens: saved T of reading\n", again.err)
    assert "tok/s" not in again.err
    other = infllm("ask", text, "Who painted the mill?", "--json")
    assert json.loads(other.out)["reused"] is True
    assert kept(cache) == [kept(cache)[0]]
    assert files(kept(cache)[0]) == before


def test_answers_of_a_kept_memory_are_those_of_a_new_one(infllm, pocket, cache, text):
    asked = ["ask", text, "Who swept the quay?", "--max-new-tokens", "24", "--json"]
    answers = [json.loads(infllm(*asked, *extra).out) for extra in ([], [], ["--no-cache"])]
    assert [fields["reused"] for fields in answers] == [False, True, False]
    same = [(a["answer"], a["citations"], a["tokens_read"]) for a in answers]
    assert same[0] == same[1] == same[2]


def test_edited_files_and_other_settings_are_read_anew(infllm, pocket, cache, text):
    def reused(*options: str) -> bool:
        return json.loads(infllm("ask", text, HARBOUR, "--json", *options).out)["reused"]

    assert not reused()
    assert not reused("--set", "topk=8")
    assert reused("--set", "topk=8")
    assert reused()
    text.write_text(text.read_text().replace(ANSWER, "1111111"))
    assert not reused()
    assert infllm("ask", text, HARBOUR).out == "1111111\n"
    assert len(kept(cache)) == 3


def test_without_the_cache_nothing_is_kept_and_nothing_found(infllm, pocket, cache, text):
    infllm("ask", text, HARBOUR, "--no-cache")
    assert not cache.exists()


def test_a_short_text_is_not_kept(infllm, pocket, cache, tmp_path):
    (tmp_path / "short.txt").write_text(story(3))
    assert infllm("ask", tmp_path / "short.txt", "Who?").code == 0
    assert not cache.exists()


def test_a_memory_above_the_limit_of_one_is_not_kept(infllm, pocket, cache, text, monkeypatch):
    monkeypatch.setenv("INFLLM_CACHE_MAX_ONE", "10kB")
    result = infllm("ask", text, HARBOUR)
    assert result.out == f"{ANSWER}\n"
    assert result.err.startswith("this memory is not kept: it would take M, more than M: keep it ")
    assert not cache.exists()


def test_what_was_not_used_for_longest_makes_room(
    infllm, pocket, cache, harbour, text, monkeypatch
):
    cache.mkdir()
    old, older = cache / "old.mem", cache / "older.mem"
    for age, folder in ((100, old), (200, older)):
        shutil.copytree(harbour, folder)
        os.utime(folder, (os.path.getmtime(harbour) - age,) * 2)
    one = sum(path.stat().st_size for path in harbour.iterdir())
    monkeypatch.setenv("INFLLM_CACHE_MAX", str(int(2.5 * one)))
    assert infllm("ask", old, HARBOUR).code == 0  # which is a use of it
    result = infllm("ask", text, HARBOUR)
    assert "removed from the cache what was not used for longest: older\n" in result.err
    assert len(kept(cache)) == 2
    assert old in kept(cache)


def test_a_damaged_memory_of_the_cache_is_read_again(infllm, pocket, cache, text):
    infllm("ask", text, HARBOUR)
    state = largest(kept(cache)[0], "state")
    state.write_bytes(state.read_bytes()[:-10])
    result = infllm("ask", text, HARBOUR)
    assert result.out == f"{ANSWER}\n"
    assert result.err.startswith("warning: ")
    assert ": reading again\n" in result.err
    assert "saved" in infllm("ask", text, HARBOUR).err


@pytest.mark.parametrize("variable", ["INFLLM_CACHE_MAX", "INFLLM_CACHE_MAX_ONE"])
@pytest.mark.parametrize("value", ["much", "-1", "5XB", ""])
def test_a_limit_that_is_no_size(infllm, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    result = infllm("memory", "list")
    assert result.code == 2
    assert result.err.startswith(f"error: {variable} {value!r} is not a size\n")


def test_sizes():
    sizes = {"20GB": 2 * 10**10, "1.5m": 1_500_000, " 12 kB ": 12_000, "0": 0, "7": 7, "1T": 10**12}
    assert {text: parse_size(text, "x") for text in sizes} == sizes
    with pytest.raises(UsageError):
        parse_size("1 000", "x")


# ---- infllm memory ------------------------------------------------------------------------------


@pytest.fixture
def two(cache, harbour) -> Path:
    cache.mkdir()
    for age, name in ((0, "aaa1"), (60, "aab2")):
        shutil.copytree(harbour, cache / f"{name}.mem")
        os.utime(cache / f"{name}.mem", (1_700_000_000 - age,) * 2)
    return cache


def test_list(infllm, two):
    result = infllm("memory", "list")
    assert [line.split()[0] for line in result.out.splitlines()] == ["name", "aaa1", "aab2"]
    assert "harbour.txt" in result.out
    assert result.err == f"2 memories, M of at most M in {two}\n"
    fields = json.loads(infllm("memory", "list", "--json").out)
    assert fields["command"] == "memory list"
    assert fields["folder"] == str(two)
    assert [memory["name"] for memory in fields["memories"]] == ["aaa1", "aab2"]
    [first, _] = fields["memories"]
    assert (first["preset"], first["complete"], first["damage"]) == ("pocket", True, None)
    assert first["units"] > 0
    assert fields["bytes"] == sum(memory["bytes"] for memory in fields["memories"])


def test_list_of_nothing(infllm, cache):
    assert json.loads(infllm("memory", "list", "--json").out)["memories"] == []


def test_list_tells_damage(infllm, two):
    (two / "aaa1.mem" / "manifest.json").write_text("{}")
    result = infllm("memory", "list")
    assert "(damaged)" in result.out.splitlines()[1]


def test_show(infllm, two):
    result = infllm("memory", "show", "aaa")
    assert result.out.startswith(f"memory    {two}/aaa1.mem\nsource    ")
    assert "state     whole\n" in result.out
    by_path = json.loads(infllm("memory", "show", two / "aab2.mem", "--json").out)
    assert [memory["name"] for memory in by_path["memories"]] == ["aab2"]


def test_verify(infllm, two):
    result = infllm("memory", "verify")
    assert (result.code, result.out) == (0, f"{two}/aaa1.mem: intact\n{two}/aab2.mem: intact\n")
    units = largest(two / "aab2.mem", "units")
    data = bytearray(units.read_bytes())
    data[len(data) // 2] ^= 4
    units.write_bytes(data)
    result = infllm("memory", "verify", "--json")
    assert result.code == 1
    first, second = json.loads(result.out)["memories"]
    assert (first["intact"], second["intact"]) == (True, False)
    assert f"{units} is damaged" in second["error"]
    assert infllm("memory", "verify", "aaa1").code == 0


def test_remove(infllm, two):
    fields = json.loads(infllm("memory", "rm", "aaa1", "--json").out)
    assert [removed["memory"] for removed in fields["removed"]] == [f"{two}/aaa1.mem"]
    assert fields["removed"][0]["bytes"] > 0
    assert kept(two) == [two / "aab2.mem"]
    result = infllm("memory", "rm", two / "aab2.mem", "aab2")
    assert result.code == 0
    assert kept(two) == []


def test_a_memory_that_is_being_written_is_not_removed(infllm, two):
    from infllm.engine.storage import lock

    held = lock(two / "aaa1.mem" / "lock")
    assert held is not None
    try:
        result = infllm("memory", "rm", "aaa1")
        assert infllm("memory", "prune", "--keep", "0").code == 0
    finally:
        os.close(held)
    assert result.code == 1
    assert "is being written" in result.err
    assert kept(two) == [two / "aaa1.mem"]


def test_prune(infllm, two):
    one = sum(path.stat().st_size for path in (two / "aaa1.mem").iterdir())
    assert infllm("memory", "prune").err == "0 B freed\n"
    fields = json.loads(infllm("memory", "prune", "--keep", str(one), "--json").out)
    assert fields["removed"] == [{"memory": f"{two}/aab2.mem", "bytes": one}]
    assert infllm("memory", "prune", "--keep", "0").err == "removed aaa1, M\nM freed\n"
    assert kept(two) == []
    assert infllm("memory", "prune", "--keep", "some").code == 2


@pytest.mark.parametrize("command", ["show", "rm", "verify"])
def test_unknown_and_ambiguous_names(infllm, two, command):
    result = infllm("memory", command, "zzz")
    assert (result.code, result.out) == (2, "")
    assert result.err == "error: no memory of the name 'zzz'\nhint: see: infllm memory list\n"
    assert "2 memories of the name 'aa'" in infllm("memory", command, "aa").err
    assert len(kept(two)) == 2


@pytest.mark.parametrize("command", ["show", "rm"])
def test_names_are_needed(infllm, two, command):
    assert infllm("memory", command).code == 2
    assert len(kept(two)) == 2


# ---- adding to a memory -------------------------------------------------------------------------


@pytest.fixture
def sequel(tmp_path) -> Path:
    path = tmp_path / "sequel.txt"
    path.write_text(story(50, fact("quiet-meadow", "5510362"), seed=1))
    return path


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


def test_an_interrupted_append_leaves_the_old_memory(infllm, harbour, sequel, interrupt):
    before = files(harbour)
    interrupt(1)
    result = infllm("index", "--append", sequel, "-o", harbour)
    assert (result.code, result.out) == (130, "")
    assert "the memory is as it was; the same command starts over" in result.err
    assert files(harbour) == before
    assert infllm("ask", harbour, HARBOUR).out == f"{ANSWER}\n"


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


# ---- interrupted readings -----------------------------------------------------------------------


@pytest.fixture
def often(monkeypatch):
    """A checkpoint every 256 tokens, as a long reading makes them."""
    from infllm.engine import MemoryWriter

    before = MemoryWriter.__init__

    def init(self, *arguments, **options) -> None:
        before(self, *arguments, **{**options, "every": 256})

    monkeypatch.setattr(MemoryWriter, "__init__", init)


SMALL = ["--set", "chunk_size=128"]


def test_an_interrupted_index_goes_on_to_the_same_files(
    infllm, pocket, text, tmp_path, often, interrupt
):
    assert infllm("index", text, "-o", tmp_path / "straight.mem", *SMALL).code == 0
    folder = tmp_path / "stopped.mem"
    interrupt(5)
    stopped = infllm("index", text, "-o", folder, *SMALL)
    assert (stopped.code, stopped.out) == (130, "")
    assert re.fullmatch(
        r"error: interrupted after reading 640 of [\d,]+ tokens\n"
        r"hint: the same command goes on at token 512\n",
        stopped.raw_err,
    )
    unfinished = infllm("ask", folder, HARBOUR)
    assert (unfinished.code, unfinished.out) == (1, "")
    assert "is of a reading that was not finished\nhint: the index command" in unfinished.err
    assert infllm("memory", "show", folder).out.endswith(
        "state     unfinished: the same index command goes on\n"
    )
    assert infllm("memory", "verify", folder).code == 0
    gone_on = infllm("index", text, "-o", folder, *SMALL)
    assert gone_on.code == 0
    assert "going on at token 512 of " in gone_on.raw_err
    assert files(folder) == files(tmp_path / "straight.mem")
    assert infllm("ask", folder, HARBOUR).out == f"{ANSWER}\n"


def test_an_index_stopped_before_its_first_save_starts_over(
    infllm, pocket, text, tmp_path, interrupt
):
    interrupt(2)
    stopped = infllm("index", text, "-o", tmp_path / "a.mem", *SMALL)
    assert stopped.code == 130
    assert "hint: the same command starts over\n" in stopped.err
    again = infllm("index", text, "-o", tmp_path / "a.mem", *SMALL)
    assert again.code == 0
    assert "going on" not in again.err


def test_an_interrupted_ask_goes_on_from_the_cache(infllm, pocket, cache, text, often, interrupt):
    interrupt(5)
    stopped = infllm("ask", text, HARBOUR, *SMALL)
    assert (stopped.code, stopped.out) == (130, "")
    assert "the same command goes on at token 512" in stopped.err
    assert "(unfinished)" in infllm("memory", "list").out
    gone_on = infllm("ask", text, HARBOUR, *SMALL)
    assert gone_on.out == f"{ANSWER}\n"
    assert gone_on.raw_err.startswith("going on at token 512 of ")
