"""`infllm memory`: list, show, verify, rm and prune."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.cli.memories import kept, largest


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
    from infllm.engine.files.storage import lock

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
