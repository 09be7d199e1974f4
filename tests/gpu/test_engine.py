"""The engine on a GPU gives what it gives on a CPU, and what the published code gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from infllm.engine import Session, attach
from infllm.engine.attachment import Call, Layer, Rotary
from infllm.engine.policies import make_policy, run_policy
from infllm.kernels.rotate import Rope
from tests.engine import golden
from tests.engine.served import CHUNK, POLICIES, SMALL_MEMORY, VARIANTS
from tests.engine.test_golden import THETA
from tests.engine.tiny_models import SERVED, build, ids
from tests.kernels.parts import rms_error

TEXT, QUESTION = ids(150), ids(11, seed=7)
WAYS = [*VARIANTS, {"cache_strategy": "lru-s"}, {"keep_units": True}]


def attached(device: torch.device, kind: str = "llama", dtype: torch.dtype = torch.float32) -> Any:
    """An engine around a tiny model: the same weights on every device."""
    model = build(kind, SERVED[kind]).to(device=device, dtype=dtype)
    if kind == "gpt_oss" and device.type == "cuda":
        # In float32 torch computes experts in groups whose sizes it asks of the device, which no
        # capture allows; in bfloat16 it does not.
        model.set_experts_implementation("batched_mm")
    return attach(model, config={"model": SMALL_MEMORY, "chunk_size": CHUNK}, check=False)


def read(session: Session) -> torch.Tensor:
    """Logits of a document and a question, and of steps after them."""
    rows = [session.score(TEXT), session.score(QUESTION), session.score(ids(5, seed=3), step=True)]
    return torch.cat(rows).cpu()


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2", "phi", "gpt_oss"])
@pytest.mark.parametrize("policy", POLICIES)
def test_logits_are_those_of_the_cpu(device, kind: str, policy: str) -> None:
    with attached(torch.device("cpu"), kind) as engine:
        want = read(engine.session(overrides={"type": policy}))
    with attached(device, kind) as engine:
        got = read(engine.session(overrides={"type": policy}))
    assert rms_error(got, want) < 1e-4


def test_keys_for_pruning_beyond_their_bound_are_on_the_host(cuda) -> None:
    overrides = {"type": "infinitehip", "prune_keys": "int8"}
    with attached(cuda) as engine:
        there, moved = (
            engine.session(overrides={**overrides, "prune_bound": bound}) for bound in (10_000, 64)
        )
        assert rms_error(read(moved), read(there)) < 1e-4
        assert moved.stats.device_bytes < there.stats.device_bytes
        assert moved.stats.host_bytes > there.stats.host_bytes


@pytest.mark.parametrize("variant", WAYS, ids=str)
def test_every_way_of_keeping_units(device, variant: dict[str, Any]) -> None:
    with attached(torch.device("cpu")) as engine:
        want = read(engine.session(overrides=variant))
    with attached(device) as engine:
        got = read(engine.session(overrides=variant))
    assert rms_error(got, want) < 1e-4


RECORDED = [
    {}, {"repr_score": "dot"}, {"repr_heads": "group"}, {"perhead": True}, {"kv_dtype": "int8"},
    {"far_position": "exact"}, {"keep_units": True}, {"max_cached_block": 60},
    {"type": "stream-lm"}, {"type": "infinite-lm"},
]  # fmt: skip


@pytest.mark.parametrize("overrides", RECORDED, ids=str)
@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2", "gpt_oss"])
def test_steps_of_a_cuda_graph_equal_others(cuda, kind: str, overrides: dict[str, Any]) -> None:
    """Also over units that the steps make, slots that are too few, and slabs that fill."""
    answer = ids(90, seed=5)
    with attached(cuda, kind) as engine:
        assert engine.not_recorded is None
        sessions = [engine.session(overrides=overrides) for _ in range(2)]
        for session in sessions:
            session.read(TEXT)
            session.end()
        got = sessions[0].score(answer, step=True)
        assert sessions[0].replays_steps
        assert engine.not_recorded is None
        engine.record = None
        want = sessions[1].score(answer, step=True)
        assert not sessions[1].replays_steps
        rest = [session.score(QUESTION) for session in sessions]
    assert rms_error(got, want) < 1e-4
    assert rms_error(*rest) < 1e-4


def test_answers_in_turns_over_shared_slots(cuda) -> None:
    """Two sessions with a graph each, which evict each other's units."""
    with attached(cuda) as engine:
        session = engine.session()
        session.read(TEXT)
        session.end()
        forks = [session.fork() for _ in range(2)]
        answers = [ids(30, seed=seed) for seed in (5, 6)]
        turns = [
            [fork.score([token], step=True) for fork, token in zip(forks, tokens, strict=True)]
            for tokens in zip(*answers, strict=True)
        ]
        assert all(fork.replays_steps for fork in forks)
        engine.record = None
        for i, answer in enumerate(answers):
            want = session.fork().score(answer, step=True)
            assert rms_error(torch.cat([turn[i] for turn in turns]), want) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("policy", ["stream-lm", "origin"])
def test_half_precision_is_close(device, dtype: torch.dtype, policy: str) -> None:
    """Policies without lookups: a rounded score may choose another unit."""
    with attached(torch.device("cpu")) as engine:
        want = read(engine.session(overrides={"type": policy}))
    with attached(device, dtype=dtype) as engine:
        got = read(engine.session(overrides={"type": policy}))
    assert rms_error(got, want) < (0.02 if dtype is torch.float16 else 0.1)


@pytest.mark.parametrize("score", ["mass", "dot"])
def test_cuts_of_the_input_change_no_bit(device, score: str) -> None:
    rows = []
    with attached(device) as engine:
        for size in (1, 7, 150):
            session = engine.session(overrides={"repr_score": score})
            for start in range(0, len(TEXT), size):
                session.read(TEXT[start : start + size])
            session.end()
            rows.append(session.score(QUESTION).cpu())
    assert torch.equal(rows[0], rows[1])
    assert torch.equal(rows[0], rows[2])


def test_a_fork_and_its_parent_go_their_own_ways(device) -> None:
    with attached(device) as engine:
        session = engine.session()
        session.read(TEXT)
        session.end()
        child = session.fork()
        other = child.score(ids(60, seed=9))
        want = session.score(QUESTION)
        assert torch.equal(engine_answer(engine), want)
        assert not torch.equal(other[: len(QUESTION)], want)


def engine_answer(engine: Any) -> torch.Tensor:
    session = engine.session()
    session.read(TEXT)
    session.end()
    return session.score(QUESTION)


def test_a_memory_saved_on_a_gpu_is_read_on_either(device, tmp_path: Path) -> None:
    with attached(device) as engine:
        session = engine.session()
        session.read(TEXT)
        session.end()
        session.save(tmp_path / "text.mem")
        want = session.score(QUESTION).cpu()
        assert torch.equal(engine.open(tmp_path / "text.mem").score(QUESTION).cpu(), want)
    with attached(torch.device("cpu")) as engine:
        got = engine.open(tmp_path / "text.mem").score(QUESTION)
    assert rms_error(got, want) < 1e-4


@pytest.mark.parametrize("name", golden.names("attention"))
def test_golden_attention(device, name: str) -> None:
    case = golden.load(name)
    inputs = load_file(golden.FOLDER / "attention" / f"{case.source}.inputs.safetensors")
    freq = THETA ** (-torch.arange(8, dtype=torch.float64) / 8) * case.config.distance_scale
    layer = Layer(0, 4, 2, 16, device, torch.float32, Rotary(Rope(freq.to(device))))
    policy = make_policy(case.config, layer)
    outputs = []
    for span in case.calls:
        q, k, v = (inputs[x][:, :, span].to(device) for x in "qkv")
        outputs.append(run_policy(policy, q, k, v, Call(0, span.start), scale=16**-0.5))
    o = torch.cat(outputs, dim=1).transpose(1, 2).cpu()
    torch.testing.assert_close(o, case.arrays["o"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", golden.names("model"))
def test_golden_model(device, name: str) -> None:
    case = golden.load(name)
    model = AutoModelForCausalLM.from_pretrained(
        golden.FOLDER / "models" / case.source, dtype=torch.float32
    ).to(device)
    settings = case.config.model_dump(exclude={"path", "device", "dtype"})
    with attach(model, config={"model": settings}) as engine:
        session = engine.session()
        tokens = case.arrays["input_ids"].tolist()
        rows = [
            session.score(tokens[span], step=span.stop - span.start == 1) for span in case.calls
        ]
    logits = torch.cat(rows).cpu()
    torch.testing.assert_close(logits, case.arrays["logits"], atol=2e-3, rtol=0)


def test_triton_and_pytorch_agree_on_the_device(device, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = []
    for kernels in ("triton", "torch"):
        monkeypatch.setenv("INFLLM_KERNELS", kernels)
        with attached(device) as engine:
            answers.append(read(engine.session()))
    assert rms_error(answers[0], answers[1]) < 1e-4
