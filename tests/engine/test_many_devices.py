"""A model spread over several devices: each layer's memory is where the layer is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from torch import Tensor

from infllm.engine import Engine, Session, attach
from infllm.engine.attachment import load_parts, loading
from infllm.engine.config import ModelConfig
from tests.engine.many_devices import Labels, spread, where
from tests.engine.served import CHUNK, POLICIES, SMALL_MEMORY
from tests.engine.tiny_models import SERVED, build, ids

FIRST, SECOND = torch.device("cuda:0"), torch.device("cuda:1")
PLACES = {
    "model.embed_tokens": FIRST, "model.rotary_emb": FIRST, "model.layers.0": FIRST,
    "model.layers.1": SECOND, "model.norm": SECOND, "lm_head": SECOND,
}  # fmt: skip
VARIANTS: list[dict[str, Any]] = [
    *({"type": name} for name in POLICIES),
    {"perhead": True},
    {"repr_score": "dot", "kv_dtype": "int8"},
    {"far_position": "exact", "unit_score": "moments"},
    {"unit_score": "keys", "cache_strategy": "lru-s"},
    {"type": "infinitehip", "prune_keys": "int8"},
]
OFF_DEVICE = {"model.layers.1": "disk", "lm_head": "cpu"}  # and between passes nowhere


def engine_on(places: dict[str, torch.device], **variant: Any) -> Engine:
    model = build("llama", SERVED["llama"])
    spread(model, places)
    return attach(model, config={"model": {**SMALL_MEMORY, **variant}, "chunk_size": CHUNK})


def outputs(session: Session) -> list[Tensor]:
    """Logits of a document, a question and steps, losses of a fork, and generated ids."""
    rows = [session.score(ids(90))]
    fork = session.fork()
    rows += [session.score(ids(9, seed=2)), session.score(ids(4, seed=3), step=True)]
    rows += [*fork.nll(ids(20, seed=5))]
    rows.append(torch.tensor([token.id for token in session.generate(4, units=True)]))
    return [x.cpu() for x in rows]


@pytest.fixture(autouse=True)
def labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFLLM_KERNELS", "torch")


@pytest.mark.filterwarnings("ignore:User provided device_type")
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_two_devices_give_the_numbers_of_one(variant: dict[str, Any], tmp_path: Path) -> None:
    with Labels():
        with engine_on(dict.fromkeys(PLACES, FIRST), **variant) as engine:
            want = outputs(engine.session())
        with engine_on(PLACES, **variant) as engine:
            assert [layer.device for layer in engine.attachment.layers] == [FIRST, SECOND]
            assert engine.not_recorded == "the model is spread over several devices"
            got = outputs(engine.session())
            session = engine.session()
            session.read(ids(90))
            session.end()
            session.save(tmp_path / "memory")
            opened = engine.open(tmp_path / "memory")
            restored = opened.score(ids(9, seed=2)).cpu()
            for of in (session, opened):
                for policy in of.policies.values():
                    kept = [getattr(policy, name, None) for name in policy.KEPT]
                    there = {where(x) for x in kept if isinstance(x, Tensor) and x.ndim}
                    assert there <= {policy.layer.device}
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    assert torch.equal(restored, want[1])


def test_tensors_of_two_devices_do_not_mix() -> None:
    with Labels():
        a, b = torch.ones(3, device=FIRST), torch.ones(3, device=SECOND)
        assert torch.equal((a + b.to(FIRST)).cpu(), torch.full((3,), 2.0))
        with pytest.raises(RuntimeError, match="cuda:0"):
            a + b


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("embeddings", ["cpu", "disk"])
def test_weights_that_are_off_the_device_between_passes(embeddings: str, tmp_path: Path) -> None:
    model = build("llama", SERVED["llama"])
    config = {"model": SMALL_MEMORY, "chunk_size": CHUNK}
    with attach(model, config=config) as engine:
        want, digest = outputs(engine.session()), engine.digests
    places = {**dict.fromkeys(PLACES, "cpu"), "model.embed_tokens": embeddings, **OFF_DEVICE}
    accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=str(tmp_path))
    assert any(p.is_meta for p in model.parameters())
    with attach(model, config=config) as engine:
        assert all(torch.equal(a, b) for a, b in zip(outputs(engine.session()), want, strict=True))
        assert engine.digests == digest


@pytest.mark.parametrize(
    ("free", "device", "devices", "asked"),
    [
        (1, "auto", 2, "auto"),
        (2**40, "auto", 2, None),
        (1, "cuda:1", 2, None),
        (1, "auto", 1, None),
    ],
)
def test_a_model_too_large_for_one_of_several_gpus_is_spread(
    free: int, device: str, devices: int, asked: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Loaded(Exception):
        pass

    def load(path: str, revision: Any, **arguments: Any) -> None:
        raise Loaded(arguments.get("device_map"))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, free))
    monkeypatch.setattr(loading, "_from_pretrained", load)
    path = str(Path(__file__).parents[2] / "presets" / "pocket")
    with pytest.raises(Loaded) as told:
        load_parts(ModelConfig(path=path, device=device, dtype="float32"))
    assert told.value.args == (asked,)


@pytest.mark.pinned
def test_heads_that_processes_split_choose_units_together(tmp_path: Path) -> None:
    build("llama", SERVED["llama"]).save_pretrained(tmp_path / "model")
    command = [sys.executable, "-W", "ignore", "-m", "tests.engine.split_heads"]
    root = Path(__file__).parents[2]
    ranks = [
        subprocess.Popen([*command, rank, tmp_path], cwd=root, stdout=subprocess.PIPE, text=True)
        for rank in "01"
    ]
    told = [rank.communicate(timeout=120)[0] for rank in ranks]
    for rank, out in zip(ranks, told, strict=True):
        assert rank.returncode == 0
        found = json.loads(out.splitlines()[-1])
        assert found["heads"] == [4, 2]
        assert max(found["errors"]) < 1e-4
        assert found["hip"]
        assert found["file"]
        assert found["not_recorded"] == "the model is split over several processes"
