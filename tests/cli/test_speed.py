"""`infllm bench speed`: rows at each length, what it says when cut short, and the work counted."""

import json

import pytest
import torch

from infllm.cli.tasks import speed
from infllm.cli.work import decode_bytes, mean_keys, parameters, reading_work
from infllm.engine.config import ModelConfig
from tests.cli.conftest import Result

LLAMA_8B = {
    "hidden_size": 4096, "intermediate_size": 14336, "vocab_size": 128256,
    "tie_word_embeddings": False,
}  # fmt: skip
SMALL = ("--set", "chunk_size=256", "--decode", 2)


class Shape:
    n_heads, n_kv_heads, head_dim, sliding_window = 32, 8, 128, None


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "measure_ceilings", lambda *of: speed.Ceilings(1e12, 1e10))
    monkeypatch.setattr(speed, "WARM_STEPS", 1)


def columns(result: Result) -> list[list[str]]:
    return [line.split() for line in result.out.splitlines()]


def test_table(infllm, pocket):
    result = infllm("bench", "speed", "--len", "512,1K", "--policy", "inf-llm,window", *SMALL)
    assert result.code == 0, result.raw_err
    assert result.out.startswith("policy   tokens  read tok/s  of floor  decode tok/s")
    rows = columns(result)[1:]
    assert [row[:2] for row in rows] == [
        ["inf-llm", "512"], ["inf-llm", "1K"], ["window", "512"], ["window", "1K"],
    ]  # fmt: skip
    assert "pocket in bfloat16 on cpu" in result.err or "pocket in float32 on cpu" in result.err


def test_json(infllm, pocket):
    result = infllm("bench", "speed", "--len", "300", "--json", *SMALL)
    fields = json.loads(result.out)
    assert (fields["schema"], fields["command"]) == (1, "bench speed")
    assert fields["complete"] is True
    (row,) = fields["rows"]
    assert row["tokens"] == row["wanted"] == 256  # whole chunks
    assert row["tokens_per_second"] == pytest.approx(256 / row["seconds"], rel=0.1)
    assert row["decode_tokens_per_second"] > 0
    assert row["peak_bytes"] > row["device_bytes"] > 0
    floors = row["floors"]
    parts = floors["linear"] + floors["attention"] + floors["mass"] + floors["scoring"]
    assert floors["prefill"] == pytest.approx(parts)
    assert 0 < floors["prefill"] < row["seconds"]


def test_without_decoding(infllm, pocket):
    result = infllm("bench", "speed", "--len", "256", *SMALL[:2], "--decode", 0)
    assert columns(result)[1][-3] == "-"


def test_time_that_runs_out_keeps_what_was_measured(infllm, pocket, monkeypatch):
    from infllm.engine.session import Session

    clock = iter(range(10**6))
    monkeypatch.setattr(speed.time, "monotonic", lambda: 0.0)
    read = Session.read

    def slow(self: Session, ids: list[int]) -> None:
        read(self, ids)
        if len(ids) == 256:
            now = 30.0 * next(clock)
            monkeypatch.setattr(speed.time, "monotonic", lambda: now)

    monkeypatch.setattr(Session, "read", slow)
    command = ["bench", "speed", "--len", "512,4K", "--minutes", "1", "--json", *SMALL]
    result = infllm(*command)
    assert result.code == 0
    fields = json.loads(result.out)
    assert [(row["tokens"], row["wanted"]) for row in fields["rows"]] == [(512, 512), (768, 4096)]
    assert fields["complete"] is False
    assert "--minutes 1 ended before all lengths were read: inf-llm" in result.raw_err


def test_interrupted(infllm, pocket, monkeypatch):
    from infllm.engine.session import Session

    read, chunks = Session.read, []

    def stopped(self: Session, ids: list[int]) -> None:
        chunks.append(len(ids))
        if chunks.count(256) == 3:
            raise KeyboardInterrupt
        read(self, ids)

    monkeypatch.setattr(Session, "read", stopped)
    result = infllm("bench", "speed", "--len", "512,4K", *SMALL)
    assert result.code == 130
    assert [row[:2] for row in columns(result)[1:]] == [["inf-llm", "512"]]
    assert "interrupted; the results above are what was measured" in result.raw_err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--len", "many"], "'many' is not a length"),
        (["--len", ","], "--len names no length"),
        (["--policy", "inflm"], "unknown policy 'inflm'"),
    ],
)
def test_wrong_usage(infllm, pocket, arguments, words):
    result = infllm("bench", "speed", *arguments)
    assert result.code == 2
    assert words in result.raw_err
    assert result.out == ""


def test_work_of_an_8b_model_on_a_million_tokens():
    """The figures of the model's shape, counted by hand."""
    settings = ModelConfig(n_init=128, n_local=4096, topk=16, block_size=128, repr_score="mass")
    tokens = 2**20
    work = reading_work(LLAMA_8B, [Shape()] * 32, settings, tokens)
    layer = 4096 * 4096 * 2 + 4096 * 1024 * 2 + 3 * 4096 * 14336
    assert work.linear == 2.0 * tokens * 32 * layer
    assert work.attention / tokens == pytest.approx(4 * 32 * 4096 * 6272, rel=0.01)
    assert work.mass / tokens == pytest.approx(2 * 32 * 4096 * 4096, rel=0.01)
    assert work.scoring == 2.0 * 2048 * 4096 * 4096 * 32
    assert parameters(LLAMA_8B, [Shape()] * 32).stored == 32 * layer + 2 * 128256 * 4096
    dot = settings.model_copy(update={"repr_score": "dot", "repr_heads": "group"})
    assert reading_work(LLAMA_8B, [Shape()] * 32, dot, tokens).mass == 0
    assert reading_work(LLAMA_8B, [Shape()] * 32, dot, tokens).scoring == work.scoring / 4


def test_work_of_short_texts_and_other_policies():
    full = ModelConfig(type="origin")
    assert mean_keys(full, Shape(), 100) == 50
    assert mean_keys(ModelConfig(n_local=4096), Shape(), 100) == 50
    assert mean_keys(ModelConfig(type="window", n_local=10), Shape(), 100) == pytest.approx(9.5)
    step = decode_bytes(LLAMA_8B, [Shape()], full, 1000, 2)
    assert step == 2 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 128256 * 4096) + (
        2 * 1000 * 8 * 128 * 2
    )
    units = decode_bytes(LLAMA_8B, [Shape()], ModelConfig(), 2**20, 2)
    index = (2**20 - 4096 - 128) // 128 * 4096 * 2
    assert units - step == pytest.approx(index + (6272 - 1000) * 4096)


def test_work_of_stages_of_pruning():
    """Probes of both halves in each round, by each mean of a block's queries."""
    settings = ModelConfig(
        type="infinitehip", n_init=8, n_local=64, early_layers=[],
        stages=[{"chunk": 64, "keep": 256, "query_group": 4}, {"chunk": 8, "keep": 80}],
        refresh=[4, 2],
    )  # fmt: skip
    tokens = 2**16
    work = reading_work(LLAMA_8B, [Shape()], settings, tokens)
    first, second = 2 * 7 * tokens / 2 / 64, 2 * 4 * 256 / 8  # keys that a head looks at
    assert work.scoring == 2 * 4096 * (tokens / 4 * first + tokens * second)
    assert work.mass == 0
    assert mean_keys(settings, Shape(), 10**6) == pytest.approx(8 + 64 + 80, rel=1e-3)
    plain = settings.model_copy(update={"refresh": [10**9]})
    steps, none = (decode_bytes(LLAMA_8B, [Shape()], x, tokens, 2) for x in (settings, plain))
    assert steps - none == pytest.approx((2 * first / 4 + second / 2) * 4096 * 2, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("nvjet_sm90_tst_128x256_64x4_2x1_v_bz_coopA_TNT", "linear"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_cublas", "linear"),
        ("void gemv2T_kernel_val<int, int, __nv_bfloat16>", "linear"),
        ("partial_attention_kernel", "attention"),
        ("part_mass_kernel", "attention"),
        ("void pytorch_flash::flash_fwd_kernel<...cutlass::bfloat16_t>", "attention"),
        ("unit_scores_kernel", "scoring"),
        ("top_units_kernel", "scoring"),
        ("Memcpy HtoD (Pinned -> Device)", "copies"),
        ("rotate_kernel", "other"),
        ("aten::mm", "linear"),
        ("aten::_softmax", "attention"),
    ],
)
def test_kernels_are_told_apart_by_name(name, kind):
    assert speed.kind_of(name) == kind


def test_time_split_adds_up():
    a = torch.randn(128, 128)
    split = speed.time_split(lambda: [a @ a for _ in range(20)], torch.device("cpu"))
    assert set(split) == {*speed.KINDS, "other", "wall"}
    assert 0 < split["linear"] <= split["wall"]
    assert split["attention"] == 0
