"""Passages that a question found, read again next to it."""

import json

from tests.cli.memories import ANSWER, HARBOUR
from tests.cli.stories import fact


def test_passages_are_read_again_next_to_the_question(infllm, harbour):
    fields = json.loads(infllm("ask", harbour, HARBOUR, "--read-back", "--json").out)
    assert fields["answer"] == ANSWER
    assert 0 < fields["tokens_read_back"] < 256
    assert fields["citations"][0]["quote"] == fact("vague-harbor", ANSWER)
    plain = json.loads(infllm("ask", harbour, HARBOUR, "--no-read-back", "--json").out)
    assert plain["tokens_read_back"] == 0
    assert (plain["tokens_given"], plain["tokens_read"]) == (
        fields["tokens_given"],
        fields["tokens_read"],
    )
    as_preset = json.loads(infllm("ask", harbour, HARBOUR, "--json").out)
    assert as_preset["tokens_read_back"] == fields["tokens_read_back"]
    off = json.loads(infllm("ask", harbour, HARBOUR, "--set", "read_back=false", "--json").out)
    assert off["tokens_read_back"] == 0


def test_a_text_within_the_window_has_nothing_to_read_back(infllm, pocket, tmp_path):
    (tmp_path / "short.txt").write_text(fact("vague-harbor", ANSWER))
    result = infllm("ask", tmp_path / "short.txt", HARBOUR, "--read-back", "--json")
    assert json.loads(result.out)["tokens_read_back"] == 0
    explained = infllm("ask", tmp_path / "short.txt", HARBOUR, "--explain")
    assert "nothing was looked up: the whole text is within the window" in explained.err


def test_a_question_longer_than_the_window_reads_nothing_back(infllm, harbour):
    long = " ".join(f"And what of day {day}?" for day in range(60))
    result = infllm("ask", harbour, long, "--read-back", "--json", "--max-new-tokens", "4")
    assert (result.code, json.loads(result.out)["tokens_read_back"]) == (0, 0)
