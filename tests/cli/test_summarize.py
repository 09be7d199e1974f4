"""`infllm summarize`: through memory, and by parts that fit the window."""

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from infllm.cli.documents import read_sources
from infllm.cli.tasks.summarize import Part, find_sections, fit_parts
from tests.cli.fakes import FakeTokenizer


def test_whole_document_through_memory(infllm, fakes, book):
    fakes.answer = lambda text: " A green and blue tale."
    result = infllm("summarize", book)
    assert (result.code, result.out) == (0, "A green and blue tale.\n")
    assert result.err.startswith("read 1,209 tokens in T (R tok/s), summarized in T; pocket")
    assert len(fakes.engine.sessions) == 1


def test_map_reduce_reads_every_part_in_full_attention(infllm, fakes, tmp_path):
    chapters = "\n\n".join(f"# Chapter {i}\n\n" + f"word{i} " * 500 for i in range(6))
    path = tmp_path / "book.md"
    path.write_text(chapters)
    fakes.answer = lambda text: " A part."
    result = infllm("summarize", path, "--strategy", "map-reduce", "--json")
    fields = json.loads(result.out)
    assert fields["answer"] == "A part."
    assert (fields["strategy"], fields["policy"]) == ("map-reduce", "origin")
    assert (fields["parts"], fields["rounds"]) == (7, 2)
    sessions = fakes.engine.sessions
    assert {session.policy for session in sessions} == {"origin"}
    assert all(len(session.given) <= 1024 for session in sessions)
    told = fakes.engine.tokenizer.decode(sessions[0].given)
    assert "word0" in told
    assert "word1" not in told
    read = "".join(fakes.engine.tokenizer.decode(session.given) for session in sessions[:6])
    assert all(read.count(f"word{i}") == 500 for i in range(6))
    assert fields["tokens_read"] == sum(len(session.given) for session in sessions)


def test_a_document_that_fits_is_one_part(infllm, fakes, tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("A short text.")
    fakes.answer = lambda text: " Short." if "Task: summarize" in text else " Wrong task."
    fields = json.loads(infllm("summarize", path, "--strategy", "map-reduce", "--json").out)
    assert (fields["answer"], fields["parts"], fields["rounds"]) == ("Short.", 1, 1)


def test_policy_and_map_reduce_contradict(infllm, fakes, book):
    result = infllm("summarize", book, "--strategy", "map-reduce", "--policy", "inf-llm")
    assert result.code == 2
    assert "--policy inf-llm has no part in map-reduce" in result.err


def test_a_summary_longer_than_the_window(infllm, fakes, book):
    result = infllm("summarize", book, "--strategy", "map-reduce", "--max-new-tokens", 1000)
    assert result.code == 2
    assert "hint: lower --max-new-tokens, or use --strategy memory\n" in result.err


@given(st.lists(st.integers(0, 500), min_size=1, max_size=30), st.integers(10, 200))
def test_parts_fit_and_cover_the_sections(lengths, room):
    sections, start = [], 0
    for length in lengths:
        sections.append(Part(start, start + length, "section"))
        start += length
    parts = fit_parts(sections, room)
    assert all(0 < part.end - part.start <= room for part in parts)
    assert [token for part in parts for token in range(part.start, part.end)] == list(range(start))


def test_sections_are_files_and_chapters(tmp_path):
    (tmp_path / "a.md").write_text("# One\n\nFirst.\n\n# Two\n\nSecond.\n")
    (tmp_path / "b.txt").write_text("Plain.")
    collection = read_sources([str(tmp_path / "a.md"), str(tmp_path / "b.txt")])
    tokenizer = FakeTokenizer()
    ids = tokenizer.encode(collection.text)
    sections = find_sections(collection, tokenizer.offsets(collection.text, ids))
    titles = [section.title for section in sections]
    assert "One" in titles
    assert "Two" in titles
    assert sections[0].start == 0
    assert sections[-1].end == len(ids)
    assert all(a.end == b.start for a, b in pairwise(sections))
