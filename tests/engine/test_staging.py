"""Units that are asked for early: a copy that comes late changes nothing, and the host never waits.

A device is played by copies that are done only when they are waited for.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
import torch
from torch import Tensor

from infllm.engine.attachment import Call, Layer, Rotary
from infllm.engine.config import ModelConfig
from infllm.engine.errors import MemoryFileError
from infllm.engine.policies import FastInfLLM, InfLLM, run_policy
from infllm.engine.policies.lookup_scores import Lookup
from infllm.engine.policies.representatives import Cut
from infllm.engine.units import store as units_module
from infllm.engine.units.staging import Staging, Threads
from infllm.kernels.rotate import Rope
from tests.engine.served import SMALL_MEMORY, Served
from tests.engine.tiny_models import ids


class LateStaging(Staging):
    """Uploads are done when waited for, downloads when settled; what is not there yet is NaN."""

    ahead = True

    def __init__(self) -> None:
        self.uploads: dict[int, Callable[[], None]] = {}
        self.downloads: list[tuple[Tensor, Tensor, object]] = []
        self.marks = 0
        self.bytes_up = 0

    def begin(self, *targets: Tensor) -> None:
        for target in targets:
            target.fill_(float("nan") if target.is_floating_point() else -(10**6))

    def upload(self, host: Sequence[Tensor], put: Callable[..., object]) -> int:
        self.marks += 1
        self.bytes_up += sum(x.nbytes for x in host)
        self.uploads[self.marks] = lambda: put(*host)
        return self.marks

    def wait(self, mark: int) -> None:
        if mark in self.uploads:
            self.uploads.pop(mark)()

    def download(self, source: Tensor, target: Tensor, owner: object) -> None:
        self.downloads.append((source.clone(), target, owner))

    def settle(self, owner: object) -> None:
        for source, target, whose in self.downloads:
            if whose is owner:
                target.copy_(source)
        self.downloads = [kept for kept in self.downloads if kept[2] is not owner]


class ThreadedStaging(LateStaging):
    """Copies by the threads that a GPU's are done by, each of which takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.threads = Threads()
        self.slow = random.Random(0)

    def upload_later(
        self, gather: Callable[[], Sequence[Tensor]], put: Callable[..., object]
    ) -> Future[int]:
        def run() -> int:
            time.sleep(self.slow.random() / 500)
            return self.upload(gather(), put)

        return self.threads.up(run)

    def wait(self, mark: int | Future[int]) -> None:
        super().wait(mark.result() if isinstance(mark, Future) else mark)

    def download(self, source: Tensor, target: Tensor, owner: object) -> None:
        source = source.clone()

        def finish() -> None:
            time.sleep(self.slow.random() / 500)
            target.copy_(source)

        self.threads.down(finish, owner)

    def settle(self, owner: object) -> None:
        self.threads.settle(owner)


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> LateStaging:
    staging = LateStaging()
    monkeypatch.setattr(units_module, "make_staging", lambda device: staging)
    return staging


VARIANTS: list[dict[str, Any]] = [
    {},
    {"repr_heads": "group"},
    {"perhead": True},
    {"far_position": "exact"},
    {"kv_dtype": "int8"},
    {"kv_dtype": "fp8"},
    {"kv_dtype": "bf16"},
    {"topk": 40, "max_cached_block": 40},  # all units, for a long while
    {"n_init": 0},
    {"keep_units": True},
    # Those that go the other way, late downloads or not.
    {"chunk_topk_calc": 16},
    {"unit_score": "keys"},
    {"cache_strategy": "lru-s"},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("chunk", [16, 64])
def test_late_copies_change_no_bit(
    llama: Served, variant: dict[str, Any], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = outputs(llama, variant, chunk)
    for staging in (LateStaging(), ThreadedStaging()):
        monkeypatch.setattr(units_module, "make_staging", lambda device, s=staging: s)
        assert torch.equal(outputs(llama, variant, chunk), want)
        assert not staging.uploads  # all that was asked for was waited for


def outputs(served: Served, variant: dict[str, Any], chunk: int) -> Tensor:
    """Logits of a document, a question, steps, and of a fork of the document's end."""
    session = served.session(**variant)
    session.chunk_size = chunk
    rows = [session.score(ids(150))]
    child = session.fork()
    rows += [session.score(ids(11, seed=7)), session.score(ids(5, seed=3), step=True)]
    rows.append(child.score(ids(70, seed=9)))
    rows.append(session.score(ids(40, seed=4)))
    return torch.cat(rows)


def test_a_memory_is_saved_with_all_that_was_under_way(
    late: LateStaging, llama: Served, tmp_path: Any
) -> None:
    session = llama.session()
    session.read(ids(150))
    session.end()
    assert late.downloads
    session.save(tmp_path / "text.mem")
    want = session.score(ids(11, seed=7))
    assert torch.equal(llama.engine.open(tmp_path / "text.mem").score(ids(11, seed=7)), want)


def test_units_of_several_blocks_are_brought_once(late: LateStaging, llama: Served) -> None:
    session = llama.session()
    session.chunk_size = 64
    session.read(ids(192))
    stats = session.stats
    assert stats.cache_misses > 0
    assert stats.cache_hits > 0
    page = 2 * 2 * 4 * 16 * 4  # bytes of a unit
    places = 2 * 3 * 8 * 64  # of a call's tables: int64, for fewer than 64 units
    assert stats.cache_misses * page <= late.bytes_up <= stats.cache_misses * page + places


# ---- blocks that do not depend on each other --------------------------------------------------


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"far_position": "exact"},
        {"perhead": True},
        {"repr_heads": "group"},
        {"kv_dtype": "int8"},
        {"n_init": 0},
        {"n_local": 19, "exc_block_size": 16},
    ],
    ids=str,
)
def test_blocks_attended_together_are_as_one_by_one(
    variant: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same lookups and the same units; outputs within the error of another order of sums."""
    settings = {**SMALL_MEMORY, "repr_score": "dot", "kv_dtype": "fp32", **variant}
    answers, records, spans = [], [], []
    plain_spans = FastInfLLM.spans

    def watched(policy: FastInfLLM, tokens: int) -> list[tuple[int, int]]:
        spans.append(plain_spans(policy, tokens))
        return spans[-1]

    monkeypatch.setattr(FastInfLLM, "spans", watched)
    for staging in (Staging(), LateStaging()):
        monkeypatch.setattr(units_module, "make_staging", lambda device, s=staging: s)
        policy = FastInfLLM(ModelConfig(**settings), layer())
        policy.record = []
        out = []
        for start, stop in ((0, 80), (80, 160), (160, 240), (240, 253), (253, 333)):
            g = torch.Generator().manual_seed(start)
            q, k, v = (torch.randn(1, heads, stop - start, 16, generator=g) for heads in (4, 2, 2))
            out.append(run_policy(policy, q, k, v, Call(start, start), 0.25))
        answers.append(torch.cat(out, dim=1))
        records.append(policy.record)
    assert any(stop - start > policy.query_block for pairs in spans for start, stop in pairs)
    torch.testing.assert_close(*answers, atol=2e-6, rtol=1e-5)
    looks, others = ([x for x in found if isinstance(x, Lookup)] for found in records)
    assert [(x.start, x.stop, x.n_units) for x in looks] == [
        (x.start, x.stop, x.n_units) for x in others
    ]
    for one, other in zip(looks, others, strict=True):
        assert torch.equal(one.chosen, other.chosen)
    vectors = [
        torch.cat([x.vector for x in found if isinstance(x, Cut)], dim=2) for found in records
    ]
    assert torch.equal(*vectors)


def test_a_damaged_unit_is_refused_where_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    staging = ThreadedStaging()
    monkeypatch.setattr(units_module, "make_staging", lambda device: staging)
    policy = FastInfLLM(ModelConfig(**SMALL_MEMORY, kv_dtype="fp32"), layer())
    q, k, v = (torch.randn(1, heads, 80, 16) for heads in (4, 2, 2))
    for start in (0, 80):
        run_policy(policy, q, k, v, Call(start, start), 0.25)
    assert policy.units is not None

    class Damaged:
        def check(self, row: int) -> None:
            raise MemoryFileError("damaged", f"row {row}")

    for run in policy.units.views[0].slab.runs:
        run.seal = Damaged()  # type: ignore[assignment]
    with pytest.raises(MemoryFileError):
        run_policy(policy, q, k, v, Call(160, 160), 0.25)


# ---- the host does not wait ---------------------------------------------------------------------

WAITS = (
    "tolist",
    "item",
    "cpu",
    "numpy",
    "nonzero",
    "__bool__",
    "__int__",
    "__float__",
    "__index__",
)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Calls that would make the host wait for a GPU, in order."""
    seen: list[str] = []

    def watched(name: str) -> Callable[..., Any]:
        call = getattr(Tensor, name)

        def run(self: Tensor, *args: Any, **kwargs: Any) -> Any:
            seen.append(name)
            return call(self, *args, **kwargs)

        return run

    for name in WAITS:
        monkeypatch.setattr(Tensor, name, watched(name))
    return seen


@pytest.mark.parametrize("score", ["mass", "dot"])
@pytest.mark.parametrize("position", ["capped", "exact"])
def test_the_host_waits_once_a_call(
    late: LateStaging, waits: list[str], score: str, position: str
) -> None:
    """Whatever the number of its execution blocks, units are made and looked up in."""
    settings = {**SMALL_MEMORY, "repr_score": score, "far_position": position, "kv_dtype": "int8"}
    policy = FastInfLLM(ModelConfig(**settings), layer())
    for chunk, start in enumerate(range(0, 256, 64)):
        q, k, v = (
            torch.randn(1, heads, 64, 16, generator=torch.Generator().manual_seed(start + i))
            for i, heads in enumerate((4, 2, 2))
        )
        waits.clear()
        run_policy_without_attending(policy, q, k, v, start)
        assert waits == (["tolist"] if chunk > 0 else []), chunk


@pytest.mark.parametrize("staging", [Staging, LateStaging])
def test_parts_at_exact_positions_share_one_tensor_of_queries(
    staging: type[Staging], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that they are attended in one product, block by block as well as together."""
    monkeypatch.setattr(units_module, "make_staging", lambda device: staging())
    settings = {**SMALL_MEMORY, "repr_score": "dot", "far_position": "exact", "kv_dtype": "fp32"}
    policy = FastInfLLM(ModelConfig(**settings), layer())
    q, k, v = (torch.randn(1, heads, 80, 16) for heads in (4, 2, 2))
    run_policy(policy, q, k, v, Call(0, 0), 0.25)
    policy.begin(q, k, v, Call(80, 80))
    start, stop = policy.spans(80)[0]
    assert (stop - start > policy.query_block) == (staging is LateStaging)
    parts = policy.parts(start, stop)
    # Near keys are attended already, or the first; initial tokens, units, what waits to become one.
    assert (policy.before(start, stop) is None) == (staging is Staging)
    assert len(parts) == (3 if staging is LateStaging else 4)
    assert all(part.q is parts[0].q for part in parts)


def layer() -> Layer:
    freq = 100.0 ** (-torch.arange(8, dtype=torch.float64) / 8)
    return Layer(0, 4, 2, 16, torch.device("cpu"), torch.float32, Rotary(Rope(freq)))


def run_policy_without_attending(
    policy: FastInfLLM, q: Tensor, k: Tensor, v: Tensor, start: int
) -> None:
    """A call as `run_policy` makes it; PyTorch's attention on a CPU looks at what it computes."""
    policy.begin(q, k, v, Call(start, start))
    for first, last in policy.spans(q.shape[2]):
        parts = policy.parts(first, last)
        masses = [
            torch.rand(1, 4, part.n_keys) if part.mass == "column" else None for part in parts
        ]
        policy.update(first, last, masses)
    policy.end()


def test_the_watch_for_waits_sees_them(waits: list[str]) -> None:
    assert bool(torch.tensor([1]).sum() == 1)
    torch.tensor([1]).tolist()
    assert waits == ["__bool__", "tolist"]


def test_attention_outputs_do_not_depend_on_when_units_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = []
    for staging in (Staging(), LateStaging()):
        monkeypatch.setattr(units_module, "make_staging", lambda device, s=staging: s)
        policy = FastInfLLM(ModelConfig(**SMALL_MEMORY, kv_dtype="fp32"), layer())
        g = torch.Generator().manual_seed(0)
        out = []
        for start in range(0, 320, 80):
            q, k, v = (torch.randn(1, heads, 80, 16, generator=g) for heads in (4, 2, 2))
            out.append(run_policy(policy, q, k, v, Call(start, start), 0.25))
        answers.append(torch.cat(out, dim=1))
    assert torch.equal(*answers)


WAYS: list[dict[str, Any]] = [
    {},
    {"repr_score": "dot"},
    {"far_position": "exact", "perhead": True},
    {"repr_heads": "group", "kv_dtype": "int8"},
    {"unit_score": "keys"},
    {"keep_units": True},
]


@pytest.mark.parametrize("variant", WAYS, ids=str)
def test_the_plain_way_gives_what_the_faster_ones_give(
    variant: dict[str, Any], late: LateStaging
) -> None:
    """Pages asked for early, blocks together, steps in place: the same outputs and lookups."""
    config = ModelConfig(**{**SMALL_MEMORY, "kv_dtype": "fp32", **variant})
    answers, looks, kept = [], [], set()
    for kind in (InfLLM, FastInfLLM):
        policy = kind(config, layer())
        policy.record = []
        out, g = [], torch.Generator().manual_seed(0)
        for start, n in [*((i, 80) for i in range(0, 320, 80)), *((i, 1) for i in range(320, 330))]:
            q, k, v = (torch.randn(1, heads, n, 16, generator=g) for heads in (4, 2, 2))
            out.append(run_policy(policy, q, k, v, Call(0, start), 0.25))
        answers.append(torch.cat(out, dim=1))
        looks.append([x.chosen for x in policy.record if isinstance(x, Lookup)])
        kept.add(policy.in_sight()[-1])
    torch.testing.assert_close(*answers, atol=2e-6, rtol=1e-5)
    assert all(torch.equal(one, other) for one, other in zip(*looks, strict=True))
    assert len(kept) == 1
