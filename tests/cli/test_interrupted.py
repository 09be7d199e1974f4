"""Readings that Ctrl-C stops, and the same command given again."""

import re

import pytest

from tests.cli.memories import ANSWER, HARBOUR, files


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


def test_an_interrupted_append_leaves_the_old_memory(infllm, harbour, sequel, interrupt):
    before = files(harbour)
    interrupt(1)
    result = infllm("index", "--append", sequel, "-o", harbour)
    assert (result.code, result.out) == (130, "")
    assert "the memory is as it was; the same command starts over" in result.err
    assert files(harbour) == before
    assert infllm("ask", harbour, HARBOUR).out == f"{ANSWER}\n"
