"""`infllm passkey`: documents of exact length, one table, JSON, a picture."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infllm.cli.errors import UsageError
from infllm.cli.tasks.lengths import length_name, parse_depths, parse_length
from infllm.cli.tasks.passkey import FILLER, Case, Haystack, first_number, plan_cases
from infllm.engine.errors import OutOfMemory
from tests.cli.fakes import FakeSession, FakeTokenizer


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("4096", 4096), ("32K", 32768), ("32k", 32768), ("1M", 1_048_576), ("1.5K", 1536)],
)
def test_lengths(text, tokens):
    assert parse_length(text) == tokens


@pytest.mark.parametrize("text", ["", "K", "-1", "0", "1G", "1e3", "ten"])
def test_no_lengths(text):
    with pytest.raises(UsageError):
        parse_length(text)


def test_length_names():
    assert [length_name(n) for n in (1_048_576, 32768, 1000)] == ["1M", "32K", "1,000"]


def test_depths():
    assert parse_depths("0, 25%,100") == [0, 25, 100]
    for wrong in ("", "101", "-1", "half"):
        with pytest.raises(UsageError):
            parse_depths(wrong)


def test_depths_are_spread_evenly_over_the_trials():
    cases = plan_cases([4096, 8192], [], 5, 5, seed=0)
    assert [case.depth for case in cases] == [0, 25, 50, 75, 100] * 2
    assert [case.depth for case in plan_cases([4096], [], 1, 5, seed=0)] == [50]
    assert [case.depth for case in plan_cases([4096], [10, 20], 3, 5, seed=0)] == [10, 20, 10]


def test_a_case_depends_on_its_own_length_and_number_alone():
    few = plan_cases([4096], [], 2, 5, seed=3)
    many = plan_cases([1024, 4096], [], 4, 5, seed=3)
    assert [case.key for case in few] == [case.key for case in many if case.length == 4096][:2]
    assert all(re.fullmatch("[1-9][0-9]{4}", case.key) for case in many)


@given(st.integers(80, 3000), st.floats(0, 100), st.integers(0, 40))
def test_documents_are_of_exact_length_and_whole_sentences_surround_the_key(length, depth, around):
    tokenizer = FakeTokenizer()
    haystack = Haystack(tokenizer)
    ids = haystack.document(Case(length, depth, 0, "12345"), around)
    assert len(ids) + around == length
    text = tokenizer.decode(ids)
    needle = " The pass key is 12345. Remember it. 12345 is the pass key."
    assert text.count(needle) == 1
    before, after = text.split(needle)
    assert before.rstrip()[-1] == "."
    assert after == "" or after.startswith((" The", " Here"))


def test_the_key_is_at_its_depth():
    tokenizer = FakeTokenizer()
    haystack = Haystack(tokenizer)
    for depth in (0, 30, 70, 100):
        text = tokenizer.decode(haystack.document(Case(4000, depth, 0, "12345"), 0))
        share = text.index("The pass key") / len(text)
        assert share == pytest.approx(depth / 100, abs=0.05)


def test_any_text_can_be_the_filler():
    tokenizer = FakeTokenizer()
    haystack = Haystack(tokenizer, "First line\nSecond line! Third one? Yes")
    for depth in range(0, 101, 10):
        ids = haystack.document(Case(200, depth, 0, "7"), 0)
        before = tokenizer.decode(ids).split(" The pass key")[0]
        assert before.endswith(("line", "line!", "one?", "Yes", "there.\n\n", "there."))
    with pytest.raises(UsageError):
        Haystack(tokenizer, "  ")


def test_a_length_too_short_for_the_key():
    with pytest.raises(UsageError, match="too short"):
        Haystack(FakeTokenizer(), FILLER).document(Case(10, 50, 0, "12345"), 5)


@pytest.mark.parametrize(
    ("text", "number"),
    [("12345", "12345"), ("It is 77.", "77"), (" none ", "none"), ("", "")],
)
def test_first_number(text, number):
    assert first_number(text) == number


def test_table_off_a_terminal(infllm, fakes):
    result = infllm("passkey", "--len", "1K,2K", "--trials", 3, "--policy", "inf-llm,stream-lm")
    assert result.code == 0
    assert result.out == (
        "policy       1K    2K   all  right\n"
        "inf-llm    100%  100%  100%    6/6\n"
        "stream-lm   33%   33%   33%    2/6\n"
    )
    assert result.err == (
        "1K = 1,024 tokens, 2K = 2,048 tokens; read 18,432 tokens in T (R tok/s), peak memory M\n"
    )


def test_json(infllm, fakes):
    result = infllm(
        "passkey", "--len", 1024, "--depth", "0,50,100", "--policy", "inf-llm,stream-lm", "--json"
    )
    fields = json.loads(result.out)
    assert (fields["schema"], fields["command"]) == (1, "passkey")
    assert fields["accuracy"] == 1.0
    assert {name: by["accuracy"] for name, by in fields["by_policy"].items()} == {
        "inf-llm": 1.0,
        "stream-lm": pytest.approx(1 / 3),
    }
    assert len(fields["trials"]) == 6
    for trial in fields["trials"]:
        assert {"length", "depth", "policy", "expected", "got", "correct", "seconds"} <= set(trial)
        assert trial["tokens"] == 1024
        assert trial["correct"] == (trial["got"] == trial["expected"])
    by_policy = [[t["expected"] for t in fields["trials"] if t["policy"] == p]
                 for p in ("inf-llm", "stream-lm")]  # fmt: skip
    assert by_policy[0] == by_policy[1]


def test_same_seed_same_keys(infllm, fakes):
    def keys(seed):
        out = infllm("passkey", "--len", "1K", "--seed", seed, "--trials", 2, "--json").out
        return [trial["expected"] for trial in json.loads(out)["trials"]]

    assert keys(1) == keys(1) != keys(2)


def test_heatmap(infllm, fakes, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    picture = tmp_path / "needles.png"
    result = infllm(
        "passkey", "--len", "1K,2K", "--trials", 3, "--policy", "inf-llm,origin,stream-lm",
        "--plot", picture,
    )  # fmt: skip
    assert result.code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"drew {picture}\n" in result.raw_err


def test_plot_without_matplotlib_is_told_before_the_run(infllm, fakes, monkeypatch, tmp_path):
    monkeypatch.setattr("infllm.cli.plots.find_spec", lambda name: None)
    result = infllm("passkey", "--len", "1K", "--plot", tmp_path / "x.png")
    assert result.code == 1
    assert result.err == ("error: --plot needs matplotlib\nhint: pip install 'infllm[plot]'\n")
    assert not fakes.engines


def test_plot_into_a_missing_folder(infllm, fakes):
    result = infllm("passkey", "--len", "1K", "--plot", "nowhere/x.png")
    assert (result.code, fakes.engines) == (2, [])


def test_ctrl_c_keeps_the_trials_that_were_done(infllm, fakes):
    def interrupt(engine):
        engine.interrupt_reading_at = 1100

    fakes.prepare = interrupt
    result = infllm("passkey", "--len", "1K,2K")
    assert result.code == 130
    assert result.out == "policy     1K   all  right\ninf-llm  100%  100%    1/1\n"
    assert result.err.endswith(
        "warning: interrupted after 1 of 2 trials; "
        "the results above are of the trials that were done\n"
    )
    result = infllm("passkey", "--len", "2K")
    assert (result.code, result.out) == (130, "")


def test_out_of_memory_keeps_the_trials_that_were_done(infllm, fakes, monkeypatch):
    def read(self, ids):
        if self.policy == "origin":
            raise OutOfMemory("out of memory on cuda:0 at token 900", "lower chunk_size")
        self.given.extend(ids)

    monkeypatch.setattr(FakeSession, "read", read)
    result = infllm("passkey", "--len", "1K", "--policy", "inf-llm,origin", "--json")
    assert result.code == 6
    fields = json.loads(result.out)
    assert (fields["complete"], len(fields["trials"])) == (False, 1)
    assert "warning: out of memory on cuda:0 at token 900; the results above" in result.raw_err


def test_unknown_policy(infllm, fakes):
    result = infllm("passkey", "--policy", "inf-lm")
    assert result.code == 2
    assert result.err == "error: unknown policy 'inf-lm'\nhint: did you mean 'inf-llm'?\n"
