"""Samples examined by several engines at once, on many GPUs or machines: actors of Ray."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from infllm.cli.bench.examine import Job, Outcome, failure
from infllm.cli.bench.manifest import describe_engine
from infllm.cli.errors import InfllmError, MissingExtra, UsageError
from infllm.cli.options import EngineChoice
from infllm.cli.output import Output
from infllm.cli.readers.table import describe_reader

if TYPE_CHECKING:
    from infllm.engine.config import Config

AHEAD = 2  # samples that wait for each worker, so that none is idle while one is made


def check_workers(workers: int, device: str) -> None:
    """Find out before a long run whether it can have so many workers.

    Raises:
        MissingExtra: Ray is not installed.
        UsageError: a single device was named for all of them.
    """
    if workers > 1 and find_spec("ray") is None:
        raise MissingExtra("--workers needs Ray", "pip install 'infllm[ray]'")
    if workers > 1 and device.startswith("cuda:"):
        raise UsageError(
            f"--workers gives each worker a GPU of its own, and --device names {device}",
            "leave --device out, or write --device cuda",
        )


class _Worker:
    """One engine in a process of its own."""

    def __init__(
        self, config: "Config", choice: EngineChoice, official: bool, readers: Sequence[str]
    ) -> None:
        from infllm.cli.bench.examine import Examiner
        from infllm.cli.opening import open_engine

        self.engine = open_engine(config, choice, Output("bench run", quiet=True))
        self.examiner = Examiner(self.engine, official)
        self.readers = readers

    def describe(self) -> dict[str, Any]:
        readers = {name: describe_reader(name, self.engine) for name in self.readers}
        return {**describe_engine(self.engine), "readers": readers}

    def examine(self, job: Job) -> Outcome:
        (outcome,) = self.examiner.examine([job])
        return outcome


class WorkerPool:
    """Workers that examine samples, each one sample at a time; a context manager.

    It joins the Ray cluster that RAY_ADDRESS names, or starts one on this machine and ends it.

    Raises on entry:
        InfllmError: no worker could be started, or they do not have the same model.
    """

    def __init__(
        self,
        workers: int,
        config: "Config",
        choice: EngineChoice,
        official: bool,
        readers: Sequence[str] = (),
    ) -> None:
        self.workers = workers
        self._arguments = config, choice, official, readers
        self._actors: list[Any] = []
        self.description: dict[str, Any] = {}

    def __enter__(self) -> Self:
        ray = _ray()
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
            self._start(ray)
        except BaseException as error:
            ray.shutdown()
            if isinstance(error, ray.exceptions.RayError):
                raise _worker_error(error) from error
            raise
        return self

    def _start(self, ray: Any) -> None:
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        device = self._arguments[0].model.device
        on_gpu = device == "cuda" or (device == "auto" and gpus > 0)
        if on_gpu and self.workers > gpus:
            raise UsageError(
                f"--workers {self.workers}: each takes a GPU, and there are {gpus}",
                f"use --workers {max(gpus, 1)}, or --device cpu",
            )
        cores = max(1, int(resources.get("CPU", 1)) // self.workers)
        # Ray would give each actor one thread whatever there is.
        variables = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(cores))}
        actor = ray.remote(_Worker).options(
            num_cpus=0, num_gpus=int(on_gpu), max_restarts=-1, runtime_env={"env_vars": variables}
        )
        self._actors = [actor.remote(*self._arguments) for _ in range(self.workers)]
        first, *others = ray.get([worker.describe.remote() for worker in self._actors])
        for other in others:
            if other != first:
                differ = ", ".join(k for k in first if first[k] != other.get(k))
                raise InfllmError(
                    f"the workers are not alike: they differ in {differ}",
                    "give all machines the same model and the same versions",
                )
        self.description = first

    def __exit__(self, *exc: object) -> None:
        import ray

        ray.shutdown()

    def examine(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """The outcomes of all jobs as they come; a worker that dies costs its sample."""
        import ray

        left = (replace(job, policies=(policy,)) for job in jobs for policy in job.policies)
        running: dict[Any, tuple[Any, Job]] = {}

        def give(worker: Any) -> None:
            for job in islice(left, 1):
                running[worker.examine.remote(job)] = worker, job

        for worker in self._actors * AHEAD:
            give(worker)
        while running:
            (ready, *_), _ = ray.wait(list(running), num_returns=1)
            worker, job = running.pop(ready)
            try:
                outcome = ray.get(ready)
            except ray.exceptions.RayError as error:
                record = failure(job.sample.id, job.sample.meta, _worker_error(error))
                outcome = Outcome(job.task, job.policies[0], record)
            give(worker)
            yield outcome


def _ray() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is sent anywhere
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    return ray


def _worker_error(error: Exception) -> Exception:
    """What a worker raised, or that it died."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception):
        return cause
    return InfllmError(
        f"a worker ended: {type(error).__name__}", "see the machine's memory; give fewer --workers"
    )
