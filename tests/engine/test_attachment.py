"""Nothing of the model stays changed, whatever happens while it is attached."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from infllm.engine import Engine, attach
from infllm.engine.errors import UnsupportedCall, UnsupportedModel
from tests.engine.served import CHUNK, SMALL_MEMORY, assert_as_stock
from tests.engine.tiny_models import SERVED, build, ids

TEXT = torch.tensor([ids(40)])
CONFIG = {"model": SMALL_MEMORY, "chunk_size": CHUNK}


def snapshot(model: PreTrainedModel) -> dict[str, Any]:
    """All that an attachment could leave changed."""
    shape: dict[str, Any] = {
        "attention": model.config._attn_implementation,
        "functions": sorted(AttentionInterface._global_mapping),
        "masks": sorted(AttentionMaskInterface._global_mapping),
    }
    for name, module in model.named_modules():
        shape[name] = (
            type(module),
            "forward" in vars(module),
            len(module._forward_hooks),
            len(module._forward_pre_hooks),
            sorted(key for key, value in vars(module).items() if callable(value)),
        )
    return shape


def weights(model: PreTrainedModel) -> list[torch.Tensor]:
    return [x.detach().clone() for x in [*model.parameters(), *model.buffers()]]


@pytest.fixture(params=["llama", "qwen3", "gemma2", "gpt_oss"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return build(request.param, SERVED[request.param])


class Watched:
    """Asserts on leaving that the model is what it was, to the last bit of its answers."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self._shape, self._weights = snapshot(model), weights(model)
        self._answers = self._run()

    @torch.no_grad()
    def _run(self) -> list[torch.Tensor]:
        logits = self.model(TEXT).logits
        return [logits, self.model.generate(TEXT, max_new_tokens=5, do_sample=False)]

    def assert_unchanged(self) -> None:
        assert snapshot(self.model) == self._shape
        for now, before in zip(weights(self.model), self._weights, strict=True):
            assert torch.equal(now, before)
        for now, before in zip(self._run(), self._answers, strict=True):
            assert torch.equal(now, before)


def use(engine: Engine) -> None:
    session = engine.session()
    session.read(TEXT[0].tolist())
    assert list(session.generate(3))


def test_closing_restores_the_model(model: PreTrainedModel) -> None:
    watched = Watched(model)
    with attach(model, config=CONFIG) as engine:
        use(engine)
        assert snapshot(model) != watched._shape
    watched.assert_unchanged()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a fault")], ids=repr)
def test_an_error_in_the_middle_restores_the_model(
    model: PreTrainedModel, error: BaseException
) -> None:
    watched = Watched(model)

    def fault(*args: Any) -> None:
        raise error

    def interrupted() -> None:
        with attach(model, config=CONFIG) as engine:
            session = engine.session()
            session.read(TEXT[0, :20].tolist())
            hook = model.get_decoder().layers[1].register_forward_pre_hook(fault)
            try:
                session.read(TEXT[0, 20:].tolist())
            finally:
                hook.remove()

    with pytest.raises(type(error)):
        interrupted()
    watched.assert_unchanged()


def test_an_error_while_attaching_restores_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama", SERVED["llama"])
    watched = Watched(model)
    # A model whose logits differ when attached: something the engine does not serve.
    monkeypatch.setattr("infllm.engine.engine.expected_logits", lambda model: torch.ones(16, 96))
    with pytest.raises(UnsupportedModel, match="other logits"):
        attach(model, config=CONFIG)
    watched.assert_unchanged()


def test_one_attachment_after_the_other(model: PreTrainedModel) -> None:
    watched = Watched(model)
    answers = []
    for _ in range(2):
        with attach(model, config=CONFIG) as engine:
            session = engine.session()
            session.read(TEXT[0].tolist())
            answers.append([token.id for token in session.generate(6)])
        watched.assert_unchanged()
    assert answers[0] == answers[1]


@pytest.mark.parametrize("check", [True, False])
def test_an_attached_model_cannot_be_attached_again(check: bool) -> None:
    model = build("llama", SERVED["llama"])
    watched = Watched(model)
    with attach(model, config=CONFIG) as engine:
        with pytest.raises(UnsupportedCall, match="attached to another engine") as caught:
            attach(model, config=CONFIG, check=check)
        assert caught.value.hint
        use(engine)  # the first goes on undisturbed
    watched.assert_unchanged()


def test_two_models_are_attached_side_by_side() -> None:
    one, two = build("llama", SERVED["llama"]), build("qwen3", SERVED["qwen3"])
    watched = [Watched(one), Watched(two)]
    stock = [w._answers[0][0] for w in watched]
    roomy = {"model": {**SMALL_MEMORY, "n_local": 64}, "chunk_size": CHUNK}
    with attach(one, config=roomy) as a, attach(two, config=roomy) as b:
        sessions = [a.session(), b.session()]
        rows: list[list[torch.Tensor]] = [[], []]
        for start in range(0, 40, 10):  # in turns
            for i, session in enumerate(sessions):
                rows[i].append(session.score(TEXT[0, start : start + 10].tolist()))
    for got, want in zip(rows, stock, strict=True):
        assert_as_stock(torch.cat(got), want)
    for w in watched:
        w.assert_unchanged()


def test_closing_twice_is_closing_once() -> None:
    model = build("llama", SERVED["llama"])
    watched = Watched(model)
    engine = attach(model, config=CONFIG)
    engine.close()
    engine.close()
    watched.assert_unchanged()


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_the_attention_chosen_before_comes_back(implementation: str) -> None:
    model = build("llama", SERVED["llama"])
    model.set_attn_implementation(implementation)
    watched = Watched(model)
    with attach(model, config=CONFIG) as engine:
        use(engine)
    assert model.config._attn_implementation == implementation
    watched.assert_unchanged()


def test_the_default_configuration_fits_the_model() -> None:
    """No config: the published defaults, within the 512 positions that this model knows."""
    model = build("llama", SERVED["llama"])
    with attach(model) as engine:
        settings = engine.config.model
        assert settings.type == "inf-llm"
        assert settings.n_local + settings.n_init <= 512
        assert settings.kv_dtype == "fp32"
        use(engine)


def test_what_is_no_transformers_model_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="Linear"):
        attach(torch.nn.Linear(4, 4), config=CONFIG)  # type: ignore[arg-type]
