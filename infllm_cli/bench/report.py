"""What results say: means with intervals, by length, and one method against another."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from infllm.cli.bench.results import read_manifest, read_results, read_timings
from infllm.cli.bench.statistics import Mean, mean_difference, mean_of_means, mean_score
from infllm.cli.errors import UsageError
from infllm.cli.tasks.policies import memory_policy

COMPARED = ("seed", "scoring")  # of a manifest: where they differ, samples are not the same


@dataclass(frozen=True)
class Scored:
    """A sample with its score: the mean over its turns."""

    id: str
    score: float
    length: int | None  # wanted, in tokens
    depth: float | None  # in percent
    seconds: float | None = None  # for each of its questions, reading included; None: not noted


@dataclass(frozen=True)
class Cell:
    """Results of one task under one method."""

    task: str
    method: str
    samples: Sequence[Scored]
    failed: int
    truncated: int  # samples of which tokens were left out
    tokens_given: int  # over all samples
    tokens_read: int

    @cached_property
    def mean(self) -> Mean | None:
        """Over all samples that were scored; None where there is none."""
        return mean_score([s.score for s in self.samples]) if self.samples else None

    @cached_property
    def by_length(self) -> dict[int, Mean]:
        """Over the samples of each wanted length."""
        lengths = sorted({s.length for s in self.samples if s.length is not None})
        return {n: mean_score([s.score for s in self.samples if s.length == n]) for n in lengths}

    def seconds(self, length: int | None = None) -> float | None:
        """For a question, on average over the samples (of a wanted length) of which it is known."""
        known = [
            s.seconds for s in self.samples if s.seconds is not None and length in (None, s.length)
        ]
        return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class Difference:
    """How much better a method is than a baseline on the samples that both have scored."""

    task: str
    method: str
    baseline: str
    mean: Mean


@dataclass(frozen=True)
class Report:
    """Results of one or several folders. A method is a policy, of a folder where there are more."""

    tasks: list[str]
    methods: list[str]
    cells: Mapping[tuple[str, str], Cell]
    failures: list[dict[str, str]]
    unlike: list[str]  # why some results are no fair comparison, a sentence each
    _apart: frozenset[tuple[str, str, str]]  # task and two methods that have other samples
    scoring: str  # corrected, official, or both
    models: list[str]  # presets or models, as they were named

    def suite_mean(self, suite: str, method: str) -> Mean | None:
        """Over the suite's tasks, each counting alike; None where a task has no score."""
        cells = [self.cells.get((task, method)) for task in self.of_suite(suite)]
        scores = [[s.score for s in cell.samples] for cell in cells if cell and cell.samples]
        return mean_of_means(scores) if len(scores) == len(cells) else None

    def of_suite(self, suite: str) -> list[str]:
        """Names of its tasks among the results."""
        return [task for task in self.tasks if task.partition(":")[0] == suite]

    @property
    def suites(self) -> list[str]:
        """In the order of their tasks."""
        return list(dict.fromkeys(task.partition(":")[0] for task in self.tasks))

    def differences(self, baseline: str | None = None) -> list[Difference]:
        """Every method against the baseline (by default the first), task by task.

        Raises:
            UsageError: there is no such method.
        """
        if baseline is None:
            baseline = self.methods[0] if self.methods else ""
        elif baseline not in self.methods:
            raise UsageError(
                f"--baseline {baseline!r} is no method of these results",
                f"they have: {', '.join(self.methods)}",
            )
        found = []
        for task in self.tasks:
            for method in self.methods:
                pair = self._pair(task, method, baseline)
                if pair is not None:
                    found.append(Difference(task, method, baseline, mean_difference(*pair)))
        return found

    def _pair(
        self, task: str, method: str, baseline: str
    ) -> tuple[list[float], list[float]] | None:
        ours, theirs = self.cells.get((task, method)), self.cells.get((task, baseline))
        if method == baseline or ours is None or theirs is None:
            return None
        if (task, *sorted((method, baseline))) in self._apart:
            return None
        scores = {s.id: s.score for s in theirs.samples}
        shared = [(s.score, scores[s.id]) for s in ours.samples if s.id in scores]
        return tuple(map(list, zip(*shared, strict=True))) if shared else None  # type: ignore[return-value]


def load_report(
    folders: Sequence[Path],
    tasks: Iterable[str] | None = None,
    policies: Iterable[str] | None = None,
) -> Report:
    """The results in `folders`; of `tasks` and `policies` alone where these are given.

    Raises:
        UsageError: a folder holds no results, or a file of it something else.
    """
    only_tasks = None if tasks is None else set(tasks)
    only_policies = None if policies is None else set(policies)
    manifests = {folder: read_manifest(folder) for folder in folders}
    labels = _labels(list(manifests))
    cells: dict[tuple[str, str], Cell] = {}
    failures: list[dict[str, str]] = []
    source: dict[str, Path] = {}  # of each method
    rank: dict[str, tuple[int, int, str]] = {}
    for folder in manifests:
        timings = read_timings(folder)
        for policy, task, records in read_results(folder):
            if only_tasks is not None and task not in only_tasks:
                continue
            if only_policies is not None and policy not in only_policies:
                continue
            method = f"{labels[folder]}{policy}"
            source[method] = folder
            rank[method] = (list(manifests).index(folder), *_policy_rank(policy))
            took = {r["id"]: timings.get((task, policy, r["id"])) for r in records}
            cells[task, method] = _cell(task, method, records, took)
            failures += [
                {"task": task, "method": method, **_failure(r)} for r in records if "failed" in r
            ]
    names = sorted({task for task, _ in cells}, key=_natural)
    methods = sorted(source, key=rank.__getitem__)
    apart, unlike = _compare(manifests, names, methods, source)
    scoring = " and ".join(sorted({manifest["scoring"] for manifest in manifests.values()}))
    models = sorted({manifest["preset"] for manifest in manifests.values()})
    return Report(names, methods, cells, failures, unlike, apart, scoring, models)


def _cell(
    task: str,
    method: str,
    records: Sequence[Mapping[str, Any]],
    took: Mapping[str, Mapping[str, Any] | None],
) -> Cell:
    scored = [record for record in records if "failed" not in record]
    return Cell(
        task,
        method,
        [
            Scored(
                record["id"],
                sum(record["scores"]) / len(record["scores"]),
                record["meta"].get("length"),
                record["meta"].get("depth"),
                _seconds(took[record["id"]], len(record["scores"])),
            )
            for record in scored
        ],
        len(records) - len(scored),
        sum(record["tokens_truncated"] > 0 for record in scored),
        sum(record["tokens_given"] for record in scored),
        sum(record["tokens_read"] for record in scored),
    )


def _seconds(timing: Mapping[str, Any] | None, questions: int) -> float | None:
    if timing is None:
        return None
    return float(timing["seconds_reading"] + timing["seconds_answering"]) / questions


def _failure(record: Mapping[str, Any]) -> dict[str, str]:
    return {"id": record["id"], "why": record["failed"], "where": record.get("where", "")}


def _labels(folders: Sequence[Path]) -> dict[Path, str]:
    """What goes before a policy's name: nothing where there is one folder."""
    if len(folders) == 1:
        return {folders[0]: ""}
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    return {folder: f"{name}:" for folder, name in zip(folders, names, strict=True)}


def _policy_rank(name: str) -> tuple[int, str]:
    from infllm.engine.config import ModelConfig

    known = get_args(ModelConfig.model_fields["type"].annotation)
    policy = memory_policy(name)
    return (known.index(policy) if policy in known else len(known)), name


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts `qa2` before `qa10`."""
    return [(int(p), "") if p.isdigit() else (-1, p) for p in re.split(r"(\d+)", name)]


def _compare(
    manifests: Mapping[Path, Mapping[str, Any]],
    tasks: Sequence[str],
    methods: Sequence[str],
    source: Mapping[str, Path],
) -> tuple[frozenset[tuple[str, str, str]], list[str]]:
    """Which results are of other samples than others, and why."""
    apart: set[tuple[str, str, str]] = set()
    unlike: dict[str, None] = {}
    for i, one in enumerate(methods):
        for two in methods[i + 1 :]:
            a, b = manifests[source[one]], manifests[source[two]]
            for task in tasks if a is not b else ():
                keys = [key for key in COMPARED if a[key] != b[key]]
                mine, theirs = a["tasks"].get(task), b["tasks"].get(task)
                keys += [key for key in mine or () if theirs and mine[key] != theirs[key]]
                if keys:
                    apart.add((task, *sorted((one, two))))  # type: ignore[arg-type]
                    folders = f"{source[one]} and {source[two]}"
                    unlike[f"{task}: {folders} differ in {', '.join(keys)}"] = None
    return frozenset(apart), list(unlike)
