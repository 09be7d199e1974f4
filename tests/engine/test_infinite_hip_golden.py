"""InfiniteHiP against the authors' code: recorded choices and outputs of one layer.

tests/data/infinitehip/cases.json tells every field.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from infllm.engine.attachment import Call, Layer, Rotary
from infllm.engine.config import ModelConfig
from infllm.engine.policies import infinite_hip, run_policy
from infllm.engine.policies.infinite_hip import InfiniteHiP
from infllm.kernels.descent import ABSENT, INACTIVE, Intervals
from infllm.kernels.rotate import Rope

FOLDER = Path(__file__).parents[1] / "data" / "infinitehip"
CASES = {case["name"]: case for case in json.loads((FOLDER / "cases.json").read_text())["cases"]}
OUTPUT, SCORE = 1e-4, 1e-4  # tolerances of the recorded data
LAST = 64  # queries that the later code runs with a window over nearly everything


def config(case: dict[str, Any], **changes: Any) -> ModelConfig:
    given = case["config"]
    after = [stage["keep_before"] for stage in given["stages"][1:]] + [given["final_keep"]]
    stages = [
        {**{k: v for k, v in stage.items() if k != "keep_before"}, "keep": keep}
        for stage, keep in zip(given["stages"], after, strict=True)
    ]
    settings = {
        "n_init": given["sink"], "n_local": given["window"], "stages": stages, "kv_dtype": "fp32",
        "early_layers": [0] if given["prune_positions"] == "streaming" else [],
        "prune_capacity": given["capacity"], "refresh": given.get("refresh_intervals", [1]),
    }  # fmt: skip
    return ModelConfig(type="infinitehip", **{**settings, **changes})


def policy_of(case: dict[str, Any], **changes: Any) -> InfiniteHiP:
    given = case["config"]
    pairs = 0 if given["prune_positions"] == "none" else given["head_dim"] // 2
    freq = given["rope_theta"] ** (-torch.arange(pairs, dtype=torch.float64) / max(1, pairs))
    heads = given["heads"], given["kv_heads"], given["head_dim"]
    cpu = torch.device("cpu")
    layer = Layer(0, *heads, cpu, torch.float32, Rotary(Rope(freq)))
    return InfiniteHiP(config(case, **changes), layer)


@dataclass
class Trace:
    """What each call chose: descents by stage, and the chunks of each block."""

    stages: list[tuple[Intervals, Tensor, Tensor]] = field(default_factory=list)
    chosen: Tensor | None = None


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch) -> Trace:
    trace = Trace()
    plain, prune = infinite_hip.descend, InfiniteHiP._prune

    def descend(*args: Any) -> tuple[Tensor, Tensor]:
        score, token = plain(*args)
        trace.stages.append((args[2], score, token))
        return score, token

    def recorded(self: InfiniteHiP, q: Tensor) -> Tensor:
        trace.stages = []
        trace.chosen = prune(self, q)
        return trace.chosen

    monkeypatch.setattr(infinite_hip, "descend", descend)
    monkeypatch.setattr(InfiniteHiP, "_prune", recorded)
    return trace


def run(policy: InfiniteHiP, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """o [T, H, D] of rows [T, heads, D]."""
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    return run_policy(policy, q, k, v, Call(0, policy.count), q.shape[-1] ** -0.5)[0]


def take_past(policy: InfiniteHiP, k: Tensor, v: Tensor, n: int) -> None:
    """The first n tokens, whose queries are not recorded."""
    if n > 0:
        q = torch.zeros(n, policy.layer.n_heads, k.shape[-1])
        run(policy, q, k[:n], v[:n])


def check_stage(got: tuple[Intervals, Tensor, Tensor], want: dict[str, Tensor], rows: Any) -> int:
    """Active intervals, their scores and where the descents ended; how many there were."""
    intervals, score, token = got
    checked = 0
    for row in rows:
        active = want["score"][row, 0] > -32000
        mine = score[row, 0] > INACTIVE
        left = want["left"][row][active].long()
        assert torch.equal(intervals.left[row][mine], left)
        assert (want["right"][row][active] - left == intervals.size).all()
        torch.testing.assert_close(
            score[row][:, mine], want["score"][row][:, active], atol=SCORE, rtol=0
        )
        assert torch.equal(token[row][:, mine], want["rep"][row][:, active].long())
        checked += int(active.sum())
    return checked


def check_chosen(chosen: Tensor, want: Tensor, count: Tensor) -> None:
    assert torch.equal(chosen[chosen < ABSENT], want[: int(count)].long())


def stage_of(arrays: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: arrays[f"{prefix}_{name}"] for name in ("left", "right", "rep", "score")}


PREFILLS = [name for name, case in CASES.items() if case["kind"] == "prefill"]
DECODES = [name for name, case in CASES.items() if case["kind"] == "decode"]


def test_all_cases_are_run() -> None:
    assert {*PREFILLS, *DECODES, "prefill_last64"} == CASES.keys()
    assert {f"{name}.safetensors" for name in CASES} == {p.name for p in FOLDER.glob("*.safe*")}


def check_prefill(
    trace: Trace, arrays: dict[str, Tensor], prefix: str, o: Tensor, case: dict[str, Any]
) -> None:
    defined = arrays[f"{prefix}defined"].bool()
    stages = case["config"]["stages"]
    block = stages[-1]["query_block"]
    checked = 0
    for i, stage in enumerate(stages):
        # Of split blocks the marks are those of the last stage's.
        share = stage["query_block"] // block
        rows = [e for e in range(-(-len(defined) // share)) if defined[e * share :][:share].all()]
        want = stage_of(arrays, f"{prefix}stage{i}")
        checked += check_stage(trace.stages[i], want, rows)
    assert checked > 10
    assert trace.chosen is not None
    for e in defined.nonzero()[:, 0].tolist():
        selected, count = arrays[f"{prefix}selected"][e], arrays[f"{prefix}selected_count"][e]
        check_chosen(trace.chosen[e], selected, count)
        span = slice(e * block, (e + 1) * block)
        torch.testing.assert_close(o[span], arrays[f"{prefix}o"][span], atol=OUTPUT, rtol=0)


@pytest.mark.parametrize("name", PREFILLS)
def test_prefill_is_that_of_the_authors(name: str, trace: Trace) -> None:
    case, arrays = CASES[name], load_file(FOLDER / f"{name}.safetensors")
    policy, n = policy_of(case), case["first_position"]
    take_past(policy, arrays["k"], arrays["v"], n)
    o = run(policy, arrays["q"], arrays["k"][n:], arrays["v"][n:])
    check_prefill(trace, arrays, "", o, case)


@pytest.mark.parametrize("name", DECODES)
def test_decode_steps_are_those_of_the_authors(name: str, trace: Trace) -> None:
    case, arrays = CASES[name], load_file(FOLDER / f"{name}.safetensors")
    policy, n = policy_of(case), case["first_position"]
    take_past(policy, arrays["k"], arrays["v"], n)
    for t in range(case["queries"]):
        row = slice(n + t, n + t + 1)
        o = run(policy, arrays["q"][t : t + 1], arrays["k"][row], arrays["v"][row])
        n_stages = len(case["config"]["stages"])
        first = int(arrays["first_stage_run"][t])
        assert len(trace.stages) == n_stages - first
        for i, got in enumerate(trace.stages, start=first):
            assert check_stage(got, stage_of(arrays, f"step{t}_stage{i}"), [0]) > 0
        assert trace.chosen is not None
        check_chosen(trace.chosen[0], arrays["selected"][t], arrays["selected_count"][t])
        torch.testing.assert_close(o[0], arrays["o"][t], atol=OUTPUT, rtol=0)


def test_last_queries_wide(trace: Trace) -> None:
    """The later code's wide last queries are another window, and no pruning."""
    case, arrays = CASES["prefill_last64"], load_file(FOLDER / "prefill_last64.safetensors")
    q, k, v = (arrays[name] for name in "qkv")
    policy = policy_of(case)
    n = len(q) - LAST
    o = run(policy, q[:n], k[:n], v[:n])
    check_prefill(trace, arrays, "sparse_", o, case)
    wide = policy_of(case, n_local=case["derived"]["wide_window"])
    take_past(wide, k, v, n)
    o = run(wide, q[n:], k[n:], v[n:])
    assert trace.chosen is not None
    assert (trace.chosen == ABSENT).all()
    torch.testing.assert_close(o, arrays["last_o"], atol=OUTPUT, rtol=0)
