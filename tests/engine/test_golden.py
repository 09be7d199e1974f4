"""Output equal to the published code's, within the tolerances recorded beside the data."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from infllm.engine import attach
from infllm.engine.attachment import Call, Layer, Rotary
from infllm.engine.policies import InfLLM, make_policy, run_policy
from infllm.engine.policies.lookup_scores import Lookup
from infllm.engine.policies.representatives import Cut
from infllm.kernels.attend import attend
from infllm.kernels.rotate import Rope
from tests.engine import golden

THETA = 10000.0


def attention_layer(case: golden.Case) -> Layer:
    freq = THETA ** (-torch.arange(8, dtype=torch.float64) / 8) * case.config.distance_scale
    return Layer(0, 4, 2, 16, torch.device("cpu"), torch.float32, Rotary(Rope(freq)))


def assert_lookups(lookups: list[Lookup], case: golden.Case, layer: int | None = None) -> None:
    """Every recorded lookup happened, over the same units, with the same choice."""
    wanted = case.arrays["selected"]
    wanted = wanted if layer is None else wanted[layer]
    by_span = {(look.start, look.stop): look for look in lookups}
    spans = case.arrays["lookup_spans"].tolist()
    assert set(by_span) == {(start, stop) for start, stop, n_units in spans if n_units}
    for (start, stop, n_units), rows in zip(spans, wanted.tolist(), strict=True):
        if n_units == 0:
            continue
        look = by_span[start, stop]
        assert look.n_units == n_units
        chosen = look.chosen[0].expand(len(rows), -1).tolist()
        assert chosen == [[unit for unit in row if unit >= 0] for row in rows]


@pytest.mark.parametrize("name", golden.names("attention"))
def test_attention_level(name: str) -> None:
    case = golden.load(name)
    inputs = load_file(golden.FOLDER / "attention" / f"{case.source}.inputs.safetensors")
    policy = make_policy(case.config, attention_layer(case))
    if isinstance(policy, InfLLM):
        policy.record = []
    outputs = []
    for span in case.calls:
        q, k, v = (inputs[x][:, :, span] for x in "qkv")
        outputs.append(run_policy(policy, q, k, v, Call(0, span.start), scale=16**-0.5))
    o = torch.cat(outputs, dim=1).transpose(1, 2)
    torch.testing.assert_close(o, case.arrays["o"], atol=5e-5, rtol=0)
    if not isinstance(policy, InfLLM):
        return
    assert policy.record is not None
    assert_lookups([x for x in policy.record if isinstance(x, Lookup)], case)
    cuts = [x for x in policy.record if isinstance(x, Cut)]
    size = case.config.block_size
    starts = [c.first + i * size for c in cuts for i in range(c.score.shape[2])]
    assert starts == case.arrays["block_start"].tolist()

    def by_unit(tensors: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat([x[0] for x in tensors], dim=1).transpose(0, 1)

    scores = by_unit([c.score for c in cuts])
    torch.testing.assert_close(scores, case.arrays["repr_scores"], atol=2e-5, rtol=0)
    offsets = by_unit([c.representatives for c in cuts]).sort(dim=-1).values
    positions = offsets + torch.tensor(starts)[:, None, None]
    assert torch.equal(positions.int(), case.arrays["repr_positions"].int())
    vectors = by_unit([c.vector for c in cuts])
    torch.testing.assert_close(vectors, case.arrays["block_repr_key"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", golden.names("attention"))
def test_lookup_scores(name: str) -> None:
    case = golden.load(name)
    if "lookup_scores" not in case.arrays:
        assert case.config.type != "inf-llm"
        return
    inputs = load_file(golden.FOLDER / "attention" / f"{case.source}.inputs.safetensors")
    policy = make_policy(case.config, attention_layer(case))
    assert isinstance(policy, InfLLM)
    spans = iter(case.arrays["lookup_spans"].tolist())
    wanted = iter(case.arrays["lookup_scores"])
    for span in case.calls:
        q, k, v = (inputs[x][:, :, span] for x in "qkv")
        policy.begin(q, k, v, Call(0, span.start))
        length = span.stop - span.start
        for start in range(0, length, policy.query_block):
            stop = min(start + policy.query_block, length)
            _, _, n_units = next(spans)
            row = next(wanted)
            if n_units:
                scores = policy.unit_scores.of(start // policy.query_block, n_units)[0]
                torch.testing.assert_close(scores, row[:, :n_units], atol=2e-4, rtol=0)
            _, masses = attend(policy.parts(start, stop), 16**-0.5)
            policy.update(start, stop, masses)
        policy.end()


@pytest.mark.parametrize("name", golden.names("model"))
def test_model_level(name: str) -> None:
    case = golden.load(name)
    model = AutoModelForCausalLM.from_pretrained(
        golden.FOLDER / "models" / case.source, dtype=torch.float32
    )
    settings = case.config.model_dump(exclude={"path", "device", "dtype"})
    with attach(model, config={"model": settings}) as engine:
        session = engine.session()
        recorded = [p for p in session.policies.values() if isinstance(p, InfLLM)]
        for policy in recorded:
            policy.record = []
        ids = case.arrays["input_ids"].tolist()
        rows = []
        for span in case.calls:
            rows.append(session.score(ids[span], step=span.stop - span.start == 1))
        logits = torch.cat(rows)
    torch.testing.assert_close(logits, case.arrays["logits"], atol=1e-3, rtol=0)
    for index, policy in enumerate(recorded):
        assert policy.record is not None
        lookups = [x for x in policy.record if isinstance(x, Lookup)]
        assert_lookups(lookups, case, layer=index)


def test_every_case_is_run() -> None:
    assert len(golden.names("attention")) == 10
    assert len(golden.names("model")) == 17
