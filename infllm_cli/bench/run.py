"""A benchmark's run: which samples are left, who examines them, and where the results go."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from infllm.cli.bench.examine import Job, Outcome
from infllm.cli.bench.results import TIMINGS, ResultFile, ResultFolder, append_line
from infllm.cli.bench.sample import BadSample, Sample

if TYPE_CHECKING:
    from infllm.cli.bench.suites import Source, Task


class Examines(Protocol):
    """Whoever examines samples: an engine in this process, or several elsewhere."""

    def examine(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """The outcomes of all jobs, in any order; takes jobs only as it needs them."""
        ...


@dataclass(frozen=True)
class Failure:
    """A sample without a score; `bad`: its data is at fault, named by `where`."""

    task: str
    policy: str
    id: str
    why: str
    where: str = ""

    @property
    def bad(self) -> bool:
        return bool(self.where)

    @property
    def sentence(self) -> str:
        place = self.where if self.where else f"sample {self.id}"
        return f"{self.task}, {self.policy}, {place}: {self.why}"


@dataclass
class Run:
    """Tasks under policies, with results in a folder.

    `sources` are those of tasks with a chat template (True) and without; `limit` counts samples
    of each task. `found` hears of each sample and of how many policies it has results already.
    """

    tasks: Sequence["Task"]
    policies: Sequence[str]
    sources: Mapping[bool, "Source"]
    limit: int | None
    folder: ResultFolder
    found: Callable[[Sample | BadSample, int], None] = lambda sample, kept: None
    kept: int = 0  # results of earlier runs
    made: int = 0  # results of this one
    _files: dict[tuple[str, str], ResultFile] = field(default_factory=dict)
    _order: dict[str, list[str]] = field(default_factory=dict)
    _bad: list[Outcome] = field(default_factory=list)

    def go(self, examiner: Examines) -> Iterator[Outcome]:
        """Every outcome of this run, when it is on the disk.

        Raises:
            OSError: a result could not be written.
            UsageError: a file holds something else than results.
        """
        for task in self.tasks:
            for policy in self.policies:
                name = task.id
                self._files[name, policy] = self.folder.file(policy, task.suite, task.name)
        for outcome in examiner.examine(self._jobs()):
            yield self._keep(outcome)
            # Samples that could not be made wait for no one.
            yield from self._refused()
        yield from self._refused()
        for (name, _), file in self._files.items():
            file.finish(self._order[name])

    def _jobs(self) -> Iterator[Job]:
        for task in self.tasks:
            name = task.id
            order = self._order[name] = []
            for sample in task.samples(self.sources[task.chat], self.limit):
                order.append(sample.id)
                left = tuple(p for p in self.policies if sample.id not in self._files[name, p].done)
                self.kept += len(self.policies) - len(left)
                self.found(sample, len(self.policies) - len(left))
                if isinstance(sample, BadSample):
                    record = {"id": sample.id, "failed": sample.why, "where": sample.where}
                    self._bad += [Outcome(task, policy, record) for policy in left]
                elif left:
                    yield Job(task, sample, left)

    def _refused(self) -> Iterator[Outcome]:
        bad, self._bad = self._bad, []
        yield from map(self._keep, bad)

    def _keep(self, outcome: Outcome) -> Outcome:
        name = outcome.task.id
        self._files[name, outcome.policy].append(outcome.record)
        self.made += not outcome.failed
        if outcome.timing:
            line = {"task": name, "policy": outcome.policy, "id": outcome.record["id"]}
            append_line(self.folder.path / TIMINGS, {**line, **outcome.timing}, durable=False)
        return outcome

    @property
    def failures(self) -> list[Failure]:
        """Samples of this run's tasks and policies that have no score, earlier ones included."""
        return [
            Failure(name, policy, record["id"], record["failed"], record.get("where", ""))
            for (name, policy), file in self._files.items()
            for record in map(file.records.get, self._order.get(name, []))
            if record is not None and "failed" in record
        ]
