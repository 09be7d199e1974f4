"""`infllm ppl`: perplexity, bits per byte and the curve, checked against numbers known."""

import json
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infllm.cli.tasks.perplexity import Curve, bin_edges


@given(st.integers(1, 10**7), st.integers(1, 200), st.sampled_from(["even", "log"]))
def test_bins_cover_all_tokens_and_none_is_empty(tokens, bins, spacing):
    edges = bin_edges(tokens, bins, spacing)
    assert edges[0] == 0
    assert edges[-1] == tokens
    assert len(edges) <= bins + 1
    assert all(a < b for a, b in pairwise(edges))


def test_log_bins_grow():
    edges = bin_edges(1_000_000, 10, "log")
    lengths = [b - a for a, b in pairwise(edges)]
    assert lengths[1:] == sorted(lengths[1:])


@given(
    st.lists(st.floats(0, 20), min_size=1, max_size=300),
    st.integers(1, 20),
    st.integers(1, 50),
)
def test_the_curve_is_the_mean_of_each_bin_however_it_is_fed(losses, bins, block):
    edges = bin_edges(len(losses), bins, "even")
    curve = Curve(edges)
    for start in range(0, len(losses), block):
        curve.add(losses[start : start + block])
    points = curve.points()
    assert [(point.start, point.end) for point in points] == list(pairwise(edges))
    for point in points:
        part = losses[point.start : point.end]
        assert point.nll == pytest.approx(sum(part) / len(part))


def test_tables_off_a_terminal(infllm, fakes, book):
    result = infllm("ppl", book, "--bins", 2, "--policy", "inf-llm,origin")
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0].split() == ["policy", "tokens", "perplexity", "nll", "bits/byte", "tok/s"]
    assert lines[1].split()[:5] == ["inf-llm", "1,206", "2.72", "1.0000", "0.3122"]
    assert lines[2].split()[:5] == ["origin", "1,206", "4.83", "1.5755", "0.4919"]
    assert lines[3:] == [
        "",
        "   tokens  nll inf-llm  nll origin",
        "    0-603       1.0000      1.1509",
        "603-1,206       1.0000      2.0000",
    ]
    assert result.err == (
        "protocol: one continuous stream, BOS once at the start, every token predicted from all "
        "before it, no overlap and no reset; the text alone, without names of sources, a blank "
        "line between them; nll in nats per token\npeak memory M\n"
    )


def test_json(infllm, fakes, book):
    fields = json.loads(infllm("perplexity", book, "--bins", 4, "--json").out)
    assert (fields["schema"], fields["command"]) == (1, "ppl")
    assert fields["tokens"] == 1206
    assert fields["perplexity"] == pytest.approx(math.e)
    n_bytes = len(book.read_bytes().rstrip()) + 1
    assert fields["bits_per_byte"] == pytest.approx(1206 / math.log(2) / n_bytes)
    assert len(fields["curve"]) == 4
    assert all({"position", "nll"} <= set(point) for point in fields["curve"])
    assert fields["peak_memory_bytes"] > 10**6
    assert "BOS once" in fields["protocol"]
    assert set(fields["by_policy"]) == {"inf-llm"}


def test_a_cap_is_reported_as_truncated(infllm, fakes, book):
    result = infllm("ppl", book, "--max-tokens", 100, "--json")
    fields = json.loads(result.out)
    assert (fields["tokens"], fields["tokens_truncated"]) == (100, 1106)
    result = infllm("ppl", book, "--max-tokens", 100)
    assert "1,106 tokens left out (--max-tokens)\n" in result.err


def test_max_tokens_as_people_write_them(infllm, book):
    result = infllm("ppl", book, "--max-tokens", "0.5K", "--json")
    assert json.loads(result.out)["tokens"] == 512
    result = infllm("ppl", book, "--max-tokens", "many")
    assert result.code == 2
    assert "error: 'many' is not a length\nhint: write for example 4096, 32K or 1M\n" in result.err


def test_curve_picture(infllm, fakes, book, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    picture = tmp_path / "curve.svg"
    result = infllm(
        "ppl", book, "--plot", picture, "--policy", "inf-llm,origin", "--spacing", "log"
    )
    assert result.code == 0
    assert b"<svg" in picture.read_bytes()


def test_numbers_that_are_not_finite_are_null_in_json(infllm, fakes, book, monkeypatch):
    from tests.cli.fakes import Block, FakeSession

    monkeypatch.setattr(FakeSession, "nll", lambda self, ids: [Block([math.nan] * (len(ids) - 1))])
    result = infllm("ppl", book, "--json")
    assert json.loads(result.out)["perplexity"] is None
    assert "not finite" in infllm("ppl", book).out


def test_no_source(infllm):
    result = infllm("ppl")
    assert result.code == 2
    assert result.err == ("error: no source given\nhint: for example: infllm ppl corpus.txt\n")
