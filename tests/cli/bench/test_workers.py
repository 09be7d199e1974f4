"""Several workers: the same results as one, and none lost when a worker dies."""

import subprocess
import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from infllm.cli.bench.examine import Job, Outcome
from infllm.cli.bench.sample import Sample, Turn
from infllm.cli.bench.workers import WorkerPool, check_workers
from infllm.cli.errors import InfllmError, UsageError
from infllm.cli.options import EngineChoice
from infllm.engine.config import Config
from tests.cli.bench.test_run import contents


class RayError(Exception):
    pass


@dataclass(eq=False)
class Call:
    """A call that is still to be made."""

    function: Any
    arguments: tuple[Any, ...] = ()


@dataclass(eq=False)
class FakeRay(ModuleType):
    """Ray in this process: a call is done when its result is asked for; the last one first."""

    workers: list[Any]  # one after the other, instead of those asked for
    gpus: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    down: bool = False

    def __post_init__(self) -> None:
        super().__init__("ray")
        self.exceptions = SimpleNamespace(RayError=RayError)

    def init(self, **options: Any) -> None:
        self.options = options

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 8.0, **({"GPU": float(self.gpus)} if self.gpus else {})}

    def remote(self, kind: type) -> Any:
        made = iter(self.workers)

        def start(*arguments: Any) -> Any:
            worker = next(made)
            return SimpleNamespace(
                describe=SimpleNamespace(remote=lambda: Call(worker.describe)),
                examine=SimpleNamespace(remote=lambda job: Call(worker.examine, (job,))),
            )

        def options(**chosen: Any) -> Any:
            self.options |= chosen
            return SimpleNamespace(remote=start)

        return SimpleNamespace(options=options)

    def get(self, reference: Any) -> Any:
        if isinstance(reference, list):
            return [self.get(one) for one in reference]
        return reference.function(*reference.arguments)

    def wait(self, references: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return references[-1:], references[:-1]

    def shutdown(self) -> None:
        self.down = True


class Worker:
    def __init__(self, model: str = "a", dies_of: str = "") -> None:
        self.model, self.dies_of = model, dies_of

    def describe(self) -> dict[str, str]:
        return {"model": self.model, "device": "cpu"}

    def examine(self, job: Job) -> Outcome:
        if job.sample.id == self.dies_of:
            raise RayError("the actor died")
        return Outcome(job.task, job.policies[0], {"id": job.sample.id, "scores": [1.0]})


def jobs(count: int) -> list[Job]:
    samples = [Sample(f"s{i}", "", "text", (Turn("?", ("yes",)),)) for i in range(count)]
    return [Job(None, sample, ("inf-llm", "origin")) for sample in samples]  # type: ignore[arg-type]


@pytest.fixture
def pool(monkeypatch):
    def make(*workers: Worker, gpus: int = 0, **settings: Any) -> tuple[WorkerPool, FakeRay]:
        ray = FakeRay(list(workers), gpus)
        monkeypatch.setitem(sys.modules, "ray", ray)
        config = Config().with_overrides(settings)
        return WorkerPool(len(workers), config, EngineChoice(None, {}), official=False), ray

    return make


def test_every_sample_is_examined_once_under_every_policy(pool):
    workers, ray = pool(Worker(), Worker())
    with workers:
        outcomes = list(workers.examine(jobs(7)))
    assert sorted((o.record["id"], o.policy) for o in outcomes) == sorted(
        (f"s{i}", policy) for i in range(7) for policy in ("inf-llm", "origin")
    )
    assert ray.down


def test_samples_are_made_only_as_they_are_needed(pool):
    workers, _ = pool(Worker(), Worker())
    made = []

    def slowly():
        for job in jobs(100):
            made.append(job.sample.id)
            yield job

    with workers:
        next(workers.examine(slowly()))
    assert len(made) < 5


def test_a_worker_that_dies_costs_its_sample(pool):
    workers, _ = pool(Worker(dies_of="s3"), Worker(dies_of="s3"))
    with workers:
        outcomes = list(workers.examine(jobs(5)))
    assert len(outcomes) == 10
    assert {o.record["id"] for o in outcomes if o.failed} == {"s3"}


def test_workers_of_different_models_are_refused(pool):
    workers, ray = pool(Worker("a"), Worker("b"))
    with pytest.raises(InfllmError, match="not alike: they differ in model"), workers:
        pass
    assert ray.down


def test_each_worker_has_a_gpu_of_its_own(pool):
    workers, ray = pool(Worker(), Worker(), gpus=2)
    with workers:
        assert ray.options["num_gpus"] == 1
    workers, _ = pool(Worker(), Worker(), gpus=1)
    with pytest.raises(UsageError, match="each takes a GPU, and there are 1"), workers:
        pass


def test_one_gpu_for_all_is_refused(monkeypatch):
    monkeypatch.setattr("infllm.cli.bench.workers.find_spec", lambda name: name)
    check_workers(2, "cuda")
    with pytest.raises(UsageError, match="names cuda:1"):
        check_workers(2, "cuda:1")


@pytest.mark.slow
def test_two_workers_give_the_same_bytes_as_none(infllm, pocket, tmp_path):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    arguments = ["bench", "run", "local:passkey,kv", "--len", "600", "--samples", "2", "-o"]
    program = [sys.executable, "-c", "from infllm.cli.main import main; main()", *arguments]
    done = subprocess.run(
        [*program, tmp_path / "two", "--workers", "2"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert infllm(*arguments, tmp_path / "none").out == done.stdout
    assert contents(tmp_path / "two") == contents(tmp_path / "none")
