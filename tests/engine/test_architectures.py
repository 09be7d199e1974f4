"""Any decoder with rotary attention is served, found by probing; what cannot be is named."""

from __future__ import annotations

import pytest
import torch

from infllm.engine import attach
from infllm.engine.errors import UnsupportedModel
from tests.engine.tiny_models import REFUSED, SERVED, build, ids

# Everything fits: no token leaves the window.
ROOMY = {
    "model": {
        "type": "inf-llm", "n_init": 4, "n_local": 64, "block_size": 8, "topk": 4, "repr_topk": 2,
        "exc_block_size": 16,
    },
    "chunk_size": 32,
}  # fmt: skip


@pytest.mark.parametrize("kind", SERVED)
def test_served_as_stock(kind: str) -> None:
    model = build(kind, SERVED[kind])
    tokens = ids(60)
    with torch.no_grad():
        stock = model(torch.tensor([tokens])).logits[0]
        assert stock.std() > 1e-3
    implementation = model.config._attn_implementation
    with attach(model, config=ROOMY, check=False) as engine:
        for policy in ("inf-llm", "origin", "stream-lm"):
            session = engine.session(overrides={"type": policy})
            session.read(tokens[:40])
            session.end()
            got = session.score(tokens[40:55])
            step = session.score(tokens[55:], step=True)
            torch.testing.assert_close(
                torch.cat([got, step]), stock[40:], atol=1e-4 * float(stock.abs().max()), rtol=0
            )
    assert model.config._attn_implementation == implementation
    with torch.no_grad():
        assert torch.equal(model(torch.tensor([tokens])).logits[0], stock)


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_by_name(kind: str) -> None:
    settings, reason = REFUSED[kind]
    model = build(kind, settings)
    before = dict(vars(model.config))
    with pytest.raises(UnsupportedModel, match=reason) as caught:
        attach(model, config=ROOMY)
    assert type(model).__name__ in caught.value.message
    assert model.config._attn_implementation == before["_attn_implementation_internal"]
    with torch.no_grad():
        model(torch.tensor([ids(8)]))  # still works as before
