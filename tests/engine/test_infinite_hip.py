"""InfiniteHiP is its definition, full attention where it may choose all, and cheap to fork."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from infllm.engine.attachment import Call, Layer, Rotary
from infllm.engine.config import ModelConfig, load_config, pruning_of
from infllm.engine.errors import ConfigError
from infllm.engine.policies import make_policy, run_policy
from infllm.engine.policies.infinite_hip import InfiniteHiP
from infllm.engine.units import TokenStore, estimate
from infllm.engine.units.token_store import PAGE
from infllm.kernels.rotate import Rope
from tests.engine.served import SMALL_MEMORY, Served, assert_as_stock, serve
from tests.engine.tiny_models import ids

H, HKV, DIM, LENGTH = 4, 2, 8, 90
FREQ = 50.0 ** (-torch.arange(DIM // 2, dtype=torch.float64) / (DIM // 2))
ANGLES = torch.arange(2 * LENGTH)[:, None] * FREQ
COS, SIN = ANGLES.cos(), ANGLES.sin()
TEXT = ids(96)
ALL = {
    "type": "infinitehip", "far_position": "exact",
    "stages": [{**stage, "keep": 400} for stage in SMALL_MEMORY["stages"]],
}  # fmt: skip


def layer(index: int = 0) -> Layer:
    return Layer(index, H, HKV, DIM, torch.device("cpu"), torch.float32, Rotary(Rope(FREQ)))


def tokens(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    q = 2 * torch.randn(1, H, LENGTH, DIM, generator=g)
    k, v = torch.randn(2, 1, HKV, LENGTH, DIM, generator=g)
    return q, k, v


# ---- the definition, in float64 and plain loops --------------------------------------------------


class Definition:
    """One layer, query head by query head, interval by interval."""

    def __init__(self, cfg: ModelConfig, index: int, q: Tensor, k: Tensor, v: Tensor) -> None:
        self.cfg = cfg
        self.stages = pruning_of(cfg, index)
        self.early = index in cfg.early_layers
        self.q, self.k, self.v = q.double() * DIM**-0.5, k.double(), v.double()
        self.n = self.steps = 0
        self.wp = max(0, cfg.n_local - self.stages[0].chunk)
        self.lists: dict[tuple[int, int], list[int]] = {}  # stage, block -> starts
        self.turned: dict[int, Tensor] = {}  # position -> keys

    def turn(self, x: Tensor, positions: list[int]) -> Tensor:
        """x [..., D] at one position, or each row of it [N, D] at its own."""
        cos, sin = COS[positions], SIN[positions]
        a, b = x[..., : DIM // 2], x[..., DIM // 2 :]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)

    def keys_at(self, position: int) -> Tensor:
        """[Hkv, N, D]: all of them at one position."""
        if position not in self.turned:
            self.turned[position] = self.turn(self.k, [position])
        return self.turned[position]

    def call(self, length: int) -> list[Tensor]:
        """o [H, D] of each token."""
        step = length == 1
        first = 0
        if step:
            due = [self.steps % s.refresh == 0 for s in self.stages]
            first = due.index(True) if True in due else len(due)
        for i in range(first, len(self.stages)):
            for block in range(-(-length // self.stages[i].query_block)):
                self.stage(i, block, length)
        size = self.stages[-1].query_block
        rows = []
        for block in range(-(-length // size)):
            chosen = self.lists[len(self.stages), block]
            start = self.n + block * size
            rows += [
                self.attend(p, start, chosen)
                for p in range(start, min(start + size, self.n + length))
            ]
        self.n += length
        self.steps = self.steps + 1 if step else 0
        return rows

    def stage(self, i: int, block: int, length: int) -> None:
        stage, size = self.stages[i], self.stages[i].query_block
        least = self.n + block * size
        limit = max(0, least - self.wp)
        stop = self.n + min((block + 1) * size, length)
        if i == 0:
            entering = list(range(self.cfg.n_init, limit + 1, stage.chunk))
        else:
            before = self.stages[i - 1]
            parent = self.lists[i, block * size // before.query_block]
            entering = parent
        score = {
            left: max(
                self.descend(head, left, at, len(entering), stage, range(least, stop), limit)
                for head in range(H)
            )
            for at, left in enumerate(entering)
            if left <= limit
        }
        kept = sorted(sorted(score, key=lambda left: -score[left])[: stage.keep])
        last = i + 1 == len(self.stages)
        inner = stage.chunk if last else self.stages[i + 1].chunk
        # A block of a later stage reads the list of its parent.
        self.lists[i + 1, block] = [
            x for left in kept for x in range(left, left + stage.chunk, inner)
        ]

    def descend(
        self, head: int, left: int, at: int, n: int, stage: Any, queries: range, limit: int
    ) -> float:
        groups = [
            queries[i : i + stage.query_group] for i in range(0, len(queries), stage.query_group)
        ]
        means = torch.stack([self.q[head, g[0] : g[-1] + 1].mean(dim=0) for g in groups])
        early = [min(group[0], n + self.wp) for group in groups]
        wanted = self.turn(means, early if self.early else [self.wp + 1])
        kv = head // (H // HKV)
        right, best = left + stage.chunk, -float("inf")

        def look(probe: int, position: int) -> float:
            keys = self.keys_at(at if self.early else position)
            return float((wanted @ keys[kv, min(probe, queries[-1])]).max())

        for _ in range(stage.chunk.bit_length()):
            if left > limit:
                break
            middle = (left + right) // 2
            of_left, of_right = look((left + middle) // 2, 0), look((middle + right) // 2, 1)
            best = max(best, of_left, of_right)
            left, right = (left, middle) if of_left > of_right else (middle, right)
        return best

    def attend(self, p: int, first: int, chosen: list[int]) -> Tensor:
        cfg, size = self.cfg, self.stages[-1].chunk
        far = [*range(cfg.n_init), *(j for left in chosen for j in range(left, left + size))]
        behind = first - cfg.n_local
        n_far = sum(j <= behind for j in far)
        keys: dict[int, int] = {j: j for j in range(max(0, p - cfg.n_local + 1), p + 1)}
        for number, j in enumerate(far):
            if j > p - cfg.n_local:
                continue
            if cfg.far_position == "exact":
                keys[j] = behind - (n_far - 1 - number) if j <= behind else j
            else:
                keys[j] = max(0, behind + 1 - (len(far) - number))
        out = []
        for head in range(H):
            kv, query = head // (H // HKV), self.turn(self.q[head, p], [p])[0]
            logits = self.turn(self.k[kv, list(keys)], list(keys.values())) @ query
            out.append(torch.softmax(logits, dim=0) @ self.v[kv, list(keys)])
        return torch.stack(out)


@st.composite
def memories(draw: st.DrawFn) -> ModelConfig:
    chunks = draw(st.sampled_from([[8, 4, 2], [6, 3], [4, 4, 1], [5]]))
    blocks = sorted((draw(st.sampled_from([4, 8, 16])) for _ in chunks), reverse=True)
    blocks[-1] = min(blocks[-1], 8 if chunks[0] == 8 else 4)
    stages = [
        {
            "chunk": chunk, "keep": chunk * draw(st.integers(1, 6)), "query_block": block,
            "query_group": draw(st.sampled_from([1, 2, 4])),
        }
        for chunk, block in zip(chunks, blocks, strict=True)
    ]  # fmt: skip
    return ModelConfig(
        type="infinitehip", kv_dtype="fp32", stages=stages, n_init=draw(st.integers(0, 5)),
        n_local=draw(st.integers(3, 24)), early_layers=draw(st.sampled_from([[], [0]])),
        refresh=draw(st.sampled_from([[1], [3, 2], [4, 2, 1]])),
        far_position=draw(st.sampled_from(["capped", "exact"])),
    )  # fmt: skip


@st.composite
def call_lengths(draw: st.DrawFn) -> list[int]:
    lengths: list[int] = []
    while sum(lengths) < LENGTH:
        n = draw(st.sampled_from([1, 1, 1, 2, 7, 16, 40]))
        lengths.append(min(n, LENGTH - sum(lengths)))
    return lengths


@settings(max_examples=25, deadline=None, database=None, derandomize=True)
@given(cfg=memories(), calls=call_lengths(), seed=st.integers(0, 100))
def test_infinitehip_is_its_definition(cfg: ModelConfig, calls: list[int], seed: int) -> None:
    q, k, v = tokens(seed)
    policy, definition = make_policy(cfg, layer()), Definition(cfg, 0, q[0], k[0], v[0])
    start = 0
    for n in calls:
        span = slice(start, start + n)
        some = (x[:, :, span] for x in (q, k, v))
        got = run_policy(policy, *some, Call(0, start), DIM**-0.5)[0]
        want = torch.stack(definition.call(n))
        torch.testing.assert_close(got.double(), want, atol=1e-4, rtol=1e-4)
        start += n


# ---- everything chosen is full attention ---------------------------------------------------------


def scored(served: Served, **overrides: Any) -> Tensor:
    session = served.session(**{**ALL, **overrides})
    rows = [session.score(TEXT[:47]), session.score(TEXT[47:80])]
    return torch.cat([*rows, session.score(TEXT[80:], step=True)])


@pytest.mark.parametrize("kind", ["llama", "gemma2", "cohere", "glm", "smollm3", "gpt_oss"])
def test_all_chosen_at_exact_positions_is_full_attention(kind: str) -> None:
    served = serve(kind)
    with served.engine:
        assert_as_stock(scored(served), served.stock_logits(TEXT))


def test_the_published_packing_is_not(llama: Served) -> None:
    """Chosen chunks in the window leave holes; short texts are clipped."""
    rows, stock = scored(llama, far_position="capped"), llama.stock_logits(TEXT)
    window = SMALL_MEMORY["n_local"]
    assert_as_stock(rows[:window], stock[:window])
    assert not torch.allclose(rows[-1], stock[-1], atol=1e-2)


# ---- what is kept, and where ---------------------------------------------------------------------


@pytest.mark.parametrize("kv_dtype", ["fp32", "bf16", "int8", "fp8"])
def test_keys_for_pruning_in_int8_choose_nearly_the_same(kv_dtype: str) -> None:
    q, k, v = tokens(3)
    outs = []
    for prune_keys in ("kv", "int8"):
        cfg = ModelConfig(
            type="infinitehip", kv_dtype=kv_dtype, prune_keys=prune_keys, n_init=3, n_local=16,
            stages=SMALL_MEMORY["stages"], early_layers=[0],
        )  # type: ignore[arg-type]  # fmt: skip
        policy = InfiniteHiP(cfg, layer())
        policy.begin(q, k, v, Call(0, 0))
        outs.append([set(row.tolist()) for row in policy._chosen])
    same = [len(a & b) / len(a) for a, b in zip(*outs, strict=True)]
    assert min(same) > 0.6
    assert sum(same) / len(same) > 0.9


def test_device_memory_for_pruning_has_a_bound() -> None:
    """On a GPU int8 keys are there until there are too many; then they are on the host."""
    cfg = ModelConfig(type="infinitehip", kv_dtype="bf16", prune_bound=10_000)
    shape = SimpleNamespace(
        n_heads=32, n_kv_heads=8, head_dim=128, sliding_window=None, chunk=None,
        dtype=SimpleNamespace(itemsize=2), device=SimpleNamespace(type="cuda"),
    )  # fmt: skip
    few, most, more, many = (
        estimate(cfg, [shape], n)  # type: ignore[list-item]
        for n in (9000, 10_000, 10_001, 10**6)
    )
    token, probe = 2 * 8 * 128 * 2, 8 * 132
    assert (few.host_bytes, many.host_bytes) == (9000 * token, 10**6 * (token + probe))
    assert most.device_bytes - few.device_bytes == 1000 * probe
    assert more.device_bytes == many.device_bytes == most.device_bytes - 10_000 * probe


def test_a_memory_saved_between_steps_goes_on_with_them(llama: Served, tmp_path: Path) -> None:
    """Stages whose turn it is not go on from what the last run of theirs left."""
    override = {"type": "infinitehip"}
    session = llama.session(**override)
    session.read(TEXT)
    session.score(ids(5, seed=1), step=True)
    child = session.fork()
    session.save(tmp_path / "memory")
    opened = llama.engine.open(tmp_path / "memory", overrides=override)
    want = session.score(ids(9, seed=2), step=True)
    assert torch.equal(opened.score(ids(9, seed=2), step=True), want)
    assert torch.equal(child.score(ids(9, seed=2), step=True), want)
    assert not session.replays_steps


def test_device_memory_does_not_grow_with_length(llama: Served) -> None:
    """What stages read is on the host, without copies; nothing else but the window is kept."""
    session = llama.session(type="infinitehip")
    held = []
    for seed in range(3):
        session.read(ids(160, seed=seed))
        held.append((session.stats.device_bytes, session.stats.host_bytes))
    assert len({device for device, _ in held}) == 1
    token = 2 * 2 * 2 * 16 * 4  # layers, keys and values, KV heads, head_dim, float32
    assert [host for _, host in held] == [n * token for n in (160, 320, 480)]


def store(**changes: Any) -> TokenStore:
    return TokenStore(ModelConfig(type="infinitehip", kv_dtype="fp32", **changes), layer())


def add(tokens: TokenStore, n: int, seed: int) -> Tensor:
    """Keys [Hkv, n, D], added with their negatives as values."""
    k = torch.randn(1, HKV, n, DIM, generator=torch.Generator().manual_seed(seed))
    tokens.append(k, -k)
    return k[0]


def content(tokens: TokenStore) -> Tensor:
    k, v = tokens.fetch(torch.arange(tokens.n))
    assert torch.equal(k, -v)
    return k[0]


def test_forks_share_all_pages_but_the_last() -> None:
    parent = store(prune_keys="int8")
    first = add(parent, 3 * PAGE + 5, 0)
    child, pool = parent.fork(), parent._pool
    theirs = add(child, 7, 1)
    assert pool.pages == 5
    mine = add(parent, 9, 2)
    assert pool.pages == 5
    assert torch.equal(content(parent), torch.cat([first, mine], dim=1))
    assert torch.equal(content(child), torch.cat([first, theirs], dim=1))
    for one in (parent, child):
        probes = one.probes()
        rows = probes.rows(torch.arange(one.n))
        assert probes.scale is not None
        near = probes.keys[rows].float() * probes.scale[rows]
        torch.testing.assert_close(near.transpose(0, 1), content(one), atol=0.02, rtol=0)


def test_pages_of_a_fork_that_ends_are_used_again() -> None:
    parent = store()
    add(parent, PAGE + 1, 0)
    for seed in range(4):
        child = parent.fork()
        add(child, 2 * PAGE, seed)
        del child
    assert parent._pool.pages == 5
    grandchild = parent.fork()
    del parent
    assert content(grandchild).shape[1] == PAGE + 1


# ---- settings ------------------------------------------------------------------------------------


def load(**settings: Any) -> Any:
    return load_config({"type": "infinitehip", **settings}, environ={})


def test_published_names_of_settings() -> None:
    model = load().model
    assert (model.n_init, model.n_local, model.stages) == (256, 1024, "3k")
    stages = pruning_of(model, 31)
    assert [(s.chunk, s.kept_tokens, s.refresh) for s in stages] == [
        (256, 32768, 16), (32, 8192, 8), (8, 2048, 4),
    ]  # fmt: skip
    assert pruning_of(model, 2)[-1].kept_tokens == 4096
    model = load(stages="5k", refresh="flash", n_local=2048).model
    assert model.n_local == 2048
    stages = pruning_of(model, 31)
    assert [(s.chunk, s.kept_tokens, s.refresh) for s in stages] == [
        (64, 32768, 96), (32, 16384, 24), (16, 4096, 8),
    ]  # fmt: skip
    assert pruning_of(model, 0) == stages


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ("4k", "'3k' or '5k'"),
        ([], "at least one stage"),
        ([{"chunk": 64, "keep": 100}], "100 kept tokens are no whole chunks of 64"),
        ([{"chunk": 64, "keep": 64}, {"chunk": 3, "keep": 6}], "chunks of 64 cannot be split"),
        ([{"chunk": 8, "keep": 16, "query_block": 6, "query_group": 4}], "whole groups of 4"),
        ([{"chunk": 8, "keep": 16}], "query blocks of 64 are longer than the first"),
        ([{"chunk": 8, "keep": 16, "query_block": 128}], "64"),
        ([{"chunk": 8, "keep": 16, "kep_early": 8}], "kep_early"),
    ],
)
def test_stages_that_cannot_be(stages: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(stages=stages)
