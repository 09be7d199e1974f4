"""HOMER's nodes, reductions, caches and answers equal to the recorded ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from infllm.engine import attach
from infllm.engine.attachment import LayerRanges
from infllm.engine.readers import Homer, go_on_from, plan_merges
from infllm.kernels.rotate import rotate
from tests.engine import siblings

LOGITS, REST = 1e-3, 5e-4  # tolerances of the recorded data


def rope_of(case: siblings.Case) -> dict[str, Any]:
    yarn = case.raw["yarn"]
    if yarn is None:
        return {}
    length = yarn["original_max_position_embeddings"]
    return {
        "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 10000.0, "factor": float(yarn["scale"]),
            "original_max_position_embeddings": length,
        }
    }  # fmt: skip


class Run:
    """One recorded case, run by us, with every node before its reduction."""

    def __init__(self, name: str) -> None:
        self.case = case = siblings.load(name)
        self.engine = attach(case.model(**rope_of(case)))
        attachment, config = self.engine.attachment, case.config
        pieces = [case.arrays[f"{part}_ids"].tolist() for part in ("prefix", "context", "suffix")]
        self.plan = plan_merges(
            *map(len, pieces), longest=config["max_chunk_len"], target=config["target_len"],
            n_layers=len(attachment.layers), warmup=config["layers_warmup"],
        )  # fmt: skip
        bias = load_file(siblings.FOLDER / case.raw["model"] / "bias.safetensors")["bias"]
        homer = Homer(attachment, LayerRanges(attachment), self.plan, bias)
        self.nodes: list[tuple[Any, Any, Tensor]] = []
        ids = [i for piece in pieces for i in piece]
        self.root = homer.read(ids, watch=lambda *node: self.nodes.append(node))


@pytest.fixture(scope="module", params=siblings.names("homer", "model"))
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    made = Run(request.param)
    with made.engine:
        yield made


def test_nodes_are_the_recorded_ones(run: Run) -> None:
    want = run.case.arrays
    ranges = [run.plan.layers[branch.height] for branch, _, _ in run.nodes]
    assert ranges == [tuple(pair) for pair in want["node_layers"].tolist()]
    assert [branch.target for branch, _, _ in run.nodes] == want["node_target"].tolist()
    lengths = [[len(node), len(kept)] for _, node, kept in run.nodes]
    assert lengths == want["node_len"].tolist()
    for name in ("tokens", "positions"):
        ours = torch.cat([getattr(node, name) for _, node, _ in run.nodes])
        assert ours.tolist() == want[name].tolist()


def test_what_is_kept_is_what_was_kept(run: Run) -> None:
    want = run.case.arrays
    masks = [torch.zeros(len(node)).index_fill(0, kept, 1) for _, node, kept in run.nodes]
    assert torch.cat(masks).tolist() == want["keep"].tolist()
    ours = torch.cat([node.significance for _, node, _ in run.nodes])
    known = ~want["significance"].isnan()  # where a node was reduced
    torch.testing.assert_close(ours[known], want["significance"][known], atol=REST, rtol=0)


def test_keys_values_and_logits_at_the_end(run: Run) -> None:
    want, root = run.case.arrays, run.root
    assert root.tokens.tolist() == want["final_tokens"].tolist()
    assert root.positions.tolist() == want["final_positions"].tolist()
    assert run.plan.last_position == run.case.raw["derived"]["last_position"]
    layers = sorted(root.kv)
    if len(want["cache_k"]) < len(layers):
        layers = [layers[0], layers[-1]]
    for number, layer in enumerate(layers):
        k, v = root.kv[layer]
        rope = run.engine.attachment.layers[layer].rotary.rope
        turned = rotate(k, *rope.cos_sin(root.positions), rope.layout)
        torch.testing.assert_close(turned, want["cache_k"][number], atol=REST, rtol=0)
        torch.testing.assert_close(v, want["cache_v"][number], atol=REST, rtol=0)
    torch.testing.assert_close(root.logits, want["logits"][-1], atol=LOGITS, rtol=0)


def test_the_session_behind_it_goes_on_one_position_further(run: Run) -> None:
    want = run.case.arrays
    session = run.engine.session(overrides={"type": "origin"})
    go_on_from(session, run.root, run.plan)
    other = session.fork()
    logits = other.score(want["cont_ids"].tolist())
    torch.testing.assert_close(logits, want["cont_logits"], atol=LOGITS, rtol=0)
    generated = [token.id for token in session.fork().generate(6, stop_ids=[])]
    ends = generated + want["gen_ids"].tolist()[len(generated) :]
    assert ends == want["gen_ids"].tolist()
    steps = session.score(want["gen_ids"].tolist()[:5], step=True)
    torch.testing.assert_close(steps, want["gen_logits"], atol=LOGITS, rtol=0)
