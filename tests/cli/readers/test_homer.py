"""`infllm ask --reader homer` and `infllm calibrate`, with the built-in model."""

import json

import numpy as np
import pytest

from infllm.cli.readers.base import Excerpt
from infllm.cli.readers.homer import pieces
from tests.cli.memories import ANSWER, HARBOUR
from tests.cli.stories import fact, story


@pytest.fixture
def short(tmp_path):
    """A story that one chunk holds."""
    path = tmp_path / "short.txt"
    path.write_text(story(30, fact("vague-harbor", ANSWER)))
    return path


@pytest.fixture
def long(tmp_path):
    """A story of some 1,500 tokens."""
    path = tmp_path / "long.txt"
    path.write_text(story(100, fact("vague-harbor", ANSWER)))
    return path


def test_the_answer_is_found_and_cited_in_one_chunk(infllm, pocket, short):
    result = infllm("ask", short, HARBOUR, "--reader", "homer")
    assert (result.code, result.out) == (0, f"{ANSWER}\n")
    assert f'[1] {short}, line 1: "{fact("vague-harbor", ANSWER)}"' in result.err
    assert "homer is not calibrated for this model" in result.err
    assert "pocket, homer, peak memory" in result.err
    drafted = infllm("ask", short, HARBOUR, "--reader", "homer", "--draft", "document")
    assert drafted.out == result.out


def test_a_table_is_made_kept_and_found_again(infllm, pocket, long, tmp_path, monkeypatch):
    monkeypatch.setenv("INFLLM_CACHE_DIR", str(tmp_path / "cache"))
    made = infllm("calibrate", "pocket", "--samples", 2, "--len", 300, "--json")
    fields = json.loads(made.out)
    assert (made.code, fields["layers"], fields["distances"]) == (0, 4, 300)
    assert fields["file"].startswith(str(tmp_path / "cache"))
    ask = "ask", long, HARBOUR, "--reader", "homer", "--set", "homer.chunk=256"
    result = infllm(*ask, "--json")
    assert "not calibrated" not in result.err
    fields = json.loads(result.out)
    assert (fields["reader"], fields["policy"]) == ("homer", None)
    # Each chunk has the question again.
    assert fields["tokens_read"] > fields["tokens_given"] > 1000
    assert all(citation["verified"] for citation in fields["citations"])


def test_a_table_of_ones_own_is_named(infllm, pocket, short, tmp_path):
    path = tmp_path / "table.safetensors"
    assert infllm("calibrate", "pocket", "--samples", 1, "-o", path).out == f"{path}\n"
    named = "--set", f"homer.calibration={path}"
    result = infllm("ask", short, HARBOUR, "--reader", "homer", *named)
    assert result.out == f"{ANSWER}\n"
    assert "not calibrated" not in result.err
    path.unlink()
    result = infllm("ask", short, HARBOUR, "--reader", "homer", *named)
    assert result.code == 2
    assert "there is no calibration" in result.err


def test_answers_of_another_table_are_not_mixed(infllm, pocket, short, tmp_path):
    questions, answers, table = (tmp_path / name for name in ("q.txt", "a.jsonl", "t.safetensors"))
    questions.write_text(f"{HARBOUR}\n")
    ask = "ask", short, "--questions", questions, "-o", answers, "--reader", "homer"
    assert infllm(*ask).code == 0
    assert infllm("calibrate", "pocket", "--samples", 1, "-o", table).code == 0
    result = infllm(*ask, "--set", f"homer.calibration={table}")
    assert result.code == 2
    assert "reader_settings/calibration" in result.err


def test_what_leaves_no_room_is_said(infllm, pocket, short):
    result = infllm("ask", short, HARBOUR, "--reader", "homer", "--set", "homer.chunk=20")
    assert result.code == 2
    assert "leave no room in 20" in result.err


def test_kept_tokens_are_ranges_of_the_document():
    document = Excerpt("ab cd ef gh", np.arange(100, 111))
    kept = pieces(document, [0, 2, 5, 8, 11], [0, 1, 3])
    assert kept.text == "ab cd gh"
    assert kept.ranges() == [(100, 105), (108, 111)]
    assert pieces(document, [0, 11], []).ranges() == []
