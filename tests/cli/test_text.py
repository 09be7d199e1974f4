"""Text on its way out: stop texts, trimming, control characters, numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infllm.cli import text
from infllm.cli.tables import Table
from infllm.cli.tasks.answer import StopTexts, Trimmed

cuts = st.lists(st.text("ab \n", max_size=4), max_size=12)


@given(cuts, st.lists(st.text("ab ", min_size=1, max_size=3), max_size=3))
def test_stop_texts_do_not_depend_on_the_pieces(pieces, stops):
    whole = "".join(pieces)
    found = [at for at in map(whole.find, stops) if at >= 0]
    # Pieces may end a stop text before one that began earlier is complete: the first complete wins.
    ends = [(whole.find(stop) + len(stop), whole.find(stop)) for stop in stops if stop in whole]
    stopper = StopTexts(stops)
    given_out = "".join(stopper.push(piece) for piece in pieces) + stopper.flush()
    assert stopper.stopped == bool(found)
    if not found:
        assert given_out == whole
    else:
        assert whole.startswith(given_out)
        assert len(given_out) in {start for _, start in ends}


@given(cuts)
def test_trimmed_is_strip(pieces):
    trimmed = Trimmed()
    assert "".join(trimmed.push(piece) for piece in pieces) == "".join(pieces).strip()


@given(st.text())
def test_clean_keeps_everything_but_controls(value):
    cleaned = text.clean(value)
    assert not any(ord(c) < 32 and c not in "\n\t" for c in cleaned)
    assert not any(127 <= ord(c) < 160 for c in cleaned)
    kept = "".join(c for c in value if c in "\n\t" or not (ord(c) < 32 or 127 <= ord(c) < 160))
    assert cleaned == kept


@pytest.mark.parametrize(
    ("n_bytes", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (4_190_000, "4.19 MB"), (137e9, "137 GB"),
     (2.5e12, "2.5 TB")],
)  # fmt: skip
def test_sizes(n_bytes, shown):
    assert text.size(n_bytes) == shown


@pytest.mark.parametrize(
    ("duration", "shown"),
    [(0.421, "0.42 s"), (93.14, "93.1 s"), (725, "12 min 5 s"), (7380, "2 h 3 min")],
)
def test_seconds(duration, shown):
    assert text.seconds(duration) == shown


def test_plain_table():
    table = Table(["name", "tokens"], [["a\x1b[1m", "1"], ["long name", "1,000"]])
    assert table.plain() == "name       tokens\na[1m            1\nlong name   1,000"


def test_plurals():
    assert [text.plural(n, "policy") for n in (0, 1, 2)] == ["0 policies", "1 policy", "2 policies"]
    assert text.plural(1200, "file") == "1,200 files"
