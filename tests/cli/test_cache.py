"""What `ask` keeps of its readings, and what makes room for more."""

import json
import os
import re
import shutil

import pytest

from infllm.cli.cache import parse_size
from infllm.cli.errors import UsageError
from tests.cli.memories import ANSWER, HARBOUR, files, kept, largest
from tests.cli.stories import story


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


def test_a_moved_document_is_found_again_and_cited_by_its_new_name(infllm, pocket, cache, text):
    infllm("ask", text, HARBOUR)
    moved = text.rename(text.with_name("moved.txt"))
    fields = json.loads(infllm("ask", moved, HARBOUR, "--json").out)
    assert (fields["answer"], fields["reused"], len(kept(cache))) == (ANSWER, True, 1)
    assert [citation["source"] for citation in fields["citations"]] == [str(moved)]


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
@pytest.mark.parametrize("value", ["much", "-1", "5XB", "5i", ""])
def test_a_limit_that_is_no_size(infllm, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    result = infllm("memory", "list")
    assert result.code == 2
    assert result.err.startswith(f"error: {variable} {value!r} is not a size\n")


def test_sizes():
    sizes = {"20GB": 2 * 10**10, "1.5m": 1_500_000, " 12 kB ": 12_000, "0": 0, "7": 7, "1T": 10**12}
    sizes |= {"4GiB": 2**32, "1.5 kib": 1536}
    assert {text: parse_size(text, "x") for text in sizes} == sizes
    with pytest.raises(UsageError):
        parse_size("1 000", "x")
