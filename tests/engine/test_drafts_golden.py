"""Windows, pools, accepted tokens and drafts equal to the recorded ones.

tests/data/drafts/cases.json tells every field.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from infllm.engine import Engine, Session, attach
from infllm.engine.drafts import DocumentDrafts, Lookahead, SuffixArray, Tree

FOLDER = Path(__file__).parents[1] / "data" / "drafts"
CASES = {case["name"]: case for case in json.loads((FOLDER / "cases.json").read_text())["cases"]}
LOOKUPS = json.loads((FOLDER / "prompt_lookup.json").read_text())
LOGITS = 1e-4  # tolerance of the recorded data


def engine_of(model: str) -> Engine:
    loaded = AutoModelForCausalLM.from_pretrained(FOLDER / model, dtype=torch.float32)
    return attach(loaded, config={"model": {"type": "origin"}})


class Watched(Lookahead):
    """Notes what each step was given and learnt."""

    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **how)
        self.steps: list[dict[str, Any]] = []

    def propose(self, room: int, seen: Any = ()) -> Tree | None:
        rows, guesses, entries = list(self.rows), self.candidates(), self.pool.entries()
        tree = super().propose(room, seen)
        self.steps.append({"rows": rows, "guesses": guesses, "pool": entries, "tree": tree})
        return tree

    def learn(self, tree: Tree, logits: Tensor) -> None:
        self.steps[-1] |= {"new": logits[self._columns].argmax(-1), "current": logits[0]}
        super().learn(tree, logits)


def emitted(
    session: Session, drafts: Watched, last: int, n: int, stop: set[int]
) -> list[list[int]]:
    """Greedy tokens by step, from a session whose last token of the prompt waits."""
    found: list[list[int]] = []
    session._pending = [last]
    steps = 0
    while sum(map(len, found)) < n:
        session._feed(drafts, 2**20, [])
        assert session._last_logits is not None
        token = int(session._last_logits.argmax())
        session._pending = [token]
        drafts.take(token)
        if len(drafts.steps) > steps:
            found.append([])
            steps = len(drafts.steps)
        found[-1].append(token)
        if token in stop:
            break
    return found


def padded(rows: Tensor) -> list[list[int]]:
    return [[int(t) for t in row if t >= 0] for row in rows if (row >= 0).any()]


@pytest.mark.parametrize("name", CASES)
def test_every_step_is_the_recorded_one(name: str) -> None:
    case, want = CASES[name], load_file(FOLDER / CASES[name]["file"])
    given = case["config"]
    prompt = want["prompt_ids"].tolist()
    drafts = Watched(
        prompt, width=given["W"], length=given["N"], candidates=given["G"],
        from_prompt=given["pool_from_prompt"], seed=given["window_seed"],
    )  # fmt: skip
    assert drafts.rows == [want["window_init"].tolist()]
    eos = given["eos_token_id"]
    with engine_of(case["model"]) as engine:
        session = engine.session()
        session.read(prompt[:-1])
        session.end()
        runs = emitted(
            session, drafts, prompt[-1], given["max_new_tokens"], set() if eos is None else {eos}
        )
    said = [token for run in runs for token in run]
    assert prompt + said == want["output_ids"].tolist()
    counts = want["emitted_per_step"].tolist()
    assert list(map(len, runs[:-1])) == counts[:-1]
    assert len(runs[-1]) <= counts[-1]  # which may go beyond what was asked for
    guesses = want["guesses_flat"].split(want["guesses_per_step"].tolist())
    for i, step in enumerate(drafts.steps):
        assert step["rows"] == padded(want["window"][i]), i
        assert step["new"].tolist() == want["new_row"][i][want["new_row"][i] >= 0].tolist(), i
        assert [list(guess) for guess in step["guesses"]] == guesses[i].tolist(), i
        torch.testing.assert_close(step["current"], want["logits_current"][i], atol=LOGITS, rtol=0)
        if f"pool_before_step_{i}" in want:
            pool = want[f"pool_before_step_{i}"].tolist()
            assert [list(entry) for entry in step["pool"]] == pool, i
        if f"step_{i}_tokens" in want:
            assert_layout(step["tree"], want, i, len(prompt) - 1 + sum(counts[:i]))


def assert_layout(tree: Tree, want: dict[str, Tensor], step: int, position: int) -> None:
    """Tokens, positions, and what each attends; candidates that begin alike are one branch here."""
    tokens, places = want[f"step_{step}_tokens"].tolist(), want[f"step_{step}_positions"].tolist()
    seen = want[f"step_{step}_mask"].bool()
    window = len(tree.tokens) - len(tree.guesses)
    assert tree.tokens[:window] == tokens[:window]
    depths = tree.depths()
    assert [position + depth for depth in depths[:window]] == places[:window]
    paths = [path(tree, node) for node in range(len(tree.tokens))]
    for node in range(window):
        assert set(paths[node]) == set(seen[node].nonzero()[:, 0].tolist())
    spelled = {tuple(tree.tokens[n] for n in paths[node]) for node in tree.guesses}
    recorded = {
        tuple(tokens[n] for n in seen[node].nonzero()[:, 0].tolist())
        for node in range(window, len(tokens))
    }
    assert spelled == recorded


def path(tree: Tree, node: int) -> list[int]:
    found = [node]
    while tree.parents[found[-1]] >= 0:
        found.append(tree.parents[found[-1]])
    return found[::-1]


# ---- drafts from the text -----------------------------------------------------------------------


@pytest.mark.parametrize("case", LOOKUPS["draft"], ids=range(len(LOOKUPS["draft"])))
def test_the_longest_match_is_found_in_what_is_recent(case: dict[str, Any]) -> None:
    want, n = case["longest_suffix"], case["num_tokens"]
    drafts = DocumentDrafts(None, case["ids"], first=n, most=n, least=1, growth=n)
    assert drafts.draft(n) == (want["draft"] if want else [])


@pytest.mark.parametrize("trace", LOOKUPS["traces"], ids=range(len(LOOKUPS["traces"])))
def test_answers_with_drafts_are_the_recorded_greedy_ones(trace: dict[str, Any]) -> None:
    prompt, n = trace["prompt_ids"], trace["max_new_tokens"]
    with engine_of(trace["model"]) as engine:
        session = engine.session()
        session.read(prompt)
        drafts = DocumentDrafts(SuffixArray.of(prompt), [])
        said = [token.id for token in session.generate(n, drafts=drafts)]
        assert prompt + said == trace["output_ids"][: len(prompt) + len(said)]
        assert len(said) == len(trace["output_ids"]) - len(prompt)
