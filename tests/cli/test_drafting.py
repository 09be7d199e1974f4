"""`--draft`: the same answers, and what is kept beside memories for it."""

import json

import pytest

from infllm.cli.tasks import drafting
from tests.cli.memories import ANSWER, HARBOUR, MEADOW, kept
from tests.cli.stories import fact, story

WAYS = ("document", "lookahead", "off")


@pytest.fixture
def two(tmp_path):
    path = tmp_path / "two.txt"
    path.write_text(story(120, fact("vague-harbor", ANSWER), fact("quiet-meadow", "1029384")))
    return path


@pytest.fixture
def passes(pocket, monkeypatch):
    """Nodes of each drafted pass."""
    from infllm.engine.session import drafting as engine_drafting

    seen = []

    class Watched(engine_drafting.DraftedPass):
        def run(self, attachment):
            seen.append(len(self.tree.tokens))
            super().run(attachment)

    monkeypatch.setattr(engine_drafting, "DraftedPass", Watched)
    return seen


@pytest.mark.parametrize("question", [HARBOUR, MEADOW])
def test_answers_are_the_same(infllm, passes, two, question):
    answers, used = {}, {}
    for way in WAYS:
        passes.clear()
        result = infllm("ask", two, question, "--draft", way, "--json")
        assert result.code == 0
        fields = json.loads(result.out)
        answers[way] = fields["answer"], [c["quote"] for c in fields["citations"]]
        used[way] = list(passes)
    assert answers["document"] == answers["lookahead"] == answers["off"]
    assert not used["off"]
    assert max(used["lookahead"]) > 10
    assert max(used["document"]) > 1


def test_an_interrupted_and_a_sampled_answer(infllm, pocket, two):
    how = ["--temperature", "0.9", "--seed", "7", "--repetition-penalty", "1.2"]
    said = {infllm("ask", two, HARBOUR, "--draft", way, *how).out for way in WAYS}
    assert len(said) == 1


def test_summaries_and_chats_are_the_same(infllm, passes, two, monkeypatch):
    for command in ["summarize", two, "--max-new-tokens", "40"], ["ask", two, MEADOW]:
        said = {infllm(*command, "--draft", way).out for way in WAYS}
        assert len(said) == 1
    assert passes


def test_a_way_that_is_none(infllm, pocket, two):
    result = infllm("ask", two, HARBOUR, "--draft", "eagle")
    assert result.code == 2
    assert "document, lookahead, off" in result.err


def test_the_configuration_says_what_drafts(infllm, passes, two):
    infllm("ask", two, HARBOUR, "--set", "draft=off")
    assert not passes
    infllm("ask", two, HARBOUR, "--set", "draft=document")
    assert passes
    result = infllm("ask", two, HARBOUR, "--set", "draft=none")
    assert result.code == 2


def test_suffixes_are_kept_beside_memories_and_mapped(infllm, passes, two, tmp_path, monkeypatch):
    monkeypatch.setattr(drafting, "LEAST_KEPT", 100)
    named = tmp_path / "two.mem"
    on = "--set", "draft=document"
    assert infllm("index", two, "-o", named, *on).code == 0
    (file,) = named.glob("suffixes-*.npy")
    assert (file.stat().st_mode & 0o777) == 0o600
    from infllm.engine.drafts import SuffixArray

    made = []
    monkeypatch.setattr(SuffixArray, "of", classmethod(lambda cls, ids: made.append(ids)))
    assert infllm("ask", named, HARBOUR, *on).out == f"{ANSWER}\n"
    assert not made  # it was opened
    assert infllm("memory", "verify", named).code == 0
    monkeypatch.undo()


def test_what_is_no_such_file_is_made_anew_and_others_go(
    infllm, passes, two, tmp_path, monkeypatch
):
    monkeypatch.setattr(drafting, "LEAST_KEPT", 100)
    monkeypatch.setenv("INFLLM_CACHE_MAX", "1G")
    monkeypatch.setattr("infllm.cli.remember.LEAST_KEPT", 100)
    on = "--set", "draft=document"
    assert infllm("ask", two, HARBOUR, *on).out == f"{ANSWER}\n"
    from infllm.cli.cache import cache_folder

    (memory,) = kept(cache_folder())
    (file,) = memory.glob("suffixes-*.npy")
    good = file.read_bytes()
    file.write_bytes(b"half of it")
    (memory / "suffixes-0123.npy").write_bytes(b"of what was there before")
    assert infllm("ask", two, MEADOW, *on).out == "1029384\n"
    assert file.read_bytes() == good
    assert list(memory.glob("suffixes-*.npy")) == [file]


def test_a_memory_of_ones_own_is_not_written_to(infllm, passes, harbour, monkeypatch):
    monkeypatch.setattr(drafting, "LEAST_KEPT", 100)
    before = {path.name for path in harbour.iterdir()}
    assert infllm("ask", harbour, HARBOUR, "--draft", "document").out == f"{ANSWER}\n"
    assert {path.name for path in harbour.iterdir()} == before


def test_drafts_that_packed_weights_forbid_are_left_out_and_told(infllm, passes, two):
    asked = ["ask", two, HARBOUR, "--weights", "packed"]
    told = infllm(*asked, "--draft", "document")
    assert told.code == 0
    assert "--draft document is left out" in told.err
    plain = infllm(*asked, "--draft", "off")
    assert "left out" not in plain.err
    assert told.out == plain.out
    assert not passes
