"""Pruning stages of InfiniteHiP (arXiv 2502.08910): by their published names, or one's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NotRequired, Protocol

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag, with_config
from typing_extensions import TypedDict

LARGEST_BLOCK = 64  # queries that share a choice: attention packs what they chose for the first


@with_config(ConfigDict(extra="forbid"))
class Stage(TypedDict):
    """One stage of pruning, as a configuration writes it; lengths are in tokens."""

    chunk: Annotated[int, Field(ge=1)]
    keep: Annotated[int, Field(ge=1)]  # tokens that go on to the next stage, or are attended
    keep_early: NotRequired[Annotated[int, Field(ge=1)]]  # the same in `early_layers`
    query_block: NotRequired[Annotated[int, Field(ge=1, le=LARGEST_BLOCK)]]  # 64
    query_group: NotRequired[Annotated[int, Field(ge=1)]]  # neighbouring queries averaged: 1


SINKS, STREAM = 256, 1024  # n_init and n_local of both
PUBLISHED: dict[str, list[Stage]] = {
    "3k": [
        {"chunk": 256, "keep": 32768, "query_group": 4},
        {"chunk": 32, "keep": 8192, "query_group": 4},
        {"chunk": 8, "keep": 2048, "keep_early": 4096},
    ],
    "5k": [
        {"chunk": 64, "keep": 32768, "query_group": 4},
        {"chunk": 32, "keep": 16384, "query_group": 4},
        {"chunk": 16, "keep": 4096},
    ],
}
# Decode steps from one run of a stage to the next; the last value goes on for further stages.
REFRESH = {"default": [16, 8, 4], "fast": [32, 16, 8], "flash": [96, 24, 8]}


def _check_stages(stages: list[Stage]) -> list[Stage]:
    if not stages:
        raise ValueError("at least one stage is needed")
    before: Stage | None = None
    for stage in stages:
        chunk, block, group = stage["chunk"], query_block(stage), stage.get("query_group", 1)
        for keep in (stage["keep"], stage.get("keep_early", chunk)):
            if keep % chunk:
                raise ValueError(f"{keep} kept tokens are no whole chunks of {chunk}")
        if block % group:
            raise ValueError(f"query_block {block} must be whole groups of {group}")
        if before is not None and before["chunk"] % chunk:
            raise ValueError(f"chunks of {before['chunk']} cannot be split into those of {chunk}")
        if before is not None and query_block(before) % block:
            raise ValueError(
                f"query blocks of {query_block(before)} cannot be split into those of {block}"
            )
        before = stage
    return stages


def query_block(stage: Stage) -> int:
    """Queries that share a choice."""
    return stage.get("query_block", LARGEST_BLOCK)


def _kind(value: object) -> str:
    return "name" if isinstance(value, str) else "list"


Stages = Annotated[
    Annotated[Literal["3k", "5k"], Tag("name")]
    | Annotated[list[Stage], AfterValidator(_check_stages), Tag("list")],
    Discriminator(_kind),
]
Refresh = Annotated[
    Annotated[Literal["default", "fast", "flash"], Tag("name")]
    | Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1), Tag("list")],
    Discriminator(_kind),
]


class PruneSettings(Protocol):
    """The settings that say how a layer prunes."""

    @property
    def stages(self) -> str | list[Stage]: ...
    @property
    def refresh(self) -> str | list[int]: ...
    @property
    def early_layers(self) -> list[int]: ...
    @property
    def prune_keys(self) -> str: ...


@dataclass(frozen=True)
class Pruning:
    """One stage as a layer runs it."""

    chunk: int
    keep: int  # chunks
    query_block: int
    query_group: int
    refresh: int  # decode steps

    @property
    def kept_tokens(self) -> int:
        """Tokens that a block keeps."""
        return self.keep * self.chunk


def pruning_of(config: PruneSettings, layer: int) -> list[Pruning]:
    """The stages that a layer runs."""
    stages = PUBLISHED[config.stages] if isinstance(config.stages, str) else config.stages
    every = REFRESH[config.refresh] if isinstance(config.refresh, str) else config.refresh
    early = layer in config.early_layers

    def kept(stage: Stage) -> int:
        return stage.get("keep_early", stage["keep"]) if early else stage["keep"]

    return [
        Pruning(
            stage["chunk"], kept(stage) // stage["chunk"], query_block(stage),
            stage.get("query_group", 1), _nth(every, i),
        )
        for i, stage in enumerate(stages)
    ]  # fmt: skip


def _nth(values: Sequence[int], i: int) -> int:
    return values[min(i, len(values) - 1)]


def unseen(config: PruneSettings) -> str | None:
    """Why some tokens could be chosen by no query, if there are such tokens."""
    stages = pruning_of(config, 0)
    block, chunk = stages[-1].query_block, stages[0].chunk
    if block <= chunk:
        return None
    return (
        f"query blocks of {block} are longer than the first stage's chunks of {chunk}: what leaves "
        "a window within a block could not be chosen"
    )


def most_attended(config: PruneSettings) -> int:
    """Tokens in the chunks that a query attends, in the layers that attend most."""
    early = max(config.early_layers, default=-1)
    return max(pruning_of(config, layer)[-1].kept_tokens for layer in (early, early + 1))


def prunes_int8(config: PruneSettings, device_type: str) -> bool:
    """Whether pruning looks at keys of its own, in int8: where the others are off the device."""
    auto = device_type != "cpu"
    return config.prune_keys == "int8" or (config.prune_keys == "auto" and auto)
